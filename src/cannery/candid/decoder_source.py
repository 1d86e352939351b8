"""Generation of decoders for values of those types that this process expects.

Candid specification, section "Memory". The generated functions do what `coerce` does where the wire type
equals the expected one, with the same checks and the same charges; tests hold the two against each other.
Reading of other wire types is the business of `coerce`.

A slice that runs past the end is short and moves the position past it: the next read, or the test at the very
end of the message, refuses. So text, blobs and principals are not tested one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct

from cannery.candid.binding import binding_of, mapping_of
from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    BOOL,
    EMPTY,
    FIXED_FORMATS,
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
    describe,
)
from cannery.candid.leb128 import decode_leb128, decode_sleb128
from cannery.candid.measure import Measures, charge, new_meter
from cannery.candid.read import (
    ENDS_EARLY,
    principal_of,
    read_func,
    read_numbers,
    read_principal,
    refuse_depth,
    refuse_ending,
)
from cannery.candid.source import (
    CASES_INLINE_COUNT_MAX,
    INLINE_LEVELS_MAX,
    Source,
    count_uses,
    fixed_runs,
    is_nullable,
)
from cannery.candid.values import ServiceRef, Some, Variant
from cannery.limits import CANDID_VALUE_DEPTH_LEVELS_MAX


def refuse_byte(what: str, byte: int, position: int) -> CandidError:
    """Make the error for a byte that its type does not allow."""
    return CandidError(f"{what} before byte {position} is {byte}, which it cannot be")


def refuse_count(count: int, position: int) -> CandidError:
    """Make the error for more elements than there are bytes."""
    return CandidError(f"{count} elements at byte {position} run past the end")


def refuse_type(kind: str, position: int) -> CandidError:
    """Make the error for a type without values."""
    return CandidError(f"value at byte {position} has a type without values ({kind})")


def refuse_end(position: int, size: int) -> CandidError:
    """Make the error for a message that does not end where its values do."""
    if position > size:
        return CandidError("the message ends inside a value")
    return CandidError(f"{size - position} bytes follow the last value")


_RUNTIME: dict[str, object] = {
    "charge": charge,
    "ENDS_EARLY": ENDS_EARLY,
    "leb": decode_leb128,
    "mapping_of": mapping_of,
    "new_meter": new_meter,
    "principal_of": principal_of,
    "read_func": read_func,
    "read_numbers": read_numbers,
    "read_principal": read_principal,
    "refuse_byte": refuse_byte,
    "refuse_count": refuse_count,
    "refuse_depth": refuse_depth,
    "refuse_end": refuse_end,
    "refuse_ending": refuse_ending,
    "refuse_type": refuse_type,
    "ServiceRef": ServiceRef,
    "sleb": decode_sleb128,
    "Some": Some,
}


def compile_decoder(graph: Graph, *, single: bool) -> Callable[[bytes, int], object]:
    """Return a function that reads the values of all roots from a position to the end of the bytes.

    It returns a tuple, or the value itself where `single` says that there is one root.
    """
    return _Generator(graph).module(single)


class _Generator:
    """Writes the source of one decoder."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.measures = Measures(graph)
        self.uses = count_uses(graph)
        self.out = Source()
        self.out.constants.update(_RUNTIME)
        self.functions: dict[int, str] = {}
        self.todo: list[int] = []

    def module(self, single: bool) -> Callable[..., object]:
        out = self.out
        with out.block("def decode(data, pos):"):
            out.add("size = len(data)")
            out.add("meter = None")
            metered = len(out.lines) - 1
            out.add("depth = 0")
            values = [out.name() for _ in self.graph.roots]
            with out.block("try:"):
                for value, ref in zip(values, self.graph.roots, strict=True):
                    self.inside_charge(ref)
                    self.read(ref, value, 0)
                out.add("pass")
            with out.block("except ENDS_EARLY as error:"):
                out.add("raise refuse_ending(error) from None")
            with out.block("if pos != size:"):
                out.add("raise refuse_end(pos, size)")
            out.add(f"return {values[0]}" if single else f"return ({''.join(v + ', ' for v in values)})")
        while self.todo:
            self.function(self.todo.pop())
        if any("charge(" in line for line in out.lines):
            out.lines[metered] = out.lines[metered].replace("None", "new_meter(size)")
        return out.compile("decode")

    def function(self, ref: int) -> None:
        """Write the function of a node that is met more than once, or that stands too deep inside others."""
        out = self.out
        with out.block(f"def {self.functions[ref]}(data, pos, depth, meter):"):
            with out.block(f"if depth > {CANDID_VALUE_DEPTH_LEVELS_MAX}:"):
                out.add("raise refuse_depth(pos)")
            out.add("size = len(data)")
            value = out.name()
            self.node(ref, value, 0)
            out.add(f"return {value}, pos")

    def read(self, ref: int, value: str, level: int) -> None:
        """Write what reads a value of the type into the variable `value`; `level` counts nodes in this
        function."""
        if self.measures.of(ref) is None:
            self.out.add(f"raise refuse_type({describe(self.graph, ref)!r}, pos)")
        elif ref < 0:
            self.primitive(ref, value)
        elif self.uses[ref] == 1 and level < INLINE_LEVELS_MAX:
            self.node(ref, value, level)
        else:
            if ref not in self.functions:
                self.functions[ref] = self.out.name("read_")
                self.todo.append(ref)
            self.out.add(f"{value}, pos = {self.functions[ref]}(data, pos, depth + {level}, meter)")

    def primitive(self, ref: int, value: str) -> None:
        out = self.out
        assert ref != EMPTY
        if ref in FIXED_FORMATS:
            self.fixed([ref], [value])
        elif ref in (NULL, RESERVED):
            out.add(f"{value} = None")
        elif ref == BOOL:
            out.add(f"{value} = data[pos]")
            out.add("pos += 1")
            with out.block(f"if {value} > 1:"):
                out.add(f"raise refuse_byte('bool', {value}, pos)")
            out.add(f"{value} = {value} == 1")
        elif ref == NAT:
            self.number(value)
        elif ref == INT:
            self.number(value, "sleb")
            with out.block(f"elif {value} > 63:"):
                out.add(f"{value} -= 128")
        elif ref == TEXT:
            self.slice(value, "data[pos:end].decode()")
        elif ref == PRINCIPAL:
            self.principal(value)

    def number(self, value: str, function: str = "leb") -> None:
        out = self.out
        out.add(f"{value} = data[pos]")
        out.add("pos += 1")
        with out.block(f"if {value} > 127:"):
            out.add(f"{value}, pos = {function}(data, pos - 1)")

    def slice(self, value: str, expression: str) -> None:
        """Write what reads a length and makes a value of as many bytes."""
        out = self.out
        self.number("end")
        out.add("end += pos")
        out.add(f"{value} = {expression}")
        out.add("pos = end")

    def principal(self, value: str) -> None:
        out = self.out
        out.add("end = data[pos + 1]")
        with out.block("if data[pos] != 1 or end > 29:"):
            out.add(f"{value}, pos = read_principal(data, pos)")
        with out.block("else:"):
            out.add("pos += 2")
            out.add("end += pos")
            out.add(f"{value} = principal_of(data[pos:end])")
            out.add("pos = end")

    def fixed(self, refs: list[int], values: list[str]) -> None:
        """Write what reads neighbours of fixed size at once."""
        out = self.out
        if refs == [NAT8]:
            out.add(f"{values[0]} = data[pos]")
            out.add("pos += 1")
            return
        layout = Struct("<" + "".join(FIXED_FORMATS[ref] for ref in refs))
        unpack = out.constant(layout.unpack_from, "unpack_")
        out.add(f"{''.join(v + ', ' for v in values)} = {unpack}(data, pos)")
        out.add(f"pos += {layout.size}")

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
                self.out.add(f"{value}, pos = read_func(data, pos)")
            case ServiceNode():
                self.out.add(f"{value}, pos = read_principal(data, pos)")
                self.out.add(f"{value} = ServiceRef({value})")
            case FutureNode():
                self.out.add("raise refuse_type('future', pos)")

    def inside_charge(self, ref: int) -> None:
        measure = self.measures.of(ref)
        if measure is not None and measure.charge_inside:
            self.out.add(f"charge(meter, {measure.charge_inside})")

    def opt(self, node: OptNode, value: str, level: int) -> None:
        out = self.out
        out.add(f"{value} = data[pos]")
        out.add("pos += 1")
        with out.block(f"if {value} == 0:"):
            out.add(f"{value} = None")
        with out.block(f"elif {value} == 1:"):
            self.inside_charge(node.inner)
            self.read(node.inner, value, level + 1)
            if is_nullable(self.graph, node.inner):
                out.add(f"{value} = Some({value})")
        with out.block("else:"):
            out.add(f"raise refuse_byte('opt', {value}, pos)")

    def vec(self, node: VecNode, value: str, level: int) -> None:
        out = self.out
        if node.inner == NAT8:
            self.slice(value, "data[pos:end]")
            return
        measure = self.measures.of(node.inner)
        size, units = (1, 0) if measure is None else (measure.size, measure.charge_element)
        count, element = out.name(), out.name()
        self.number(count)
        if size:
            with out.block(f"if {count} * {size} > size - pos:"):
                out.add(f"raise refuse_count({count}, pos)")
        if units:
            out.add(f"charge(meter, {count} * {units})")
        if node.inner in FIXED_FORMATS:
            out.add(f"{value} = read_numbers({FIXED_FORMATS[node.inner]!r}, data, pos, {count})")
            out.add(f"pos += {count} * {size}")
            return
        out.add(f"{value} = []")
        with out.block(f"for _ in range({count}):"):
            self.read(node.inner, element, level + 1)
            if measure is not None:
                out.add(f"{value}.append({element})")
        if node.bound is dict:
            out.add(f"{value} = mapping_of({value})")

    def record(self, node: RecordNode, value: str, level: int) -> None:
        out = self.out
        fields = [out.name() for _ in node.ids]
        for run in fixed_runs(node):
            if node.refs[run[0]] in FIXED_FORMATS:
                self.fixed([node.refs[place] for place in run], [fields[place] for place in run])
            else:
                self.read(node.refs[run[0]], fields[run[0]], level + 1)
        if node.bound is not None:
            binding = binding_of(node.bound)
            out.add(f"{value} = {out.constant(binding.twin, 'twin_')}()")
            for label, field in zip(node.labels, fields, strict=True):
                out.add(f"{value}.{binding.attribute(label)} = {field}")
            out.add(f"{value}.__class__ = {out.constant(node.bound, 'class_')}")
        elif node.is_tuple:
            out.add(f"{value} = ({''.join(field + ', ' for field in fields)})")
        else:
            items = ", ".join(f"{label!r}: {field}" for label, field in zip(node.labels, fields, strict=True))
            out.add(f"{value} = {{{items}}}")

    def variant(self, node: VariantNode, value: str, level: int) -> None:
        out = self.out
        index = out.name()
        make = node.bound or Variant
        self.number(index)
        with out.block(f"if {index} >= {len(node.ids)}:"):
            out.add(f"raise refuse_byte('variant', {index}, pos)")
        if all(ref == NULL for ref in node.refs):
            cases = out.constant(tuple(make(label, None) for label in node.labels), "cases_")
            out.add(f"{value} = {cases}[{index}]")
        elif len(node.ids) <= CASES_INLINE_COUNT_MAX:
            for place in range(len(node.ids)):
                with out.block(f"{'el' if place else ''}if {index} == {place}:"):
                    self.case(node, place, value, level)
        else:
            names = [self.case_function(node, place) for place in range(len(node.ids))]
            out.add(f"{value}, pos = ({', '.join(names)})[{index}](data, pos, depth + {level}, meter)")

    def case(self, node: VariantNode, place: int, value: str, level: int) -> None:
        """Write what reads one case into `value`; a case without value is one shared object."""
        out = self.out
        make = node.bound or Variant
        label = node.labels[place]
        if node.refs[place] == NULL:
            out.add(f"{value} = {out.constant(make(label, None), 'case_')}")
            return
        inner = out.name()
        self.inside_charge(node.refs[place])
        self.read(node.refs[place], inner, level + 1)
        out.add(f"{value} = {out.constant(binding_of(make).twin, 'twin_')}()")
        out.add(f"{value}.tag = {label!r}")
        out.add(f"{value}.value = {inner}")
        out.add(f"{value}.__class__ = {out.constant(make, 'class_')}")

    def case_function(self, node: VariantNode, place: int) -> str:
        """Write the function of one case of a large variant, apart, and return its name."""
        outer, self.out.lines = self.out.lines, []
        indent, self.out.indent = self.out.indent, 0
        name, value = self.out.name("case_"), self.out.name()
        with self.out.block(f"def {name}(data, pos, depth, meter):"):
            self.out.add("size = len(data)")
            self.case(node, place, value, 0)
            self.out.add(f"return {value}, pos")
        self.out.lines = [*self.out.lines, *outer]
        self.out.indent = indent
        return name
