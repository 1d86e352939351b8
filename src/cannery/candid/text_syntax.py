"""The shapes of values in text, before they meet their types.

Candid specification, section "Values" with its shorthands. A shape says what was written, such as a number
without knowing whether it is a `nat8` or an `int`; `text` fits shapes to types.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.lexer import Token, Tokens
from cannery.candid.type_syntax import (
    parse_field_id,
    parse_list,
    parse_name,
    parse_nat,
    parse_text,
    parse_type,
)
from cannery.limits import CANDID_TEXT_DEPTH_LEVELS_MAX

_FLOAT_WORDS = {"inf": math.inf, "infinity": math.inf, "nan": math.nan, "NaN": math.nan}


@dataclass(frozen=True, slots=True)
class NumberShape:
    """A whole number."""

    value: int


@dataclass(frozen=True, slots=True)
class FloatShape:
    """A number with a point or an exponent."""

    value: float


@dataclass(frozen=True, slots=True)
class TextShape:
    """Text in quotes."""

    text: str


@dataclass(frozen=True, slots=True)
class BlobShape:
    """`blob "..."`."""

    raw: bytes


@dataclass(frozen=True, slots=True)
class BoolShape:
    """`true` or `false`."""

    value: bool


@dataclass(frozen=True, slots=True)
class NullShape:
    """`null`."""


@dataclass(frozen=True, slots=True)
class OptShape:
    """`opt v`."""

    inner: Shape


@dataclass(frozen=True, slots=True)
class VecShape:
    """`vec { v; v }`."""

    items: tuple[Shape, ...]


@dataclass(frozen=True, slots=True)
class FieldShape:
    """`name = v`, with the number of the name."""

    id: int
    name: str | None
    value: Shape


@dataclass(frozen=True, slots=True)
class RecordShape:
    """`record { name = v; ... }`."""

    fields: tuple[FieldShape, ...]


@dataclass(frozen=True, slots=True)
class VariantShape:
    """`variant { name = v }`."""

    case: FieldShape


@dataclass(frozen=True, slots=True)
class PrincipalShape:
    """`principal "..."`."""

    text: str


@dataclass(frozen=True, slots=True)
class ServiceShape:
    """`service "..."`."""

    text: str


@dataclass(frozen=True, slots=True)
class FuncShape:
    """`func "...".name`."""

    text: str
    method: str


@dataclass(frozen=True, slots=True)
class AnnotatedShape:
    """`v : type`."""

    value: Shape
    type: ct.Type


Shape: TypeAlias = (
    NumberShape
    | FloatShape
    | TextShape
    | BlobShape
    | BoolShape
    | NullShape
    | OptShape
    | VecShape
    | RecordShape
    | VariantShape
    | PrincipalShape
    | ServiceShape
    | FuncShape
    | AnnotatedShape
)


def parse_shapes(tokens: Tokens) -> list[Shape]:
    """Parse `(value, ...)`, or one value without brackets, to the end of the text."""
    if tokens.is_next("("):
        shapes = parse_list(tokens, "(", ",", ")", lambda: _annotated(tokens, 0))
    else:
        shapes = [_annotated(tokens, 0)]
    if tokens.peek().kind != "end":
        raise tokens.error("expected the end")
    return shapes


def _annotated(tokens: Tokens, depth: int) -> Shape:
    shape = _shape(tokens, depth)
    while tokens.accept(":"):
        shape = AnnotatedShape(shape, parse_type(tokens))
    return shape


def _shape(tokens: Tokens, depth: int) -> Shape:
    if depth > CANDID_TEXT_DEPTH_LEVELS_MAX:
        raise tokens.error(f"values are nested over {CANDID_TEXT_DEPTH_LEVELS_MAX} levels deep")
    token = tokens.peek()
    if token.kind == "text":
        return TextShape(parse_text(tokens))
    if token.kind == "number" or token.value in ("+", "-"):
        return _number(tokens)
    if tokens.accept("("):
        shape = _annotated(tokens, depth + 1)
        tokens.expect(")")
        return shape
    if token.kind != "word":
        raise tokens.error("expected a value")
    tokens.next()
    return _shape_of_word(tokens, token, depth + 1)


def _shape_of_word(tokens: Tokens, token: Token, depth: int) -> Shape:
    match token.value:
        case "true" | "false":
            return BoolShape(token.value == "true")
        case "null":
            return NullShape()
        case "opt":
            return OptShape(_shape(tokens, depth))
        case "vec":
            return VecShape(tuple(parse_list(tokens, "{", ";", "}", lambda: _annotated(tokens, depth))))
        case "record":
            return _record(tokens, depth)
        case "variant":
            tokens.expect("{")
            case = _case(tokens, depth)
            tokens.accept(";")
            tokens.expect("}")
            return VariantShape(case)
        case "blob":
            text = tokens.next()
            if text.kind != "text":
                raise tokens.error("expected the bytes of a blob in quotes", text)
            return BlobShape(text.raw)
        case "principal":
            return PrincipalShape(parse_text(tokens))
        case "service":
            return ServiceShape(parse_text(tokens))
        case "func":
            principal = parse_text(tokens)
            tokens.expect(".")
            return FuncShape(principal, parse_name(tokens))
        case word if word in _FLOAT_WORDS:
            return FloatShape(_FLOAT_WORDS[word])
        case _:
            raise tokens.error("expected a value", token)


def _record(tokens: Tokens, depth: int) -> RecordShape:
    following = 0

    def parse_field() -> FieldShape:
        nonlocal following
        if tokens.is_next("=", 1):
            made = _labelled(tokens, depth)
        else:
            made = FieldShape(following, None, _annotated(tokens, depth))
        following = made.id + 1
        return made

    fields = parse_list(tokens, "{", ";", "}", parse_field)
    ids = [f.id for f in fields]
    if len(set(ids)) != len(ids):
        raise CandidError("a field stands twice in a record")
    return RecordShape(tuple(fields))


def _labelled(tokens: Tokens, depth: int) -> FieldShape:
    field_id, name = _label(tokens)
    tokens.expect("=")
    return FieldShape(field_id, name, _annotated(tokens, depth))


def _case(tokens: Tokens, depth: int) -> FieldShape:
    if tokens.is_next("=", 1):
        return _labelled(tokens, depth)
    field_id, name = _label(tokens)
    return FieldShape(field_id, name, NullShape())


def _label(tokens: Tokens) -> tuple[int, str | None]:
    if tokens.peek().kind == "number":
        return parse_field_id(tokens), None
    name = parse_name(tokens)
    return ct.field_hash(name), name


def _number(tokens: Tokens) -> Shape:
    sign = 1
    if tokens.is_next("-") or tokens.is_next("+"):
        sign = -1 if tokens.next().value == "-" else 1
    token = tokens.next()
    if token.kind == "word" and token.value in _FLOAT_WORDS:
        return FloatShape(sign * _FLOAT_WORDS[token.value])
    value = parse_nat(token)
    if value is not None:
        return NumberShape(sign * value)
    if token.kind != "number":
        raise tokens.error("expected a number", token)
    digits = token.value.replace("_", "").lower()
    try:
        number = float.fromhex(digits) if digits.startswith("0x") else float(digits)
    except (ValueError, OverflowError):
        number = math.inf
    if math.isinf(number):
        raise tokens.error("the number is too large", token)
    return FloatShape(sign * number)
