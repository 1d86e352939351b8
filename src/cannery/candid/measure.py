"""How small and how laborious the values of a type can be: what decoders must know before they loop.

Candid specification, "Note on implementation" of section "Deserialisation". A value may cost work without
having bytes (`vec null`, records of nulls): `Measure.weight` counts such steps, `Measure.size` is a lower
bound of the bytes, and a type that no finite value inhabits (`type t = record { t }`) has no measure at all.
Decoders charge work that the bytes do not pay for to a meter, one number in a list, which ends below zero.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    EMPTY,
    FIXED_FORMATS,
    NULL,
    PRINCIPAL,
    RESERVED,
    FuncNode,
    FutureNode,
    Graph,
    Node,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
    node_refs,
)
from cannery.limits import CANDID_WORK_UNITS_FREE, CANDID_WORK_UNITS_PER_BYTE

_CAP = 1 << 40
_WEIGHT_FREE = 64
_FIXED_SIZES = {"b": 1, "h": 2, "i": 4, "q": 8, "f": 4, "d": 8}


@dataclass(frozen=True, slots=True)
class Measure:
    """The least bytes of a value, and the most steps that cost no bytes (contents of opt, vec and variant
    apart)."""

    size: int
    weight: int

    @property
    def charge_inside(self) -> int:
        """Units to charge for one such value behind a byte that was read."""
        return self.weight if self.weight > _WEIGHT_FREE + CANDID_WORK_UNITS_PER_BYTE * self.size else 0

    @property
    def charge_element(self) -> int:
        """Units to charge for one such value as an element of a vector."""
        return max(self.weight, 1) if self.size == 0 else self.charge_inside


_ZERO = Measure(0, 1)
_ONE = Measure(1, 0)


def new_meter(size_bytes: int) -> list[int]:
    """Make the meter for a message of this size."""
    return [CANDID_WORK_UNITS_FREE + CANDID_WORK_UNITS_PER_BYTE * size_bytes]


def charge(meter: list[int], units: int) -> None:
    """Charge work to the meter; raise `CandidError` where it is used up."""
    meter[0] -= units
    if meter[0] < 0:
        raise CandidError("the message costs more work than its size pays for: it was built to be expensive")


def primitive_measure(ref: int) -> Measure | None:
    """Measure a primitive type; none for `empty`."""
    if ref == EMPTY:
        return None
    if ref in (NULL, RESERVED):
        return _ZERO
    if ref in FIXED_FORMATS:
        return Measure(_FIXED_SIZES[FIXED_FORMATS[ref].lower()], 0)
    return Measure(2, 0) if ref == PRINCIPAL else _ONE


class Measures:
    """The measures of all types of a graph."""

    def __init__(self, graph: Graph) -> None:
        self._nodes: list[Measure | None] = [None] * len(graph.nodes)
        self._graph = graph
        self._fill()

    def of(self, ref: int) -> Measure | None:
        """Return the measure of a type, or nothing where it has no values."""
        return primitive_measure(ref) if ref < 0 else self._nodes[ref]

    def _fill(self) -> None:
        """Measure nodes in the order in which their contents become known; what never does has no values."""
        users: list[list[int]] = [[] for _ in self._graph.nodes]
        waiting = [0] * len(users)
        ready: list[int] = []
        for index, node in enumerate(self._graph.nodes):
            awaited = node_refs(node) if isinstance(node, (RecordNode, VariantNode)) else ()
            waiting[index] = len(awaited)
            for ref in awaited:
                if ref >= 0:
                    users[ref].append(index)
                elif ref != EMPTY:
                    waiting[index] -= 1
            if self._is_ready(node, waiting[index], len(awaited)):
                ready.append(index)
        while ready:
            index = ready.pop()
            if self._nodes[index] is not None:
                continue
            self._nodes[index] = self._measure(self._graph.nodes[index])
            for user in users[index]:
                waiting[user] -= 1
                node = self._graph.nodes[user]
                if self._is_ready(node, waiting[user], len(node_refs(node))):
                    ready.append(user)

    @staticmethod
    def _is_ready(node: Node, waiting: int, total: int) -> bool:
        return waiting < total if isinstance(node, VariantNode) else waiting == 0

    def _measure(self, node: Node) -> Measure:
        match node:
            case RecordNode():
                inner = [m for ref in node.refs if (m := self.of(ref)) is not None]
                assert len(inner) == len(node.refs)
                size, weight = sum(m.size for m in inner), 1 + sum(m.weight for m in inner)
                return Measure(min(size, _CAP), min(weight, _CAP))
            case FuncNode():
                return Measure(4, 0)
            case ServiceNode() | FutureNode():
                return Measure(2, 0)
            case OptNode() | VecNode() | VariantNode():
                return _ONE
