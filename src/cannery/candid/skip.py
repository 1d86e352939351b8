"""Skipping of values that nobody reads, with every check that reading them would make.

Candid specification, sections "Coercion" (surplus fields and arguments) and "Deserialisation of future
types". See `read` for what a skipper is.
"""

from __future__ import annotations

from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    FIXED_FORMATS,
    FuncNode,
    FutureNode,
    Graph,
    Node,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
    describe,
)
from cannery.candid.leb128 import decode_leb128
from cannery.candid.measure import Measures, charge
from cannery.candid.read import (
    PRIMITIVE_READERS,
    Skipper,
    check_depth,
    fixed_skipper,
    no_values,
    read_count,
    skip_future,
    skipper_of,
    value_func,
    value_principal,
)

EAGER_LEVELS = 40
"""Nested types whose closures are made at once; deeper ones are made when a value first needs them."""


class Skips:
    """Skippers for the types of one graph, made when they are first needed."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.measures = Measures(graph)
        self._made: dict[int, Skipper] = {}
        self._level = 0

    def skipper(self, ref: int) -> Skipper:
        """Return the function that checks and skips a value of this type."""
        made = self._made.get(ref)
        if made is None:
            made = self._made[ref] = self._forward(ref)
            if self._level < EAGER_LEVELS:
                self._level += 1
                made = self._made[ref] = self._make(ref)
                self._level -= 1
        return made

    def _forward(self, ref: int) -> Skipper:
        def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
            made = self._made[ref]
            if made is skip:
                made = self._made[ref] = self._make(ref)
            return made(data, position, depth, meter)

        return skip

    def _make(self, ref: int) -> Skipper:
        measure = self.measures.of(ref)
        if measure is None:
            return skipper_of(no_values(describe(self.graph, ref)))
        if ref in FIXED_FORMATS:
            return fixed_skipper(measure.size)
        if ref < 0:
            return skipper_of(PRIMITIVE_READERS[ref])
        return self._make_node(self.graph.nodes[ref])

    def _make_node(self, node: Node) -> Skipper:
        match node:
            case OptNode():
                return self._opt(node)
            case VecNode():
                return self._vec(node)
            case RecordNode():
                return self._record(node)
            case VariantNode():
                return self._variant(node)
            case FuncNode():
                return skipper_of(value_func)
            case ServiceNode():
                return skipper_of(value_principal)
            case FutureNode():
                return skip_future

    def charge_inside(self, ref: int) -> int:
        """Return the units that a value of this type costs behind a byte."""
        measure = self.measures.of(ref)
        return 0 if measure is None else measure.charge_inside

    def element_costs(self, ref: int) -> tuple[int, int]:
        """Return the least bytes and the units that an element of this type costs."""
        measure = self.measures.of(ref)
        return (1, 0) if measure is None else (measure.size, measure.charge_element)

    def _opt(self, node: OptNode) -> Skipper:
        inner, units = self.skipper(node.inner), self.charge_inside(node.inner)

        def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
            present = data[position]
            if present == 0:
                return position + 1
            if present != 1:
                raise CandidError(f"opt at byte {position} is {present}, not 0 or 1")
            check_depth(depth, position)
            if units:
                charge(meter, units)
            return inner(data, position + 1, depth + 1, meter)

        return skip

    def _vec(self, node: VecNode) -> Skipper:
        inner = self.skipper(node.inner)
        size, units = self.element_costs(node.inner)
        fixed = size if node.inner in FIXED_FORMATS else 0

        def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
            check_depth(depth, position)
            count, position = read_count(data, position, size, units, meter)
            if fixed:
                return position + count * fixed
            for _ in range(count):
                position = inner(data, position, depth + 1, meter)
            return position

        return skip

    def _record(self, node: RecordNode) -> Skipper:
        inner = [self.skipper(ref) for ref in node.refs]

        def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
            check_depth(depth, position)
            for skip_field in inner:
                position = skip_field(data, position, depth + 1, meter)
            return position

        return skip

    def _variant(self, node: VariantNode) -> Skipper:
        cases = [(self.skipper(ref), self.charge_inside(ref)) for ref in node.refs]

        def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
            check_depth(depth, position)
            index, position = decode_leb128(data, position)
            if index >= len(cases):
                raise CandidError(f"variant before byte {position} has case {index} of {len(cases)}")
            inner, units = cases[index]
            if units:
                charge(meter, units)
            return inner(data, position, depth + 1, meter)

        return skip
