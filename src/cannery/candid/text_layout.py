"""Printing of values in the style of `didc` and `icp`.

Candid specification, section "Values". Numbers and nulls carry their types, digits stand in groups of three,
a blob of plain characters shows them, and a vector of more than ten elements stays on one line. The values
have been checked to be of their types.
"""

from __future__ import annotations

import struct
from decimal import Decimal

from cannery.candid import types as ct
from cannery.candid.binding import binding_of
from cannery.candid.errors import CandidError
from cannery.candid.keywords import format_name, format_text
from cannery.candid.layout import Doc, enclose, join, render
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.limits import CANDID_TEXT_DEPTH_LEVELS_MAX

_ELEMENTS_LAID_OUT_MAX = 10
_PLAIN_BYTES = frozenset(range(0x20, 0x7F)) - frozenset(b"\"'`\\")
_SHOWN_BYTES = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r")
_WIDE = 10**9


def layout_value(t: ct.Type, value: object) -> Doc:
    """Lay out one value of a closed type."""
    return _Layouter(None).value(t, value, 0)


class _Layouter:
    """Lays out values whose types refer to the definitions of one environment."""

    def __init__(self, env: ct.Env | None) -> None:
        self.env = env

    def value(self, t: ct.Type, value: object, depth: int) -> Doc:
        """Lay out a value."""
        if depth > CANDID_TEXT_DEPTH_LEVELS_MAX:
            raise CandidError(
                f"values nested over {CANDID_TEXT_DEPTH_LEVELS_MAX} levels deep are not printed"
            )
        if isinstance(t, ct.Rec):
            return _Layouter(t.env).value(t.env[t.name], value, depth)
        t = self.resolved(t)
        match t:
            case ct.Opt():
                return self.opt(t, value, depth + 1)
            case ct.Vec():
                return self.vec(t, value, depth + 1)
            case ct.Record():
                return self.record(t, value, depth + 1)
            case ct.Variant():
                return self.variant(t, value, depth + 1)
            case ct.Func():
                assert isinstance(value, FuncRef)
                return f'func "{value.principal}".{format_name(value.method)}'
            case ct.Service():
                return f'service "{value.principal if isinstance(value, ServiceRef) else value}"'
            case _:
                return _format_primitive(t, value)

    def resolved(self, t: ct.Type) -> ct.Type:
        while isinstance(t, ct.Ref) and self.env is not None:
            t = self.env[t.name]
        return t

    def opt(self, t: ct.Opt, value: object, depth: int) -> Doc:
        if value is None:
            return "null"
        inner = self.value(t.inner, value.value if isinstance(value, Some) else value, depth)
        is_annotated = isinstance(inner, str) and " : " in inner and inner[0] != '"'
        return join("opt ", enclose("(", [inner], "", ")") if is_annotated else inner)

    def vec(self, t: ct.Vec, value: object, depth: int) -> Doc:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return _format_blob(bytes(value))
        values = list(value.items()) if isinstance(value, dict) else value
        assert isinstance(values, (list, tuple))
        items = [self.value(t.inner, item, depth) for item in values]
        if len(items) > _ELEMENTS_LAID_OUT_MAX:
            return "vec {" + "".join(f" {render(item, _WIDE)};" for item in items) + "}"
        return join("vec ", enclose("{", items, ";", "}", space=" "))

    def record(self, t: ct.Record, value: object, depth: int) -> Doc:
        items: list[Doc] = []
        for f, inner in zip(t.fields, _field_values(t, value), strict=True):
            doc = self.value(f.type, inner, depth)
            items.append(doc if t.is_tuple else join(_label(f), " = ", doc))
        return join("record ", enclose("{", items, ";", "}", space=" "))

    def variant(self, t: ct.Variant, value: object, depth: int) -> Doc:
        assert isinstance(value, Variant)
        f = next(f for f in t.fields if f.label == value.tag)
        doc: Doc = _label(f)
        if not isinstance(self.resolved(f.type), ct.Null):
            doc = join(doc, " = ", self.value(f.type, value.value, depth))
        return join("variant ", enclose("{", [doc], "", "}", space=" "))


def _field_values(t: ct.Record, value: object) -> list[object]:
    if t.bound is not None:
        binding = binding_of(t.bound)
        return [getattr(value, binding.attribute(f.label)) for f in t.fields]
    if isinstance(value, dict):
        return [value.get(f.label) for f in t.fields]
    assert isinstance(value, (tuple, list))
    return list(value)


def _label(f: ct.Field) -> str:
    return f"{f.id:_}" if f.name is None else format_name(f.name)


def _format_primitive(t: ct.Type, value: object) -> str:
    match t:
        case ct.Null():
            return "null : null"
        case ct.Reserved():
            return "null : reserved"
        case ct.Bool():
            return "true" if value else "false"
        case ct.Text():
            return format_text(str(value))
        case ct.PrincipalType():
            return f'principal "{value}"'
        case ct.Float32() | ct.Float64():
            assert isinstance(value, (int, float))
            number = _format_float(float(value), single=isinstance(t, ct.Float32))
            return f"{number} : {type(t).__name__.lower()}"
        case _:
            return f"{value:_} : {type(t).__name__.lower()}"


def _format_float(value: float, *, single: bool) -> str:
    if value != value or value in (float("inf"), float("-inf")):
        return "NaN" if value != value else "inf" if value > 0 else "-inf"
    digits = format(Decimal(_shortest_single(value) if single else repr(value)), "f")
    return digits if "." in digits else digits + ".0"


def _shortest_single(value: float) -> str:
    """Return the shortest digits that give this number in single precision."""
    exact = struct.pack("<f", value)
    for precision in range(1, 10):
        digits = format(value, f".{precision}g")
        try:
            if struct.pack("<f", float(digits)) == exact:
                return digits
        except OverflowError:
            continue  # rounding up went past the largest number of single precision
    return repr(value)


def _format_blob(raw: bytes) -> str:
    if all(byte in _SHOWN_BYTES for byte in raw):
        return 'blob "' + "".join(chr(b) if b in _PLAIN_BYTES else f"\\{b:02x}" for b in raw) + '"'
    return 'blob "' + "".join(f"\\{b:02x}" for b in raw) + '"'
