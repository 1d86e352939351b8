"""Generation of encoders for values.

Candid specification, section "Memory". An encoder appends pieces of bytes to a list and joins them once. It
tests what the writing itself would not notice (a bool where a number stands, a `str` where a list stands);
any failure is explained afterwards by `check`.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct, pack
from struct import error as struct_error

from cannery.candid.binding import binding_of
from cannery.candid.check import explain_values
from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    BOOL,
    EMPTY,
    FIXED_FORMATS,
    FLOAT32,
    FLOAT64,
    INT,
    NAT,
    NAT8,
    NULL,
    PRINCIPAL,
    RESERVED,
    TEXT,
    FuncNode,
    FutureNode,
    Graph,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
)
from cannery.candid.leb128 import encode_leb128, encode_sleb128
from cannery.candid.source import (
    CASES_INLINE_COUNT_MAX,
    INLINE_LEVELS_MAX,
    Source,
    count_uses,
    fixed_runs,
    is_nullable,
)
from cannery.candid.values import FuncRef, Packed, ServiceRef, Some, Variant
from cannery.limits import CANDID_VALUE_DEPTH_LEVELS_MAX
from cannery.protocol.principal import PRINCIPAL_SIZE_BYTES_MAX, Principal

_FAILURES = (
    TypeError,
    AttributeError,
    LookupError,
    ValueError,
    OverflowError,
    RecursionError,
    struct_error,
    CandidError,
)
_ONE_BYTE = tuple(bytes((i,)) for i in range(128))
_SIGNED_BYTE = {i: bytes((i & 127,)) for i in range(-64, 64)}
_PRINCIPAL_HEAD = tuple(bytes((1, i)) for i in range(PRINCIPAL_SIZE_BYTES_MAX + 1))


def _refuse() -> CandidError:
    return CandidError("the value does not have the Python form of its type")


def _as_int(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    raise _refuse()


def _as_float(value: object) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    raise _refuse()


def _as_list(value: object) -> list[object] | tuple[object, ...]:
    if isinstance(value, (list, tuple)):
        return value
    raise _refuse()


def _as_blob(value: object) -> bytes:
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise _refuse()


def _encode_size(size: int) -> bytes:
    return _ONE_BYTE[size] if size < 128 else encode_leb128(size)


def _encode_numbers(format: str, values: list[object] | tuple[object, ...]) -> bytes:
    convert = _as_float if format in "fd" else _as_int
    exact = float if format in "fd" else int
    if any(type(value) is not exact for value in values):
        values = [convert(value) for value in values]
    return encode_leb128(len(values)) + pack(f"<{len(values)}{format}", *values)


def _encode_principal(value: object) -> bytes:
    if not isinstance(value, Principal):
        raise _refuse()
    return _PRINCIPAL_HEAD[len(value.raw)] + value.raw


def _encode_service(value: object) -> bytes:
    return _encode_principal(value.principal if isinstance(value, ServiceRef) else value)


def _encode_func(value: object) -> bytes:
    if not isinstance(value, FuncRef):
        raise _refuse()
    name = value.method.encode()
    return b"\1" + _encode_principal(value.principal) + _encode_size(len(name)) + name


def _check_keys(value: object, labels: frozenset[str], optional: frozenset[str]) -> None:
    """Refuse a dict that lacks a field or has one that the record does not know."""
    if not isinstance(value, dict) or not labels - optional <= value.keys() <= labels:
        raise _refuse()


_RUNTIME: dict[str, object] = {
    "as_blob": _as_blob,
    "as_float": _as_float,
    "as_int": _as_int,
    "as_list": _as_list,
    "BYTE": _ONE_BYTE,
    "check_keys": _check_keys,
    "encode_func": _encode_func,
    "encode_nat": encode_leb128,
    "encode_int": encode_sleb128,
    "encode_numbers": _encode_numbers,
    "encode_service": _encode_service,
    "encode_size": _encode_size,
    "explain_values": explain_values,
    "FAILURES": _FAILURES,
    "HEAD": _PRINCIPAL_HEAD,
    "Packed": Packed,
    "Principal": Principal,
    "refuse": _refuse,
    "SIGNED": _SIGNED_BYTE,
    "Some": Some,
    "Variant": Variant,
    "CandidError": CandidError,
}


def compile_encoder(graph: Graph, header: bytes, *, single: bool) -> Callable[[object], bytes]:
    """Return a function that encodes the values of all roots behind `header`.

    It takes a sequence of values, or the value itself where `single` says that there is one root.
    """
    return _Generator(graph).module(header, single)


class _Generator:
    """Writes the source of one encoder."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.uses = count_uses(graph)
        self.out = Source()
        self.out.constants.update(_RUNTIME)
        self.functions: dict[int, str] = {}
        self.todo: list[int] = []

    def module(self, header: bytes, single: bool) -> Callable[[object], bytes]:
        out = self.out
        out.constants["HEADER"], out.constants["GRAPH"] = header, self.graph
        with out.block("def encode(given):"):
            out.add("out = [HEADER]")
            out.add("add = out.append")
            out.add("depth = 0")
            with out.block("try:"):
                values = ["given"] if single else [out.name() for _ in self.graph.roots]
                if not single:
                    with out.block("if given.__class__ is not tuple and given.__class__ is not list:"):
                        out.add("given = as_list(given)")
                    out.add(f"[{', '.join(values)}] = given")
                for value, ref in zip(values, self.graph.roots, strict=True):
                    self.write(ref, value, 0)
                out.add("return b''.join(out)")
            with out.block("except FAILURES as error:"):
                out.add(
                    f"reason = explain_values(GRAPH, given, single={single}) or f'cannot encode: {{error}}'"
                )
                out.add("raise CandidError(reason) from None")
        while self.todo:
            self.function(self.todo.pop())
        return out.compile("encode")  # type: ignore[return-value]  # compiled source has no type of its own

    def function(self, ref: int) -> None:
        out = self.out
        value = out.name()
        with out.block(f"def {self.functions[ref]}({value}, add, depth):"):
            with out.block(f"if depth > {CANDID_VALUE_DEPTH_LEVELS_MAX}:"):
                out.add("raise refuse()")
            self.node(ref, value, 0)

    def write(self, ref: int, value: str, level: int) -> None:
        """Write what encodes the value of the expression `value`."""
        if ref < 0:
            self.primitive(ref, value)
        elif self.uses[ref] == 1 and level < INLINE_LEVELS_MAX:
            self.node(ref, value, level)
        else:
            if ref not in self.functions:
                self.functions[ref] = self.out.name("write_")
                self.todo.append(ref)
            self.out.add(f"{self.functions[ref]}({value}, add, depth + {level})")

    def held(self, value: str) -> str:
        """Return a variable that holds the value of an expression."""
        if value.isidentifier():
            return value
        name = self.out.name()
        self.out.add(f"{name} = {value}")
        return name

    def demand(self, condition: str) -> None:
        with self.out.block(f"if not ({condition}):"):
            self.out.add("raise refuse()")

    def primitive(self, ref: int, value: str) -> None:
        out = self.out
        if ref in FIXED_FORMATS:
            self.fixed([ref], [value])
        elif ref == RESERVED:
            out.add("pass")
        elif ref == EMPTY:
            out.add("raise refuse()")
        elif ref == NULL:
            self.demand(f"{value} is None")
        elif ref == BOOL:
            value = self.held(value)
            with out.block(f"if {value} is True:"):
                out.add("add(b'\\1')")
            with out.block(f"elif {value} is False:"):
                out.add("add(b'\\0')")
            with out.block("else:"):
                out.add("raise refuse()")
        elif ref in (NAT, INT):
            self.number(value, ref)
        elif ref == TEXT:
            name = self.out.name()
            out.add(f"{name} = {value}.encode()")
            self.sized(name)
        elif ref == PRINCIPAL:
            self.principal(value)

    def number(self, value: str, ref: int) -> None:
        out = self.out
        value = self.held(value)
        with out.block(f"if {value}.__class__ is not int:"):
            out.add(f"{value} = as_int({value})")
        with out.block(f"if {'0 <= ' if ref == NAT else '-64 <= '}{value} < {128 if ref == NAT else 64}:"):
            out.add(f"add({'BYTE' if ref == NAT else 'SIGNED'}[{value}])")
        with out.block("else:"):
            out.add(f"add({'encode_nat' if ref == NAT else 'encode_int'}({value}))")

    def sized(self, name: str) -> None:
        """Write what encodes the bytes in a variable behind their length."""
        out = self.out
        size = out.name()
        out.add(f"{size} = len({name})")
        out.add(f"add(BYTE[{size}] if {size} < 128 else encode_nat({size}))")
        out.add(f"add({name})")

    def principal(self, value: str) -> None:
        out = self.out
        value = self.held(value)
        self.demand(f"{value}.__class__ is Principal")
        raw = out.name()
        out.add(f"{raw} = {value}.raw")
        out.add(f"add(HEAD[len({raw})])")
        out.add(f"add({raw})")

    def fixed(self, refs: list[int], values: list[str]) -> None:
        """Write what encodes neighbours of fixed size at once."""
        out = self.out
        names = [self.held(value) for value in values]
        for ref, name in zip(refs, names, strict=True):
            kind = "float" if ref in (FLOAT32, FLOAT64) else "int"
            with out.block(f"if {name}.__class__ is not {kind}:"):
                out.add(f"{name} = as_{kind}({name})")
        layout = Struct("<" + "".join(FIXED_FORMATS[ref] for ref in refs))
        out.add(f"add({out.constant(layout.pack, 'pack_')}({', '.join(names)}))")

    def node(self, ref: int, value: str, level: int) -> None:
        match self.graph.nodes[ref]:
            case OptNode() as node:
                self.opt(node, value, level)
            case VecNode() as node:
                self.vec(node, value, level)
            case RecordNode() as node:
                self.record(node, value, level)
            case VariantNode() as node:
                self.variant(node, value, level)
            case FuncNode():
                self.out.add(f"add(encode_func({value}))")
            case ServiceNode():
                self.out.add(f"add(encode_service({value}))")
            case FutureNode():
                self.out.add("raise refuse()")

    def opt(self, node: OptNode, value: str, level: int) -> None:
        out = self.out
        value = self.held(value)
        with out.block(f"if {value} is None:"):
            out.add("add(b'\\0')")
        with out.block("else:"):
            out.add("add(b'\\1')")
            if is_nullable(self.graph, node.inner):
                self.demand(f"{value}.__class__ is Some")
                value = f"{value}.value"
            self.write(node.inner, value, level + 1)

    def vec(self, node: VecNode, value: str, level: int) -> None:
        out = self.out
        name, element = out.name(), out.name()
        out.add(f"{name} = {value}")
        if node.inner == NAT8:
            with out.block(f"if {name}.__class__ is not bytes:"):
                out.add(f"{name} = as_blob({name})")
            self.sized(name)
            return
        if node.inner in FIXED_FORMATS:
            with out.block(f"if {name}.__class__ is not list:"):
                out.add(f"{name} = as_list({name})")
            out.add(f"add(encode_numbers({FIXED_FORMATS[node.inner]!r}, {name}))")
            return
        if node.bound is dict:
            self.demand(f"{name}.__class__ is dict")
            self.elements(node, f"{name}.items()", name, element, level)
            return
        with out.block(f"if {name}.__class__ is Packed:"):
            out.add(f"add(encode_size({name}.count))")
            out.add(f"add({name}.data)")
        with out.block("else:"):
            with out.block(f"if {name}.__class__ is not list:"):
                out.add(f"{name} = as_list({name})")
            self.elements(node, name, name, element, level)

    def elements(self, node: VecNode, source: str, name: str, element: str, level: int) -> None:
        """Write what encodes the elements of a vector behind their count."""
        out = self.out
        out.add(f"add(encode_size(len({name})))")
        with out.block(f"for {element} in {source}:"):
            self.write(node.inner, element, level + 1)
            out.add("pass")

    def record(self, node: RecordNode, value: str, level: int) -> None:
        name = self.held(value)
        fields = self.fields(node, name)
        for run in fixed_runs(node):
            if node.refs[run[0]] in FIXED_FORMATS:
                self.fixed([node.refs[place] for place in run], [fields[place] for place in run])
            else:
                self.write(node.refs[run[0]], fields[run[0]], level + 1)

    def fields(self, node: RecordNode, name: str) -> list[str]:
        """Write the test of a record's Python form, and return the expressions of its fields."""
        out = self.out
        if node.bound is not None:
            self.demand(f"{name}.__class__ is {out.constant(node.bound, 'class_')}")
            binding = binding_of(node.bound)
            return [f"{name}.{binding.attribute(label)}" for label in node.labels]
        if node.is_tuple:
            names = [out.name() for _ in node.ids]
            with out.block(f"if {name}.__class__ is not tuple:"):
                out.add(f"{name} = as_list({name})")
            out.add(f"{''.join(n + ', ' for n in names)} = {name}")
            return names
        labels = frozenset(node.labels)
        pairs = zip(node.labels, node.refs, strict=True)
        optional = frozenset(label for label, ref in pairs if is_nullable(self.graph, ref))
        all_labels = out.constant(labels, "labels_")
        with out.block(f"if {name}.__class__ is not dict or {name}.keys() != {all_labels}:"):
            out.add(f"check_keys({name}, {all_labels}, {out.constant(optional, 'optional_')})")
        return [
            f"{name}.get({label!r})" if label in optional else f"{name}[{label!r}]" for label in node.labels
        ]

    def variant(self, node: VariantNode, value: str, level: int) -> None:
        out = self.out
        name, index, inner = self.held(value), out.name(), out.name()
        if node.bound is not None:
            self.demand(f"{name}.__class__ is {out.constant(node.bound, 'class_')}")
        else:
            self.demand(f"isinstance({name}, Variant)")
        places = out.constant({label: place for place, label in enumerate(node.labels)}, "places_")
        out.add(f"{index} = {places}[{name}.tag]")
        out.add(f"add(encode_size({index}))")
        if all(ref == NULL for ref in node.refs):
            self.demand(f"{name}.value is None")
            return
        out.add(f"{inner} = {name}.value")
        if len(node.ids) <= CASES_INLINE_COUNT_MAX:
            for place, ref in enumerate(node.refs):
                with out.block(f"{'el' if place else ''}if {index} == {place}:"):
                    self.write(ref, inner, level + 1)
                    out.add("pass")
        else:
            names = [self.case_function(ref) for ref in node.refs]
            out.add(f"({', '.join(names)},)[{index}]({inner}, add, depth + {level})")

    def case_function(self, ref: int) -> str:
        """Write the function of one case of a large variant, apart, and return its name."""
        outer, self.out.lines = self.out.lines, []
        indent, self.out.indent = self.out.indent, 0
        name, value = self.out.name("case_"), self.out.name()
        with self.out.block(f"def {name}({value}, add, depth):"):
            self.write(ref, value, 1)
            self.out.add("pass")
        self.out.lines = [*self.out.lines, *outer]
        self.out.indent = indent
        return name
