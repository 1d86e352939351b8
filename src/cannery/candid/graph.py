"""Types as a graph: the form that the wire has, and that every algorithm of this room works on.

Candid specification, section "Types" of "Binary Format". A reference to a type is a number: negative for a
primitive type (its opcode), else the index of a node. `graph_of` turns types into a graph, `reduce_graph`
merges equal nodes (recursive ones included) and numbers the rest in the order in which they are met: the
canonical form. Nothing here recurses, so depth costs no stack.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeAlias

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.limits import CANDID_SUBTYPE_PAIRS_COUNT_MAX, CANDID_TABLE_ENTRIES_COUNT_MAX

PRIMITIVE_OPCODES: dict[type, int] = {
    ct.Null: -1,
    ct.Bool: -2,
    ct.Nat: -3,
    ct.Int: -4,
    ct.Nat8: -5,
    ct.Nat16: -6,
    ct.Nat32: -7,
    ct.Nat64: -8,
    ct.Int8: -9,
    ct.Int16: -10,
    ct.Int32: -11,
    ct.Int64: -12,
    ct.Float32: -13,
    ct.Float64: -14,
    ct.Text: -15,
    ct.Reserved: -16,
    ct.Empty: -17,
    ct.PrincipalType: -24,
}
(NULL, BOOL, NAT, INT, NAT8, NAT16, NAT32, NAT64, INT8, INT16, INT32, INT64, FLOAT32, FLOAT64, TEXT) = range(
    -1, -16, -1
)
RESERVED, EMPTY, PRINCIPAL = -16, -17, -24

PRIMITIVE_NAMES: dict[int, str] = {
    opcode: "principal" if cls is ct.PrincipalType else cls.__name__.lower()
    for cls, opcode in PRIMITIVE_OPCODES.items()
}
FIXED_FORMATS: dict[int, str] = {
    NAT8: "B",
    NAT16: "H",
    NAT32: "I",
    NAT64: "Q",
    INT8: "b",
    INT16: "h",
    INT32: "i",
    INT64: "q",
    FLOAT32: "f",
    FLOAT64: "d",
}
"""Primitive types of fixed size, as `struct` calls them."""

MODES = ("query", "oneway", "composite_query")
"""Modes of methods; the one with number N on the wire stands at N - 1."""

_WORK_STEPS_MAX = 4_000_000


@dataclass(frozen=True, slots=True)
class OptNode:
    """`opt inner`."""

    inner: int


@dataclass(frozen=True, slots=True)
class VecNode:
    """`vec inner`; bound to `dict` it is a mapping."""

    inner: int
    bound: type | None = None


@dataclass(frozen=True, slots=True)
class RecordNode:
    """Fields in the order of their numbers, with their keys in Python."""

    ids: tuple[int, ...]
    refs: tuple[int, ...]
    labels: tuple[str, ...] = ()
    bound: type | None = None
    is_tuple: bool = False


@dataclass(frozen=True, slots=True)
class VariantNode:
    """Cases in the order of their numbers, with their tags in Python."""

    ids: tuple[int, ...]
    refs: tuple[int, ...]
    labels: tuple[str, ...] = ()
    bound: type | None = None


@dataclass(frozen=True, slots=True)
class FuncNode:
    """A method; modes as numbers of the wire, sorted."""

    args: tuple[int, ...]
    results: tuple[int, ...]
    modes: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ServiceNode:
    """Methods in the order of the bytes of their names."""

    names: tuple[str, ...]
    refs: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FutureNode:
    """A type of a later Candid."""

    opcode: int
    payload: bytes


Node: TypeAlias = OptNode | VecNode | RecordNode | VariantNode | FuncNode | ServiceNode | FutureNode


@dataclass(frozen=True, slots=True)
class Graph:
    """Nodes, and the references of those types that the graph was made for."""

    nodes: tuple[Node, ...]
    roots: tuple[int, ...]


def node_refs(node: Node) -> tuple[int, ...]:
    """Return the references inside a node, in wire order."""
    match node:
        case OptNode() | VecNode():
            return (node.inner,)
        case RecordNode() | VariantNode() | ServiceNode():
            return node.refs
        case FuncNode():
            return node.args + node.results
        case FutureNode():
            return ()


def with_refs(node: Node, refs: tuple[int, ...]) -> Node:
    """Return the node with other references inside."""
    match node:
        case OptNode():
            return OptNode(refs[0])
        case VecNode():
            return replace(node, inner=refs[0])
        case RecordNode() | VariantNode() | ServiceNode():
            return replace(node, refs=refs)
        case FuncNode():
            return replace(node, args=refs[: len(node.args)], results=refs[len(node.args) :])
        case FutureNode():
            return node


def describe(graph: Graph, ref: int) -> str:
    """Name the kind of a type for an error text."""
    if ref < 0:
        return PRIMITIVE_NAMES.get(ref, f"type {ref}")
    node = graph.nodes[ref]
    if isinstance(node, VecNode):
        return "blob" if node.inner == NAT8 else "vec"
    return type(node).__name__.removesuffix("Node").lower()


class _Builder:
    """Collects nodes for closed types; one node for each type object met in one environment."""

    def __init__(self) -> None:
        self.nodes: list[Node | None] = []
        self.todo: list[tuple[int, ct.Type, ct.Env | None]] = []
        self.seen: dict[tuple[int, int], int] = {}
        self.alive: list[object] = []

    def ref(self, t: ct.Type, env: ct.Env | None) -> int:
        """Return the reference for a type, and queue its node where it is new."""
        steps = 0
        while isinstance(t, (ct.Ref, ct.Rec)):
            if isinstance(t, ct.Rec):
                env = t.env
            elif env is None:
                raise CandidError(f"type {t.name!r} is not defined: an open reference needs its definitions")
            t = env[t.name]
            steps += 1
            if steps > CANDID_TABLE_ENTRIES_COUNT_MAX:
                raise CandidError("a type is defined as nothing but itself")
        opcode = PRIMITIVE_OPCODES.get(type(t))
        if opcode is not None:
            return opcode
        key = (id(t), id(env))
        index = self.seen.get(key)
        if index is None:
            index = self.seen[key] = len(self.nodes)
            if index >= CANDID_TABLE_ENTRIES_COUNT_MAX:
                raise CandidError(f"types need over {CANDID_TABLE_ENTRIES_COUNT_MAX} definitions")
            self.alive.append((t, env))
            self.nodes.append(None)
            self.todo.append((index, t, env))
        return index

    def node(self, t: ct.Type, env: ct.Env | None) -> Node:
        """Make the node of a composite type."""

        def refs(inner: tuple[ct.Type, ...]) -> tuple[int, ...]:
            return tuple(self.ref(x, env) for x in inner)

        match t:
            case ct.Opt():
                return OptNode(self.ref(t.inner, env))
            case ct.Vec():
                return VecNode(self.ref(t.inner, env), t.bound)
            case ct.Record():
                ids, labels = tuple(f.id for f in t.fields), tuple(f.label for f in t.fields)
                return RecordNode(ids, refs(ct.children(t)), labels, t.bound, t.is_tuple)
            case ct.Variant():
                ids, labels = tuple(f.id for f in t.fields), tuple(f.label for f in t.fields)
                return VariantNode(ids, refs(ct.children(t)), labels, t.bound)
            case ct.Func():
                modes = tuple(sorted(MODES.index(m) + 1 for m in t.modes))
                return FuncNode(refs(t.args), refs(t.results), modes)
            case ct.Service():
                return ServiceNode(tuple(n for n, _ in t.methods), refs(tuple(m for _, m in t.methods)))
            case ct.Future():
                return FutureNode(t.opcode, t.payload)
            case _:
                raise CandidError(f"{t!r} is not a Candid type")


def graph_of(types: tuple[ct.Type, ...]) -> Graph:
    """Turn closed types into a graph; raise `CandidError` for an open or vacuous one."""
    builder = _Builder()
    roots = tuple(builder.ref(t, None) for t in types)
    while builder.todo:
        index, t, env = builder.todo.pop()
        builder.nodes[index] = builder.node(t, env)
    nodes = tuple(node for node in builder.nodes if node is not None)
    for node in nodes:
        if isinstance(node, ServiceNode) and any(
            ref < 0 or not isinstance(nodes[ref], FuncNode) for ref in node.refs
        ):
            raise CandidError("a method of a service has a type that is no func")
    return Graph(nodes, roots)


def reduce_graph(graph: Graph, *, bindings: bool) -> Graph:
    """Merge equal nodes and number them in the order in which a walk from the roots meets them.

    Without `bindings`, names and Python classes are dropped: types of equal structure give equal graphs.
    """
    nodes = graph.nodes if bindings else tuple(_bare(node) for node in graph.nodes)
    classes = _equal_classes(nodes)
    order: dict[int, int] = {}
    members: list[Node] = []
    stack = [ref for ref in reversed(graph.roots) if ref >= 0]
    while stack:
        index = stack.pop()
        if classes[index] in order:
            continue
        order[classes[index]] = len(order)
        members.append(nodes[index])
        stack.extend(ref for ref in reversed(node_refs(nodes[index])) if ref >= 0)

    def renumber(refs: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(ref if ref < 0 else order[classes[ref]] for ref in refs)

    return Graph(tuple(with_refs(n, renumber(node_refs(n))) for n in members), renumber(graph.roots))


def _bare(node: Node) -> Node:
    match node:
        case VecNode():
            return VecNode(node.inner)
        case RecordNode():
            return RecordNode(node.ids, node.refs)
        case VariantNode():
            return VariantNode(node.ids, node.refs)
        case _:
            return node


def _equal_classes(nodes: tuple[Node, ...]) -> list[int]:
    """Give equal numbers to nodes that no walk can tell apart (Moore's partition refinement)."""
    children = [node_refs(node) for node in nodes]
    blank = [
        with_refs(node, tuple(min(ref, 0) for ref in refs))
        for node, refs in zip(nodes, children, strict=True)
    ]
    numbers: dict[object, int] = {}
    classes = [numbers.setdefault(node, len(numbers)) for node in blank]
    count, steps = len(numbers), 0
    while True:
        finer: dict[object, int] = {}
        keys = [
            (own, tuple([ref if ref < 0 else classes[ref] for ref in refs]))
            for own, refs in zip(classes, children, strict=True)
        ]
        classes = [finer.setdefault(key, len(finer)) for key in keys]
        if len(finer) == count:
            return classes
        count = len(finer)
        steps += len(nodes)
        if steps > _WORK_STEPS_MAX:
            raise CandidError("types are linked too deeply to be compared")


def equal_structure(first: Graph, second: Graph) -> bool:
    """Tell whether the roots of two graphs are equal types, whatever names, bindings and numbering they
    have."""
    if len(first.roots) != len(second.roots):
        return False
    todo = list(zip(first.roots, second.roots, strict=True))
    seen = set(todo)
    while todo:
        a, b = todo.pop()
        if a < 0 or b < 0:
            if a != b:
                return False
            continue
        one, other = first.nodes[a], second.nodes[b]
        inner = node_refs(one), node_refs(other)
        if len(inner[0]) != len(inner[1]) or not _equal_heads(one, other):
            return False
        for pair in zip(*inner, strict=True):
            if pair not in seen:
                seen.add(pair)
                todo.append(pair)
        if len(seen) > CANDID_SUBTYPE_PAIRS_COUNT_MAX:
            return False
    return True


def _equal_heads(one: Node, other: Node) -> bool:
    match one, other:
        case RecordNode(), RecordNode():
            return one.ids == other.ids
        case VariantNode(), VariantNode():
            return one.ids == other.ids
        case FuncNode(), FuncNode():
            return (len(one.args), one.modes) == (len(other.args), other.modes)
        case ServiceNode(), ServiceNode():
            return one.names == other.names
        case FutureNode(), FutureNode():
            return one == other
        case _:
            return type(one) is type(other)
