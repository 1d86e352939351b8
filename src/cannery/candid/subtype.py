"""The subtype relation: which values can stand where others are expected, and which interface can replace
another.

Candid specification, section "Upgrading and Subtyping". The relation is a conjunction throughout, so it is
decided by a worklist over pairs of types, each visited once: recursion of types costs no recursion of ours,
and the number of pairs is bounded. `explain_subtype` gives the paths that differ; `explain_loss` those that
are legal and still read every old value as null, because an option changed its content ("Implementations ...
are encouraged to warn").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    EMPTY,
    INT,
    MODES,
    NAT,
    NULL,
    PRINCIPAL,
    RESERVED,
    FuncNode,
    FutureNode,
    Graph,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
    describe,
    graph_of,
    node_refs,
    with_refs,
)
from cannery.candid.types import Type
from cannery.limits import CANDID_CODEC_CACHE_COUNT_MAX, CANDID_SUBTYPE_PAIRS_COUNT_MAX

_REPORT_LINES_MAX = 100


@dataclass(frozen=True, slots=True)
class _Pair:
    """One demand: the type at `sub` is a subtype of the one at `sup`; `path` says where it comes from."""

    sub: int
    sup: int
    path: str


def is_subtype(sub: Type, sup: Type) -> bool:
    """Tell whether every value of `sub` can be read as a `sup`."""
    return not explain_subtype(sub, sup)


def explain_subtype(sub: Type, sup: Type) -> list[str]:
    """Return the paths at which `sub` is no subtype of `sup`, with reasons; none where it is one."""
    return list(_failures(sub, sup))


def explain_loss(sub: Type, sup: Type) -> list[str]:
    """Return the paths of options whose content changed so that present values read as null."""
    graph = graph_of((sub, sup))
    return list(SubtypeRelation(graph).losses(_Pair(graph.roots[0], graph.roots[1], "value")))


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def _failures(sub: Type, sup: Type) -> tuple[str, ...]:
    graph = graph_of((sub, sup))
    return tuple(SubtypeRelation(graph).failures(_Pair(graph.roots[0], graph.roots[1], "value")))


def join_graphs(first: Graph, second: Graph) -> tuple[Graph, int]:
    """Put two graphs into one; return also what to add to the second's references."""
    shift = len(first.nodes)
    moved = tuple(
        with_refs(node, tuple(ref + shift if ref >= 0 else ref for ref in node_refs(node)))
        for node in second.nodes
    )
    roots = tuple(ref + shift if ref >= 0 else ref for ref in second.roots)
    return Graph(first.nodes + moved, first.roots + roots), shift


class SubtypeRelation:
    """Decides subtyping between the types of one graph."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def holds(self, sub: int, sup: int) -> bool:
        """Tell whether the type at `sub` is a subtype of the one at `sup`."""
        return next(self.failures(_Pair(sub, sup, "value")), None) is None

    def failures(self, start: _Pair) -> Iterator[str]:
        """Give a line for each place at which the relation fails, up to a limit."""
        seen = {(start.sub, start.sup)}
        todo = [start]
        lines = 0
        while todo and lines < _REPORT_LINES_MAX:
            pair = todo.pop()
            demands, reasons = self._step(pair)
            lines += len(reasons)
            yield from (f"{pair.path}: {reason}" for reason in reasons)
            for demand in reversed(demands):
                if (demand.sub, demand.sup) not in seen:
                    seen.add((demand.sub, demand.sup))
                    todo.append(demand)
            if len(seen) > CANDID_SUBTYPE_PAIRS_COUNT_MAX:
                raise CandidError("types are too large to be compared")

    def losses(self, start: _Pair) -> Iterator[str]:
        """Give a line for each option that is legal by the special rules alone, up to a limit."""
        seen = {(start.sub, start.sup)}
        todo = [start]
        lines = 0
        while todo and lines < _REPORT_LINES_MAX:
            pair = todo.pop()
            demands, _ = self._step(pair)
            inner = self._content_pair(pair)
            if inner is not None:
                demands = [inner]
                reason = next(self.failures(inner), None)
                if reason is not None:
                    lines += 1
                    demands = []
                    yield f"{pair.path}: reads as null ({reason})"
            for demand in reversed(demands):
                if (demand.sub, demand.sup) not in seen:
                    seen.add((demand.sub, demand.sup))
                    todo.append(demand)
            if len(seen) > CANDID_SUBTYPE_PAIRS_COUNT_MAX:
                raise CandidError("types are too large to be compared")

    def _content_pair(self, pair: _Pair) -> _Pair | None:
        """Return what an option's content and its replacement should satisfy for no value to be lost."""
        sup = self._node(pair.sup)
        if not isinstance(sup, OptNode) or pair.sub in (NULL, RESERVED, EMPTY):
            return None
        sub = self._node(pair.sub)
        content = sub.inner if isinstance(sub, OptNode) else pair.sub
        return None if content == EMPTY else _Pair(content, sup.inner, pair.path + "?")

    def _node(self, ref: int) -> object:
        return None if ref < 0 else self.graph.nodes[ref]

    def _is_nullable(self, ref: int) -> bool:
        return ref in (NULL, RESERVED) or isinstance(self._node(ref), OptNode)

    def _step(self, pair: _Pair) -> tuple[list[_Pair], list[str]]:
        """Return what the demand demands of the contents, and why it fails by itself."""
        sub, sup = self._node(pair.sub), self._node(pair.sup)
        if pair.sub == pair.sup or pair.sup == RESERVED or pair.sub == EMPTY or isinstance(sup, OptNode):
            return [], []
        if (pair.sub, pair.sup) == (NAT, INT) or (isinstance(sub, ServiceNode) and pair.sup == PRINCIPAL):
            return [], []
        if isinstance(sub, VecNode) and isinstance(sup, VecNode):
            return [_Pair(sub.inner, sup.inner, f"{pair.path}[]")], []
        if isinstance(sub, RecordNode) and isinstance(sup, RecordNode):
            return self._record(sub, sup, pair.path)
        if isinstance(sub, VariantNode) and isinstance(sup, VariantNode):
            return self._variant(sub, sup, pair.path)
        if isinstance(sub, FuncNode) and isinstance(sup, FuncNode):
            return self._func(sub, sup, pair.path)
        if isinstance(sub, ServiceNode) and isinstance(sup, ServiceNode):
            return self._service(sub, sup, pair.path)
        if isinstance(sub, FutureNode) and sub == sup:
            return [], []
        return [], [f"{describe(self.graph, pair.sub)} is not a subtype of {describe(self.graph, pair.sup)}"]

    def _record(self, sub: RecordNode, sup: RecordNode, path: str) -> tuple[list[_Pair], list[str]]:
        present = dict(zip(sub.ids, sub.refs, strict=True))
        demands, reasons = [], []
        for field_id, label, ref in zip(sup.ids, _labels(sup), sup.refs, strict=True):
            if field_id in present:
                demands.append(_Pair(present[field_id], ref, f"{path}.{label}"))
            elif not self._is_nullable(ref):
                reasons.append(f"field {label} is missing, and {describe(self.graph, ref)} is not optional")
        return demands, reasons

    def _variant(self, sub: VariantNode, sup: VariantNode, path: str) -> tuple[list[_Pair], list[str]]:
        known = dict(zip(sup.ids, sup.refs, strict=True))
        names = dict(zip(sup.ids, _labels(sup), strict=True))
        demands, reasons = [], []
        for field_id, label, ref in zip(sub.ids, _labels(sub), sub.refs, strict=True):
            if field_id in known:
                demands.append(_Pair(ref, known[field_id], f"{path}.{names[field_id]}"))
            else:
                reasons.append(f"case {label} is not known")
        return demands, reasons

    def _func(self, sub: FuncNode, sup: FuncNode, path: str) -> tuple[list[_Pair], list[str]]:
        reasons = []
        if sub.modes != sup.modes:
            reasons.append(f"mode {_modes(sub)} is not {_modes(sup)}")
        demands, missing = self._tuple(sup.args, sub.args, f"{path} argument")
        more, lacking = self._tuple(sub.results, sup.results, f"{path} result")
        return demands + more, reasons + missing + lacking

    def _tuple(self, sub: tuple[int, ...], sup: tuple[int, ...], path: str) -> tuple[list[_Pair], list[str]]:
        demands = [_Pair(a, b, f"{path} {i}") for i, (a, b) in enumerate(zip(sub, sup, strict=False))]
        what = path.rsplit(" ", 1)[-1]
        reasons = [
            f"{what} {i} is missing, and {describe(self.graph, ref)} is not optional"
            for i, ref in enumerate(sup)
            if i >= len(sub) and not self._is_nullable(ref)
        ]
        return demands, reasons

    def _service(self, sub: ServiceNode, sup: ServiceNode, path: str) -> tuple[list[_Pair], list[str]]:
        present = dict(zip(sub.names, sub.refs, strict=True))
        demands, reasons = [], []
        for name, ref in zip(sup.names, sup.refs, strict=True):
            if name in present:
                demands.append(_Pair(present[name], ref, f"{path} method {name!r}"))
            else:
                reasons.append(f"method {name!r} is missing")
        return demands, reasons


def _labels(node: RecordNode | VariantNode) -> tuple[str, ...]:
    return node.labels or tuple(f"_{i}_" for i in node.ids)


def _modes(node: FuncNode) -> str:
    return " ".join(MODES[mode - 1] for mode in node.modes) or "update"
