"""Decoding of values written with one type and read at another.

Candid specification, sections "Coercion" and "Deserialisation". Types from the wire are a stranger's, so they
are turned into closures, which cost little to make; the types that this process itself expects get generated
source instead (`decoder_source`). See `read` for what a reader is.

A value that is well formed and does not fit raises `CoercionError`; the nearest option around it reads as
null.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from cannery.candid.binding import mapping_of, record_builder
from cannery.candid.errors import CandidError, CoercionError
from cannery.candid.graph import (
    FIXED_FORMATS,
    INT,
    NAT,
    NAT8,
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
    describe,
)
from cannery.candid.leb128 import decode_leb128
from cannery.candid.measure import charge
from cannery.candid.read import (
    PRIMITIVE_READERS,
    Reader,
    check_depth,
    no_values,
    numbers_reader,
    read_count,
    refusal,
    value_blob,
    value_func,
    value_nat,
    value_null,
    value_principal,
    value_service,
)
from cannery.candid.skip import EAGER_LEVELS, Skips
from cannery.candid.subtype import SubtypeRelation, join_graphs
from cannery.candid.values import Some, Variant
from cannery.limits import CANDID_SUBTYPE_PAIRS_COUNT_MAX


class Coercion:
    """Readers from the types of a wire graph to those of an expected one, made when they are first needed."""

    def __init__(self, wire: Graph, expected: Graph) -> None:
        self.wire = wire
        self.expected = expected
        self.skips = Skips(wire)
        self._made: dict[tuple[int, int], Reader] = {}
        self._level = 0
        joined, self._shift = join_graphs(wire, expected)
        self._relation = SubtypeRelation(joined)

    def reader(self, wire: int, expected: int) -> Reader:
        """Return the function that reads a value of the wire type at the expected type."""
        key = (wire, expected)
        made = self._made.get(key)
        if made is None:
            if len(self._made) > CANDID_SUBTYPE_PAIRS_COUNT_MAX:
                raise CandidError(
                    "the types of the message are too large to be compared with the expected ones"
                )
            made = self._made[key] = self._forward(key)
            if self._level < EAGER_LEVELS:
                self._level += 1
                made = self._made[key] = self._make(wire, expected)
                self._level -= 1
        return made

    def missing(self, expected: int) -> bool:
        """Tell whether a value of this type may be missing: it then reads as None."""
        return expected in (NULL, RESERVED) or (
            expected >= 0 and isinstance(self.expected.nodes[expected], OptNode)
        )

    def _forward(self, key: tuple[int, int]) -> Reader:
        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            made = self._made[key]
            if made is read:
                made = self._made[key] = self._make(*key)
            return made(data, position, depth, meter)

        return read

    def _make(self, wire: int, expected: int) -> Reader:
        if self.skips.measures.of(wire) is None:
            return no_values(describe(self.wire, wire))
        if expected == RESERVED:
            return self.ignore(wire)
        node = None if expected < 0 else self.expected.nodes[expected]
        if isinstance(node, OptNode):
            return self._opt(wire, node)
        if wire == expected and wire < 0:
            return PRIMITIVE_READERS[wire]
        if (wire, expected) == (NAT, INT):
            return value_nat
        if wire >= 0:
            made = self._composite(self.wire.nodes[wire], node, wire, expected)
            if made is not None:
                return made
        return self._refuse(wire, expected)

    def _refuse(self, wire: int, expected: int) -> Reader:
        return refusal(f"{describe(self.wire, wire)} is not a subtype of {describe(self.expected, expected)}")

    def _composite(self, wire: Node, node: Node | None, ref: int, expected: int) -> Reader | None:
        if isinstance(wire, ServiceNode) and expected == PRINCIPAL:
            return value_principal
        if isinstance(wire, VecNode) and isinstance(node, VecNode):
            return self._vec(wire, node)
        if isinstance(wire, RecordNode) and isinstance(node, RecordNode):
            return self._record(wire, node)
        if isinstance(wire, VariantNode) and isinstance(node, VariantNode):
            return self._variant(wire, node)
        if isinstance(wire, (FuncNode, ServiceNode)) and type(wire) is type(node):
            if not self._relation.holds(ref, expected + self._shift):
                return None
            return value_func if isinstance(wire, FuncNode) else value_service
        return None

    def ignore(self, wire: int) -> Reader:
        skip = self.skips.skipper(wire)

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            return None, skip(data, position, depth, meter)

        return read

    def _opt(self, wire: int, expected: OptNode) -> Reader:
        if wire in (NULL, RESERVED):
            return value_null
        node = None if wire < 0 else self.wire.nodes[wire]
        if isinstance(node, FutureNode):
            return self.ignore(wire)
        content = self._content(node.inner if isinstance(node, OptNode) else wire, expected)
        if not isinstance(node, OptNode):
            return content
        units = self.skips.charge_inside(node.inner)

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            present = data[position]
            if present == 0:
                return None, position + 1
            if present != 1:
                raise CandidError(f"opt at byte {position} is {present}, not 0 or 1")
            if units:
                charge(meter, units)
            return content(data, position + 1, depth, meter)

        return read

    def _content(self, wire: int, expected: OptNode) -> Reader:
        """Read the content of an option; what does not fit is skipped, charged, and reads as null."""
        inner, skip = self.reader(wire, expected.inner), self.skips.skipper(wire)
        wrap = self.missing(expected.inner)

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            check_depth(depth, position)
            try:
                value, end = inner(data, position, depth + 1, meter)
            except CoercionError:
                end = skip(data, position, depth + 1, meter)
                charge(meter, end - position)
                return None, end
            return Some(value) if wrap else value, end

        return read

    def _vec(self, wire: VecNode, expected: VecNode) -> Reader:
        if wire.inner == expected.inner:
            if wire.inner == NAT8:
                return value_blob
            if wire.inner in FIXED_FORMATS:
                return numbers_reader(FIXED_FORMATS[wire.inner])
        inner = self.reader(wire.inner, expected.inner)
        size, units = self.skips.element_costs(wire.inner)
        finish: Callable[[list[object]], object] | None = None
        if expected.bound is dict:
            finish = mapping_of  # type: ignore[assignment]  # elements of a bound vector are pairs
        elif expected.inner == NAT8:
            finish = _empty_blob

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            check_depth(depth, position)
            count, position = read_count(data, position, size, units, meter)
            out = []
            for _ in range(count):
                value, position = inner(data, position, depth + 1, meter)
                out.append(value)
            return out if finish is None else finish(out), position

        return read

    def _record(self, wire: RecordNode, expected: RecordNode) -> Reader:
        places = {field_id: place for place, field_id in enumerate(expected.ids)}
        steps: list[tuple[Reader, int]] = []
        for field_id, ref in zip(wire.ids, wire.refs, strict=True):
            place = places.pop(field_id, None)
            if place is None:
                steps.append((self.ignore(ref), -1))
            else:
                steps.append((self.reader(ref, expected.refs[place]), place))
        for place in places.values():
            if not self.missing(expected.refs[place]):
                kind = describe(self.expected, expected.refs[place])
                return refusal(f"field {expected.labels[place]} is missing, and {kind} is not optional")
        build, count = _record_finish(expected), len(expected.ids)
        units = len(places) if len(places) > 64 else 0

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            check_depth(depth, position)
            if units:
                charge(meter, units)
            values: list[object] = [None] * count
            for step, place in steps:
                value, position = step(data, position, depth + 1, meter)
                if place >= 0:
                    values[place] = value
            return build(values), position

        return read

    def _variant(self, wire: VariantNode, expected: VariantNode) -> Reader:
        known = {
            i: (label, ref)
            for i, label, ref in zip(expected.ids, expected.labels, expected.refs, strict=True)
        }
        cases: list[tuple[Reader, str, int]] = []
        for field_id, ref in zip(wire.ids, wire.refs, strict=True):
            units = self.skips.charge_inside(ref)
            if field_id in known:
                label, target = known[field_id]
                cases.append((self.reader(ref, target), label, units))
            elif self.skips.measures.of(ref) is None:
                cases.append((no_values(describe(self.wire, ref)), "", units))
            else:
                cases.append((refusal(f"variant case number {field_id} is not known"), "", units))
        build = variant_finish(expected.bound)

        def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
            check_depth(depth, position)
            index, position = decode_leb128(data, position)
            if index >= len(cases):
                raise CandidError(f"variant before byte {position} has case {index} of {len(cases)}")
            inner, label, units = cases[index]
            if units:
                charge(meter, units)
            value, position = inner(data, position, depth + 1, meter)
            return build(label, value), position

        return read


def _empty_blob(values: list[object]) -> bytes:
    assert not values  # elements of another type than nat8 do not coerce, so there are none
    return b""


def _record_finish(node: RecordNode) -> Callable[[Sequence[object]], object]:
    if node.bound is not None:
        return record_builder(node.bound, node.labels)
    if node.is_tuple:
        return tuple
    labels = node.labels

    def build(values: Sequence[object]) -> object:
        return dict(zip(labels, values, strict=True))

    return build


def variant_finish(bound: type | None) -> Callable[[str, object], object]:
    """Return the function that builds a variant value out of its tag and value."""
    return Variant if bound is None else bound
