"""The text format of values: `("x", 3 : nat64, record { a = 1 })`.

Candid specification, section "Values". Printing follows the style of `didc` and `icp`. Parsing first reads
the shape (`text_syntax`), then fits it to the types that are given, or to those it infers: numbers without a
type are `int`, numbers with a point `float64`. Beyond the specification, `inf`, `-inf` and `nan` are numbers,
because floats print so.
"""

from __future__ import annotations

from collections.abc import Sequence

from cannery.candid import types as ct
from cannery.candid.binding import record_builder
from cannery.candid.codec import value_converter, value_encoder
from cannery.candid.errors import CandidError
from cannery.candid.layout import enclose, render
from cannery.candid.lexer import Tokens
from cannery.candid.subtype import explain_loss, explain_subtype
from cannery.candid.text_layout import layout_value
from cannery.candid.text_syntax import (
    AnnotatedShape,
    BlobShape,
    BoolShape,
    FloatShape,
    FuncShape,
    NullShape,
    NumberShape,
    OptShape,
    PrincipalShape,
    RecordShape,
    ServiceShape,
    Shape,
    TextShape,
    VariantShape,
    VecShape,
    parse_shapes,
)
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.protocol.principal import Principal, PrincipalError

_LINE_WIDTH_CHARS = 80
_INTEGERS = (
    ct.Nat,
    ct.Int,
    ct.Nat8,
    ct.Nat16,
    ct.Nat32,
    ct.Nat64,
    ct.Int8,
    ct.Int16,
    ct.Int32,
    ct.Int64,
)


def parse_values(text: str, types: Sequence[ct.Type] | None = None) -> tuple[list[ct.Type], list[object]]:
    """Parse `(value, ...)`, or one value without brackets, at the given types or at inferred ones.

    Like in a message, surplus values are ignored and missing ones are null where their types allow it.
    """
    shapes = parse_shapes(Tokens(text))
    if types is None:
        types = [_infer(shape) for shape in shapes]
    values = []
    for place, t in enumerate(types):
        if place < len(shapes):
            values.append(_value(shapes[place], t, None, f"argument {place}"))
        elif _is_nullable(*_resolve(t, None)):
            values.append(None)
        else:
            raise CandidError(f"argument {place} is missing")
    return list(types), values


def format_values(types: Sequence[ct.Type], values: Sequence[object]) -> str:
    """Print values of these types; lines are broken at 80 characters where that is possible."""
    if len(types) != len(values):
        raise CandidError(f"{len(values)} values are given for {len(types)} types")
    for t, value in zip(types, values, strict=True):
        value_encoder(t)(value)
    docs = [layout_value(t, value) for t, value in zip(types, values, strict=True)]
    return render(enclose("(", docs, ",", ")"), _LINE_WIDTH_CHARS)


def _resolve(t: ct.Type, env: ct.Env | None) -> tuple[ct.Type, ct.Env | None]:
    steps = 0
    while isinstance(t, (ct.Ref, ct.Rec)):
        if isinstance(t, ct.Rec):
            env = t.env
        if env is None:
            raise CandidError(f"type {t.name!r} is not defined")
        t = env[t.name]
        steps += 1
        if steps > len(env.definitions):
            raise CandidError(f"type {t!r} is defined as nothing but itself")
    return t, env


def _is_nullable(t: ct.Type, env: ct.Env | None) -> bool:
    return isinstance(_resolve(t, env)[0], (ct.Null, ct.Reserved, ct.Opt))


def _infer(shape: Shape) -> ct.Type:
    match shape:
        case AnnotatedShape():
            return shape.type
        case NumberShape():
            return ct.Int()
        case FloatShape():
            return ct.Float64()
        case TextShape():
            return ct.Text()
        case BlobShape():
            return ct.BLOB
        case BoolShape():
            return ct.Bool()
        case NullShape():
            return ct.Null()
        case OptShape():
            return ct.Opt(_infer(shape.inner))
        case VecShape():
            inner: ct.Type = ct.Empty()
            for item in shape.items:
                inner = _common(inner, _infer(item))
            return ct.Vec(inner)
        case RecordShape():
            return ct.Record(tuple(ct.Field(f.id, f.name, _infer(f.value)) for f in shape.fields))
        case VariantShape():
            return ct.Variant((ct.Field(shape.case.id, shape.case.name, _infer(shape.case.value)),))
        case PrincipalShape():
            return ct.PrincipalType()
        case ServiceShape():
            return ct.Service()
        case FuncShape():
            return ct.Func()


def _common(first: ct.Type, second: ct.Type) -> ct.Type:
    """Return the type of a vector's elements that seem to have two: null and opt, other cases, empty
    vectors."""
    if first == second or isinstance(second, ct.Empty):
        return first
    match first, second:
        case ct.Empty(), _:
            return second
        case ct.Opt(), ct.Null():
            return first
        case ct.Null(), ct.Opt():
            return second
        case ct.Opt(), ct.Opt():
            return ct.Opt(_common(first.inner, second.inner))
        case ct.Vec(), ct.Vec():
            return ct.Vec(_common(first.inner, second.inner))
        case ct.Variant(), ct.Variant():
            fields = {f.id: f for f in second.fields}
            for f in first.fields:
                other = fields.get(f.id, f)
                fields[f.id] = ct.Field(f.id, f.name or other.name, _common(f.type, other.type))
            return ct.Variant(tuple(fields.values()))
        case ct.Record(), ct.Record() if [f.id for f in first.fields] == [f.id for f in second.fields]:
            pairs = zip(first.fields, second.fields, strict=True)
            return ct.Record(
                tuple(ct.Field(f.id, f.name or g.name, _common(f.type, g.type)) for f, g in pairs)
            )
    raise CandidError("the elements of a vec have different types")


def _value(shape: Shape, t: ct.Type, env: ct.Env | None, path: str) -> object:
    """Return the Python form of a shape at a type, or raise with the path that does not fit."""
    t, env = _resolve(t, env)
    if isinstance(shape, AnnotatedShape):
        return _annotated(shape, t if env is None else _closed(t, env), path)
    match t:
        case ct.Reserved():
            return None
        case ct.Opt():
            return _opt(shape, t, env, path)
        case ct.Vec():
            return _vec(shape, t, env, path)
        case ct.Record():
            return _record(shape, t, env, path)
        case ct.Variant():
            return _variant(shape, t, env, path)
        case _:
            return _simple(shape, t, path)


def _closed(t: ct.Type, env: ct.Env) -> ct.Type:
    if isinstance(t, ct.Ref):
        return ct.Rec(t.name, env)
    return ct.map_children(t, lambda inner: _closed(inner, env))


def _annotated(shape: AnnotatedShape, t: ct.Type, path: str) -> object:
    if shape.type == t:
        return _value(shape.value, t, None, path)
    differences = explain_subtype(shape.type, t) or explain_loss(shape.type, t)
    if differences:
        raise CandidError(f"{path}: {differences[0]}")
    value = _value(shape.value, shape.type, None, path)
    return value_converter(shape.type, t)(value_encoder(shape.type)(value))


def _opt(shape: Shape, t: ct.Opt, env: ct.Env | None, path: str) -> object:
    if isinstance(shape, NullShape):
        return None
    wrap = _is_nullable(t.inner, env)
    value = _value(shape.inner if isinstance(shape, OptShape) else shape, t.inner, env, path)
    return Some(value) if wrap else value


def _vec(shape: Shape, t: ct.Vec, env: ct.Env | None, path: str) -> object:
    is_blob = isinstance(_resolve(t.inner, env)[0], ct.Nat8)
    if isinstance(shape, BlobShape) and is_blob:
        return shape.raw
    if isinstance(shape, BlobShape):
        shape = VecShape(tuple(NumberShape(byte) for byte in shape.raw))
    if not isinstance(shape, VecShape):
        raise _misfit(shape, t, path)
    values = [_value(item, t.inner, env, f"{path}[{place}]") for place, item in enumerate(shape.items)]
    if is_blob:
        return bytes(v for v in values if isinstance(v, int))
    if t.bound is dict:
        return dict(pair for pair in values if isinstance(pair, tuple))
    return values


def _record(shape: Shape, t: ct.Record, env: ct.Env | None, path: str) -> object:
    if not isinstance(shape, RecordShape):
        raise _misfit(shape, t, path)
    given = {f.id: f.value for f in shape.fields}
    values: list[object] = []
    for f in t.fields:
        if f.id in given:
            values.append(_value(given[f.id], f.type, env, f"{path}.{f.label}"))
        elif _is_nullable(f.type, env):
            values.append(None)
        else:
            raise CandidError(f"{path}: field {f.label} is missing")
    if t.bound is not None:
        return record_builder(t.bound, [f.label for f in t.fields])(values)
    if t.is_tuple:
        return tuple(values)
    return {f.label: value for f, value in zip(t.fields, values, strict=True)}


def _variant(shape: Shape, t: ct.Variant, env: ct.Env | None, path: str) -> object:
    if not isinstance(shape, VariantShape):
        raise _misfit(shape, t, path)
    for f in t.fields:
        if f.id == shape.case.id:
            value = _value(shape.case.value, f.type, env, f"{path}.{f.label}")
            return (t.bound or Variant)(f.label, value)
    known = ", ".join(f.label for f in t.fields)
    raise CandidError(f"{path}: case {shape.case.name or shape.case.id} is not known, cases are {known}")


def _simple(shape: Shape, t: ct.Type, path: str) -> object:
    match shape, t:
        case NumberShape(), ct.Float32() | ct.Float64():
            return _checked(_as_float(shape.value), t, path)
        case NumberShape(), _ if isinstance(t, _INTEGERS):
            return _checked(shape.value, t, path)
        case FloatShape(), ct.Float32() | ct.Float64():
            return _checked(shape.value, t, path)
        case TextShape(), ct.Text():
            return shape.text
        case BoolShape(), ct.Bool():
            return shape.value
        case NullShape(), ct.Null():
            return None
        case PrincipalShape() | ServiceShape(), ct.PrincipalType():
            return _principal(shape.text, path)
        case ServiceShape(), ct.Service():
            return ServiceRef(_principal(shape.text, path))
        case FuncShape(), ct.Func():
            return FuncRef(_principal(shape.text, path), shape.method)
        case _:
            raise _misfit(shape, t, path)


def _principal(text: str, path: str) -> Principal:
    try:
        return Principal.parse(text)
    except PrincipalError as error:
        raise CandidError(f"{path}: {error}") from None


def _as_float(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise CandidError("a number is too large for a float") from None


def _checked(value: object, t: ct.Type, path: str) -> object:
    try:
        value_encoder(t)(value)
    except CandidError as error:
        raise CandidError(f"{path}{str(error).removeprefix('value')}") from None
    return value


def _misfit(shape: Shape, t: ct.Type, path: str) -> CandidError:
    kind = type(shape).__name__.removesuffix("Shape").lower()
    wanted = type(t).__name__.removesuffix("Type").lower()
    return CandidError(f"{path}: a {kind} stands where a {wanted} is expected")
