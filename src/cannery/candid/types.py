"""Candid types as values.

Candid specification, sections "Core Grammar", "Data" and "Type Definitions". Every type is frozen and
hashable. A recursive or named type is a reference: `Ref(name)` is open, to be looked up in the definitions
around it; `Rec(name, env)` is closed, it brings its definitions along. A type without an open `Ref` stands
for itself.

A record or variant may be bound to a Python class (`bound`), and a vector of pairs to `dict`: decoders then
make instances of it. The binding takes part in equality; `wire.encode_type` gives the bytes that are equal
for equal structures, whatever the names and bindings. This module knows no bytes and no text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import TypeAlias

from cannery.candid.errors import CandidError

FIELD_ID_MAX = 2**32 - 1
_UNNAMED = re.compile(r"_(0|[1-9][0-9]{0,9})_")
_AMBIGUOUS = re.compile(r'_(0|[1-9][0-9]{0,9})_|".*"', re.DOTALL)


@lru_cache(maxsize=8192)
def field_hash(name: str) -> int:
    """Return the number that a field or case called `name` has on the wire."""
    total = 0
    for byte in name.encode("utf-8", "surrogatepass"):
        total = (total * 223 + byte) & FIELD_ID_MAX
    return total


@dataclass(frozen=True, slots=True)
class Null:
    """The type of null alone."""


@dataclass(frozen=True, slots=True)
class Bool:
    """True or false."""


@dataclass(frozen=True, slots=True)
class Nat:
    """A natural number of any size."""


@dataclass(frozen=True, slots=True)
class Int:
    """An integer of any size."""


@dataclass(frozen=True, slots=True)
class Nat8:
    """A number from 0 to 2^8-1."""


@dataclass(frozen=True, slots=True)
class Nat16:
    """A number from 0 to 2^16-1."""


@dataclass(frozen=True, slots=True)
class Nat32:
    """A number from 0 to 2^32-1."""


@dataclass(frozen=True, slots=True)
class Nat64:
    """A number from 0 to 2^64-1."""


@dataclass(frozen=True, slots=True)
class Int8:
    """A number from -2^7 to 2^7-1."""


@dataclass(frozen=True, slots=True)
class Int16:
    """A number from -2^15 to 2^15-1."""


@dataclass(frozen=True, slots=True)
class Int32:
    """A number from -2^31 to 2^31-1."""


@dataclass(frozen=True, slots=True)
class Int64:
    """A number from -2^63 to 2^63-1."""


@dataclass(frozen=True, slots=True)
class Float32:
    """An IEEE 754 number of single precision."""


@dataclass(frozen=True, slots=True)
class Float64:
    """An IEEE 754 number of double precision."""


@dataclass(frozen=True, slots=True)
class Text:
    """Unicode text."""


@dataclass(frozen=True, slots=True)
class Reserved:
    """Content that nobody reads: every type is a subtype of it."""


@dataclass(frozen=True, slots=True)
class Empty:
    """The type without values: a subtype of every type."""


@dataclass(frozen=True, slots=True)
class PrincipalType:
    """A principal."""


@dataclass(frozen=True, slots=True)
class Future:
    """A type of a later Candid, known by its bytes alone: its values can be skipped, not read."""

    opcode: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Opt:
    """A value that may be absent."""

    inner: Type


@dataclass(frozen=True, slots=True)
class Vec:
    """A sequence; `Vec(Nat8())` is a blob; bound to `dict`, a sequence of pairs is a mapping."""

    inner: Type
    bound: type | None = None


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record or a case of a variant: its number, its name where it has one, its type."""

    id: int
    name: str | None
    type: Type

    @classmethod
    def named(cls, name: str, type: Type) -> Field:
        """Make a field whose number is the hash of its name."""
        return cls(field_hash(name), name, type)

    @property
    def label(self) -> str:
        """The key of this field in Python: its name, or `_N_` for number N.

        A name that looks like such a key, or like a name in quotes, stands in quotes, so that keys stay
        distinct.
        """
        if self.name is None:
            return f"_{self.id}_"
        return f'"{self.name}"' if _AMBIGUOUS.fullmatch(self.name) else self.name


@dataclass(frozen=True, slots=True)
class Record:
    """Fields of different types, sorted by number."""

    fields: tuple[Field, ...]
    bound: type | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _sorted_fields(self.fields, "record"))

    @property
    def is_tuple(self) -> bool:
        """Whether the fields are unnamed and numbered 0, 1, 2 and so on (at least one): a Python tuple."""
        return is_tuple_ids([f.id for f in self.fields]) and all(f.name is None for f in self.fields)


@dataclass(frozen=True, slots=True)
class Variant:
    """One of several cases, sorted by number."""

    fields: tuple[Field, ...]
    bound: type | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _sorted_fields(self.fields, "variant"))


@dataclass(frozen=True, slots=True)
class Func:
    """A method: arguments, results, and modes out of query, composite_query and oneway.

    The names of arguments and results document, and take no part in equality.
    """

    args: tuple[Type, ...] = ()
    results: tuple[Type, ...] = ()
    modes: tuple[str, ...] = ()
    arg_names: tuple[str | None, ...] = field(default=(), compare=False)
    result_names: tuple[str | None, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        unknown = set(self.modes) - {"query", "composite_query", "oneway"}
        if unknown or len(set(self.modes)) != len(self.modes):
            raise CandidError(
                f"a method's modes are query, composite_query or oneway, each once: {self.modes}"
            )
        if "oneway" in self.modes and self.results:
            raise CandidError("a oneway method has no results")
        object.__setattr__(self, "modes", tuple(sorted(self.modes)))

    @property
    def is_query(self) -> bool:
        return "query" in self.modes or "composite_query" in self.modes


@dataclass(frozen=True, slots=True)
class Service:
    """An interface: methods by name, sorted by the bytes of their names; each a `Func` or a name of one."""

    methods: tuple[tuple[str, Type], ...] = ()

    def __post_init__(self) -> None:
        methods = tuple(sorted(self.methods, key=lambda m: m[0].encode("utf-8", "surrogatepass")))
        names = [name for name, _ in methods]
        if len(set(names)) != len(names):
            raise CandidError(f"a method name stands twice in a service: {_first_repeated(names)}")
        object.__setattr__(self, "methods", methods)


@dataclass(frozen=True, slots=True)
class Ref:
    """A name that the definitions around it explain."""

    name: str


class Env:
    """Type definitions by name: an immutable, hashable mapping, sorted by name."""

    __slots__ = ("_by_name", "_hash", "definitions")

    definitions: tuple[tuple[str, Type], ...]

    def __init__(self, definitions: Mapping[str, Type] | Iterable[tuple[str, Type]]) -> None:
        self._by_name = dict(definitions)
        self.definitions = tuple(sorted(self._by_name.items()))
        self._hash: int | None = None

    def __getitem__(self, name: str) -> Type:
        try:
            return self._by_name[name]
        except KeyError:
            raise CandidError(f"type {name!r} is not defined") from None

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Env) and self.definitions == other.definitions)

    def __hash__(self) -> int:
        if self._hash is None:
            self._hash = hash(self.definitions)
        return self._hash

    def __repr__(self) -> str:
        return f"Env({[name for name, _ in self.definitions]})"


@dataclass(frozen=True, slots=True)
class Rec:
    """The type called `name` in `env`: a closed type that may be recursive, and that printers show by its
    name."""

    name: str
    env: Env


Type: TypeAlias = (
    Null
    | Bool
    | Nat
    | Int
    | Nat8
    | Nat16
    | Nat32
    | Nat64
    | Int8
    | Int16
    | Int32
    | Int64
    | Float32
    | Float64
    | Text
    | Reserved
    | Empty
    | PrincipalType
    | Future
    | Opt
    | Vec
    | Record
    | Variant
    | Func
    | Service
    | Ref
    | Rec
)

TypeChange: TypeAlias = Callable[[Type], Type]

BLOB = Vec(Nat8())


def is_tuple_ids(ids: list[int]) -> bool:
    """Tell whether field numbers are those of a tuple: 0, 1, 2 and so on, at least one."""
    return bool(ids) and ids[0] == 0 and ids[-1] == len(ids) - 1


def tuple_record(*types: Type) -> Record:
    """Make a record of unnamed fields numbered from 0, which Python sees as a tuple."""
    return Record(tuple(Field(i, None, t) for i, t in enumerate(types)))


def record_of(fields: Mapping[str, Type]) -> Record:
    """Make a record type of names, or labels `_N_` for numbers, to types."""
    return Record(tuple(field_of_label(label, t) for label, t in fields.items()))


def variant_of(fields: Mapping[str, Type]) -> Variant:
    """Make a variant type of names, or labels `_N_` for numbers, to types."""
    return Variant(tuple(field_of_label(label, t) for label, t in fields.items()))


def field_of_label(label: str, type: Type) -> Field:
    """Make the field that has this key in Python: `_N_` is the unnamed field N, any other key is a name.

    See `Field.label` for names in quotes.
    """
    if len(label) > 2 and label[0] == label[-1] == '"' and _AMBIGUOUS.fullmatch(label[1:-1]):
        return Field.named(label[1:-1], type)
    match = _UNNAMED.fullmatch(label)
    if match is not None and int(match[1]) <= FIELD_ID_MAX:
        return Field(int(match[1]), None, type)
    return Field.named(label, type)


def map_children(t: Type, change: TypeChange) -> Type:
    """Rebuild `t` with `change` applied to the types directly inside it."""
    match t:
        case Opt():
            return Opt(change(t.inner))
        case Vec():
            return Vec(change(t.inner), t.bound)
        case Record():
            return Record(tuple(Field(f.id, f.name, change(f.type)) for f in t.fields), t.bound)
        case Variant():
            return Variant(tuple(Field(f.id, f.name, change(f.type)) for f in t.fields), t.bound)
        case Func():
            args, results = tuple(map(change, t.args)), tuple(map(change, t.results))
            return Func(args, results, t.modes, t.arg_names, t.result_names)
        case Service():
            return Service(tuple((name, change(m)) for name, m in t.methods))
        case _:
            return t


def children(t: Type) -> tuple[Type, ...]:
    """Return the types directly inside `t`; a reference has none."""
    match t:
        case Opt() | Vec():
            return (t.inner,)
        case Record() | Variant():
            return tuple(f.type for f in t.fields)
        case Func():
            return t.args + t.results
        case Service():
            return tuple(m for _, m in t.methods)
        case _:
            return ()


def _sorted_fields(fields: tuple[Field, ...], what: str) -> tuple[Field, ...]:
    ordered = tuple(sorted(fields, key=lambda f: f.id))
    for before, after in pairwise(ordered):
        if before.id == after.id:
            raise CandidError(
                f"two fields of a {what} have number {before.id}: {before.label}, {after.label}"
            )
    if ordered and not (ordered[0].id >= 0 and ordered[-1].id <= FIELD_ID_MAX):
        raise CandidError(f"a field number of a {what} is not below 2^32")
    return ordered


def _first_repeated(names: list[str]) -> str:
    return next(name for name in names if names.count(name) > 1)
