"""Types in Candid's text: parsing and printing of type expressions.

Candid specification, section "Core Grammar" with its shorthands. Names stay open references (`types.Ref`);
whole files are the business of `did`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.keywords import format_name
from cannery.candid.layout import HARD_LINE, Doc, enclose, join
from cannery.candid.lexer import Token, Tokens
from cannery.limits import CANDID_TYPE_DEPTH_LEVELS_MAX

T = TypeVar("T")

_PRIMITIVES: dict[str, ct.Type] = {
    "principal" if isinstance(t, ct.PrincipalType) else type(t).__name__.lower(): t
    for t in (
        ct.Null(),
        ct.Bool(),
        ct.Nat(),
        ct.Int(),
        ct.Nat8(),
        ct.Nat16(),
        ct.Nat32(),
        ct.Nat64(),
        ct.Int8(),
        ct.Int16(),
        ct.Int32(),
        ct.Int64(),
        ct.Float32(),
        ct.Float64(),
        ct.Text(),
        ct.Reserved(),
        ct.Empty(),
        ct.PrincipalType(),
    )
}
_PRIMITIVE_WORDS = {t: word for word, t in _PRIMITIVES.items()}
_MODES = ("query", "composite_query", "oneway")


def parse_list(tokens: Tokens, left: str, separator: str, right: str, item: Callable[[], T]) -> list[T]:
    """Parse items between brackets, with a separator after each but optionally the last."""
    tokens.expect(left)
    items: list[T] = []
    while not tokens.accept(right):
        items.append(item())
        if not tokens.accept(separator) and not tokens.is_next(right):
            raise tokens.error(f"expected {separator!r} or {right!r}")
    return items


def parse_text(tokens: Tokens) -> str:
    """Parse a text in quotes that must be Unicode."""
    token = tokens.next()
    if token.kind != "text":
        raise tokens.error("expected a text in quotes", token)
    try:
        return token.raw.decode()
    except UnicodeDecodeError:
        raise tokens.error("the text is not Unicode", token) from None


def parse_name(tokens: Tokens) -> str:
    """Parse a name: an identifier, or a text in quotes."""
    return tokens.next().value if tokens.peek().kind == "word" else parse_text(tokens)


def parse_field_id(tokens: Tokens) -> int:
    """Parse the number of a field."""
    token = tokens.next()
    value = parse_nat(token)
    if value is None or value > ct.FIELD_ID_MAX:
        raise tokens.error("expected a field number below 2^32", token)
    return value


def parse_nat(token: Token) -> int | None:
    """Return the natural number that a token is, or nothing where it is something else."""
    digits = token.value.replace("_", "")
    if token.kind != "number" or len(digits) > 4300:
        return None
    if digits[:2] in ("0x", "0X"):
        return None if "." in digits or "p" in digits.lower() else int(digits, 16)
    return int(digits) if digits.isdecimal() else None


def parse_type(tokens: Tokens, depth: int = 0) -> ct.Type:
    """Parse a type expression."""
    if depth > CANDID_TYPE_DEPTH_LEVELS_MAX:
        raise tokens.error(f"types are nested over {CANDID_TYPE_DEPTH_LEVELS_MAX} levels deep")
    token = tokens.next()
    if token.kind != "word":
        raise tokens.error("expected a type", token)
    try:
        return _parse_type_of_word(tokens, token.value, depth + 1)
    except CandidError as error:
        if str(error).startswith("line "):
            raise
        raise tokens.error(str(error), token) from None


def _parse_type_of_word(tokens: Tokens, word: str, depth: int) -> ct.Type:
    if word in _PRIMITIVES:
        return _PRIMITIVES[word]
    if word == "blob":
        return ct.BLOB
    if word == "opt":
        return ct.Opt(parse_type(tokens, depth))
    if word == "vec":
        return ct.Vec(parse_type(tokens, depth))
    if word == "record":
        return ct.Record(_parse_fields(tokens, depth, is_record=True))
    if word == "variant":
        return ct.Variant(_parse_fields(tokens, depth, is_record=False))
    if word == "func":
        return parse_func(tokens, depth)
    if word == "service":
        return parse_service(tokens, depth)[0]
    return ct.Ref(word)


def _parse_fields(tokens: Tokens, depth: int, *, is_record: bool) -> tuple[ct.Field, ...]:
    following = 0

    def parse_field() -> ct.Field:
        nonlocal following
        made = _parse_field(tokens, depth, is_record, following)
        following = made.id + 1
        return made

    return tuple(parse_list(tokens, "{", ";", "}", parse_field))


def _parse_field(tokens: Tokens, depth: int, is_record: bool, following: int) -> ct.Field:
    has_label = tokens.is_next(":", 1)
    if is_record and not has_label:
        return ct.Field(following, None, parse_type(tokens, depth))
    name = None
    if tokens.peek().kind == "number":
        field_id = parse_field_id(tokens)
    else:
        name = parse_name(tokens)
        field_id = ct.field_hash(name)
    if not has_label:
        return ct.Field(field_id, name, ct.Null())
    tokens.expect(":")
    return ct.Field(field_id, name, parse_type(tokens, depth))


def parse_arguments(tokens: Tokens, depth: int) -> tuple[tuple[ct.Type, ...], tuple[str | None, ...]]:
    """Parse `(name : type, type)` to types and names."""

    def parse_argument() -> tuple[str | None, ct.Type]:
        name = None
        if tokens.is_next(":", 1):
            name = parse_name(tokens)
            tokens.expect(":")
        return name, parse_type(tokens, depth)

    found = parse_list(tokens, "(", ",", ")", parse_argument)
    names = [name for name, _ in found if name is not None]
    if len(set(names)) != len(names):
        raise tokens.error("a name stands twice among the arguments")
    return tuple(t for _, t in found), tuple(name for name, _ in found)


def parse_func(tokens: Tokens, depth: int = 0) -> ct.Func:
    """Parse the type of a method, `(...) -> (...) query`."""
    args, arg_names = parse_arguments(tokens, depth)
    tokens.expect("->")
    results, result_names = parse_arguments(tokens, depth)
    modes = []
    while tokens.peek().kind == "word" and tokens.peek().value in _MODES:
        modes.append(tokens.next().value)
    return ct.Func(args, results, tuple(modes), arg_names, result_names)


def parse_service(tokens: Tokens, depth: int = 0) -> tuple[ct.Service, dict[str, tuple[str, ...]]]:
    """Parse `{ name : method; ... }` to the service type and the comments above its methods."""
    docs: dict[str, tuple[str, ...]] = {}

    def parse_method() -> tuple[str, ct.Type]:
        above = tokens.peek().docs
        name = parse_name(tokens)
        if above:
            docs[name] = above
        tokens.expect(":")
        if tokens.is_next("("):
            return name, parse_func(tokens, depth)
        return name, ct.Ref(tokens.next().value)

    return ct.Service(tuple(parse_list(tokens, "{", ";", "}", parse_method))), docs


def layout_type(t: ct.Type) -> Doc:
    """Lay out a type expression whose names are open references."""
    match t:
        case ct.Opt():
            return join("opt ", layout_type(t.inner))
        case ct.Vec():
            return "blob" if t.inner == ct.Nat8() else join("vec ", layout_type(t.inner))
        case ct.Record() if t.is_tuple:
            return join("record ", enclose("{", [layout_type(f.type) for f in t.fields], ";", "}", space=" "))
        case ct.Record():
            return join("record ", enclose("{", [_layout_field(f) for f in t.fields], ";", "}", space=" "))
        case ct.Variant():
            fields = [_layout_label(f) if f.type == ct.Null() else _layout_field(f) for f in t.fields]
            return join("variant ", enclose("{", fields, ";", "}", space=" "))
        case ct.Func():
            return join("func ", layout_func(t))
        case ct.Service():
            return join("service ", layout_service(t, {}))
        case ct.Ref() | ct.Rec():
            return t.name
        case ct.Future():
            raise CandidError("a type of a later Candid cannot be printed")
        case _:
            return _PRIMITIVE_WORDS[t]


def _layout_label(f: ct.Field) -> str:
    return f"{f.id:_}" if f.name is None else format_name(f.name)


def _layout_field(f: ct.Field) -> Doc:
    return join(_layout_label(f), " : ", layout_type(f.type))


def layout_arguments(types: tuple[ct.Type, ...], names: tuple[str | None, ...]) -> Doc:
    """Lay out `(name : type, type)`."""
    items: list[Doc] = []
    for place, t in enumerate(types):
        name = names[place] if place < len(names) else None
        items.append(layout_type(t) if name is None else join(format_name(name), " : ", layout_type(t)))
    return enclose("(", items, ",", ")")


def layout_func(t: ct.Func) -> Doc:
    """Lay out the type of a method without the word func."""
    modes = "".join(f" {mode}" for mode in t.modes)
    args, results = layout_arguments(t.args, t.arg_names), layout_arguments(t.results, t.result_names)
    return join(args, " -> ", results, modes)


def layout_service(t: ct.Service, docs: dict[str, tuple[str, ...]]) -> Doc:
    """Lay out an interface without the word service; `docs` are lines to stand above methods."""
    items = []
    for name, method in t.methods:
        doc = layout_func(method) if isinstance(method, ct.Func) else layout_type(method)
        above: list[Doc] = []
        for line in docs.get(name, ()):
            above += [f"// {line}".rstrip(), HARD_LINE]
        items.append(join(*above, format_name(name), " : ", doc))
    return enclose("{", items, ";", "}", space=" ")
