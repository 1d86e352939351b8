"""Types on the wire: the type table, message headers, and standalone types.

Candid specification, sections "Types" and "Parameters and Results" of "Binary Format", and "Deserialisation
of future types". `encode_type` is canonical: equal structures give equal bytes, whatever names and Python
classes they carry. Values are the business of `codec`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    PRIMITIVE_NAMES,
    PRIMITIVE_OPCODES,
    FuncNode,
    FutureNode,
    Graph,
    Node,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
    graph_of,
    node_refs,
    reduce_graph,
)
from cannery.candid.leb128 import decode_leb128, decode_sleb128, encode_leb128, encode_sleb128
from cannery.limits import (
    CANDID_ARGUMENTS_COUNT_MAX,
    CANDID_CODEC_CACHE_COUNT_MAX,
    CANDID_TABLE_ENTRIES_COUNT_MAX,
    CANDID_TABLE_FIELDS_COUNT_MAX,
)

MAGIC = b"DIDL"
_OPT, _VEC, _RECORD, _VARIANT, _FUNC, _SERVICE, _LAST = range(-18, -25, -1)
_PRIMITIVE_TYPES: dict[int, ct.Type] = {opcode: cls() for cls, opcode in PRIMITIVE_OPCODES.items()}


def encode_header(graph: Graph) -> bytes:
    """Encode a reduced graph as the beginning of a message: magic, type table, argument types."""
    roots = b"".join(map(encode_sleb128, graph.roots))
    return MAGIC + _encode_table(graph.nodes) + encode_leb128(len(graph.roots)) + roots


def decode_header(data: bytes) -> tuple[Graph, int]:
    """Return the types of a message's arguments and the position at which their values begin."""
    if data[:4] != MAGIC:
        raise CandidError("a Candid message begins with DIDL, this one does not")
    try:
        nodes, position = _TableReader(data, 4).table()
        count, position = decode_leb128(data, position)
        if count > CANDID_ARGUMENTS_COUNT_MAX:
            raise CandidError(f"{count} arguments are over the limit of {CANDID_ARGUMENTS_COUNT_MAX}")
        roots = []
        for _ in range(count):
            ref, position = decode_sleb128(data, position)
            roots.append(_checked_ref(ref, len(nodes)))
    except IndexError:
        raise CandidError("the message ends inside its type table") from None
    return Graph(nodes, tuple(roots)), position


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def encode_type(t: ct.Type) -> bytes:
    """Encode one closed type: its type table, then the reference to it.

    The bytes are canonical: types of equal structure, recursive ones included, give the same.
    """
    graph = reduce_graph(graph_of((t,)), bindings=False)
    return _encode_table(graph.nodes) + encode_sleb128(graph.roots[0])


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def decode_type(data: bytes) -> ct.Type:
    """Decode one closed type; its fields have numbers and no names."""
    try:
        nodes, position = _TableReader(data, 0).table()
        ref, position = decode_sleb128(data, position)
    except IndexError:
        raise CandidError("the bytes of a type end early") from None
    if position != len(data):
        raise CandidError(f"{len(data) - position} bytes follow a type")
    return types_of_graph(Graph(nodes, (_checked_ref(ref, len(nodes)),)))[0]


def types_of_graph(graph: Graph) -> tuple[ct.Type, ...]:
    """Turn the roots of a graph into closed types.

    Nodes that are met more than once get a name (`t0`, `t1` and so on, by their index) in a common
    environment, so that the result is never larger than the graph.
    """
    met = [0] * len(graph.nodes)
    for ref in graph.roots + tuple(ref for node in graph.nodes for ref in node_refs(node)):
        if ref >= 0:
            met[ref] += 1
    open_types: dict[int, ct.Type] = {}

    def resolve(ref: int) -> ct.Type:
        return _PRIMITIVE_TYPES[ref] if ref < 0 else open_types[ref]

    shared = set(_named_nodes(graph, met))
    for index in shared:
        open_types[index] = ct.Ref(f"t{index}")
    bodies: dict[int, ct.Type] = {}
    for index in _children_first(graph, shared):
        bodies[index] = _type_of_node(graph.nodes[index], resolve)
        open_types.setdefault(index, bodies[index])
    env = ct.Env({f"t{index}": bodies[index] for index in sorted(shared)})
    return tuple(_close(resolve(ref), env) if ref >= 0 else resolve(ref) for ref in graph.roots)


def _named_nodes(graph: Graph, met: list[int]) -> list[int]:
    """Pick the nodes that need a name: met more than once, or too far from the last name for a nested
    type."""
    picked = [index for index, count in enumerate(met) if count > 1]
    if len(graph.nodes) > 50:
        picked.extend(index for index in range(len(graph.nodes)) if met[index] == 1)
    return picked


def _children_first(graph: Graph, shared: set[int]) -> list[int]:
    """Order nodes so that each comes after the unshared ones inside it."""
    order: list[int] = []
    done: set[int] = set()
    for start in [*(ref for ref in graph.roots if ref >= 0), *sorted(shared)]:
        stack = [(start, False)]
        while stack:
            index, ready = stack.pop()
            if ready:
                order.append(index)
            elif index not in done:
                done.add(index)
                stack.append((index, True))
                inner = (ref for ref in node_refs(graph.nodes[index]) if ref >= 0)
                stack.extend((ref, False) for ref in inner if ref not in shared)
    return order


def _close(t: ct.Type, env: ct.Env) -> ct.Type:
    if isinstance(t, ct.Ref):
        return ct.Rec(t.name, env)
    return ct.map_children(t, lambda inner: _close(inner, env))


def _type_of_node(node: Node, resolve: Callable[[int], ct.Type]) -> ct.Type:
    match node:
        case OptNode():
            return ct.Opt(resolve(node.inner))
        case VecNode():
            return ct.Vec(resolve(node.inner))
        case RecordNode():
            return ct.Record(_fields(node, resolve))
        case VariantNode():
            return ct.Variant(_fields(node, resolve))
        case FuncNode():
            modes = tuple(("query", "oneway", "composite_query")[mode - 1] for mode in node.modes)
            return ct.Func(tuple(map(resolve, node.args)), tuple(map(resolve, node.results)), modes)
        case ServiceNode():
            return ct.Service(tuple(zip(node.names, map(resolve, node.refs), strict=True)))
        case FutureNode():
            return ct.Future(node.opcode, node.payload)


def _fields(node: RecordNode | VariantNode, resolve: Callable[[int], ct.Type]) -> tuple[ct.Field, ...]:
    return tuple(ct.Field(i, None, resolve(ref)) for i, ref in zip(node.ids, node.refs, strict=True))


def _encode_table(nodes: tuple[Node, ...]) -> bytes:
    return encode_leb128(len(nodes)) + b"".join(map(_encode_node, nodes))


def _encode_refs(refs: tuple[int, ...]) -> bytes:
    return encode_leb128(len(refs)) + b"".join(map(encode_sleb128, refs))


def _encode_node(node: Node) -> bytes:
    match node:
        case OptNode():
            return encode_sleb128(_OPT) + encode_sleb128(node.inner)
        case VecNode():
            return encode_sleb128(_VEC) + encode_sleb128(node.inner)
        case RecordNode() | VariantNode():
            out = [encode_sleb128(_RECORD if isinstance(node, RecordNode) else _VARIANT)]
            out.append(encode_leb128(len(node.ids)))
            for field_id, ref in zip(node.ids, node.refs, strict=True):
                out += (encode_leb128(field_id), encode_sleb128(ref))
            return b"".join(out)
        case FuncNode():
            modes = encode_leb128(len(node.modes)) + bytes(node.modes)
            return encode_sleb128(_FUNC) + _encode_refs(node.args) + _encode_refs(node.results) + modes
        case ServiceNode():
            out = [encode_sleb128(_SERVICE), encode_leb128(len(node.names))]
            for name, ref in zip(node.names, node.refs, strict=True):
                raw = name.encode()
                out += (encode_leb128(len(raw)), raw, encode_sleb128(ref))
            return b"".join(out)
        case FutureNode():
            payload = encode_leb128(len(node.payload)) + node.payload
            return encode_sleb128(node.opcode) + payload


def _checked_ref(ref: int, count: int) -> int:
    if ref >= count or (ref < 0 and ref not in PRIMITIVE_NAMES):
        raise CandidError(f"type {ref} is neither primitive nor one of the {count} in the type table")
    return ref


class _TableReader:
    """Reads a type table and checks everything that the specification demands of it."""

    def __init__(self, data: bytes, position: int) -> None:
        self.data = data
        self.position = position
        self.count = 0
        self.fields_left = CANDID_TABLE_FIELDS_COUNT_MAX

    def table(self) -> tuple[tuple[Node, ...], int]:
        """Return the nodes and the position after the table."""
        self.count = self.number()
        if self.count > CANDID_TABLE_ENTRIES_COUNT_MAX:
            raise CandidError(
                f"{self.count} type definitions are over the limit of {CANDID_TABLE_ENTRIES_COUNT_MAX}"
            )
        nodes = tuple([self.node() for _ in range(self.count)])
        for node in nodes:
            if isinstance(node, ServiceNode) and not all(
                ref >= 0 and isinstance(nodes[ref], FuncNode) for ref in node.refs
            ):
                raise CandidError("a method of a service has a type that is no func")
        return nodes, self.position

    def number(self) -> int:
        value, self.position = decode_leb128(self.data, self.position)
        return value

    def ref(self) -> int:
        ref, self.position = decode_sleb128(self.data, self.position)
        return _checked_ref(ref, self.count)

    def length(self) -> int:
        """Read how many fields, methods or types follow, each of at least one byte."""
        count = self.number()
        self.fields_left -= count
        if self.fields_left < 0 or count > len(self.data) - self.position:
            raise CandidError(
                f"{count} fields at byte {self.position} are more than the message or limit holds"
            )
        return count

    def raw(self) -> bytes:
        size = self.number()
        end = self.position + size
        if end > len(self.data):
            raise CandidError(f"{size} bytes at byte {self.position} run past the end")
        raw, self.position = self.data[self.position : end], end
        return raw

    def node(self) -> Node:
        opcode, self.position = decode_sleb128(self.data, self.position)
        if opcode == _OPT:
            return OptNode(self.ref())
        if opcode == _VEC:
            return VecNode(self.ref())
        if opcode in (_RECORD, _VARIANT):
            return self.fields(opcode == _RECORD)
        if opcode == _FUNC:
            return self.func()
        if opcode == _SERVICE:
            return self.service()
        if opcode < _LAST:
            return FutureNode(opcode, self.raw())
        raise CandidError(f"type table entry {opcode} at byte {self.position - 1} is no composite type")

    def fields(self, is_record: bool) -> Node:
        before = -1
        ids, refs = [], []
        for _ in range(self.length()):
            field_id = self.number()
            if not before < field_id <= ct.FIELD_ID_MAX:
                raise CandidError(f"field {field_id} follows {before}: fields are sorted, unique, below 2^32")
            before = field_id
            ids.append(field_id)
            refs.append(self.ref())
        labels = tuple([f"_{i}_" for i in ids])
        if is_record:
            return RecordNode(tuple(ids), tuple(refs), labels, None, ct.is_tuple_ids(ids))
        return VariantNode(tuple(ids), tuple(refs), labels)

    def func(self) -> Node:
        args = tuple([self.ref() for _ in range(self.length())])
        results = tuple([self.ref() for _ in range(self.length())])
        modes = []
        for _ in range(self.length()):
            modes.append(self.data[self.position])
            self.position += 1
        if any(mode not in (1, 2, 3) for mode in modes) or len(set(modes)) != len(modes):
            raise CandidError(f"method modes {modes} at byte {self.position} are unknown or repeated")
        if 2 in modes and results:
            raise CandidError("a oneway method has no results")
        return FuncNode(args, results, tuple(sorted(modes)))

    def service(self) -> Node:
        before = None
        names, refs = [], []
        for _ in range(self.length()):
            raw = self.raw()
            if before is not None and raw <= before:
                raise CandidError(f"method {raw!r} follows {before!r}: methods are sorted and unique")
            before = raw
            try:
                names.append(raw.decode())
            except UnicodeDecodeError:
                raise CandidError(f"method name {raw!r} is not UTF-8") from None
            refs.append(self.ref())
        return ServiceNode(tuple(names), tuple(refs))
