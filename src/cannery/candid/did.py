"""Interface files: parsing, printing, and the check that one interface can replace another.

Candid specification, sections "Core Grammar", "Type Definitions" and "Interfaces". Imports are refused: an
interface here is one file. Types of an `Interface` come out closed, ready for `codec` and `subtype`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.graph import graph_of
from cannery.candid.keywords import KEYWORDS
from cannery.candid.layout import HARD_LINE, Doc, join, render
from cannery.candid.lexer import Tokens
from cannery.candid.subtype import explain_subtype
from cannery.candid.type_syntax import (
    layout_arguments,
    layout_service,
    layout_type,
    parse_arguments,
    parse_service,
    parse_type,
)
from cannery.candid.wire import encode_type

_LINE_WIDTH_CHARS = 80
Docs = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Interface:
    """What a canister offers: type definitions, init arguments, and a service.

    `open_init_args` and `open_service` refer to `definitions` by name; the properties give them closed.
    `docs` are the comment lines above methods, types (under `type NAME`) and the service (under `service :`).
    A file without a service has `open_service` None; one whose canister takes no init arguments has none.
    """

    definitions: ct.Env
    open_init_args: tuple[ct.Type, ...] = ()
    init_arg_names: tuple[str | None, ...] = ()
    open_service: ct.Service | ct.Ref | None = None
    has_init: bool = False
    docs: Docs = field(default_factory=dict, hash=False)

    @classmethod
    def of(
        cls,
        methods: Mapping[str, ct.Func],
        init_args: Sequence[ct.Type] | None = None,
        init_arg_names: Sequence[str | None] = (),
        docs: Mapping[str, str] | None = None,
    ) -> Interface:
        """Make an interface out of closed types; named ones become definitions, under their names where
        possible.

        `docs` holds the text to stand above methods. Init arguments of None mean that the canister takes
        none.
        """
        lift = _Lift()
        service = ct.Service(tuple((name, lift.open(f)) for name, f in methods.items()))
        args = tuple(lift.open(t) for t in init_args or ())
        lines = {name: tuple(text.splitlines()) for name, text in (docs or {}).items() if text}
        names = tuple(init_arg_names)
        return cls(ct.Env(lift.definitions), args, names, service, init_args is not None, lines)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the defined types, sorted."""
        return tuple(name for name, _ in self.definitions.definitions)

    @property
    def service(self) -> ct.Service | None:
        """The service with closed methods, all of them `Func`; none where the file defines types alone."""
        if self.open_service is None:
            return None
        return ct.Service(tuple(self.methods.items()))

    @property
    def methods(self) -> dict[str, ct.Func]:
        """The methods by name, closed."""
        if self.open_service is None:
            return {}
        service = self.look_up(self.open_service)
        assert isinstance(service, ct.Service)  # parse_did and of() see to it
        return {name: self._closed_func(method) for name, method in service.methods}

    @property
    def init_args(self) -> tuple[ct.Type, ...]:
        """The types of the init arguments, closed."""
        return tuple(self.closed(t) for t in self.open_init_args)

    def type(self, name: str) -> ct.Rec:
        """Return a defined type, closed."""
        if name not in self.definitions:
            raise CandidError(f"type {name!r} is not defined")
        return ct.Rec(name, self._reachable(name))

    def closed(self, t: ct.Type) -> ct.Type:
        """Return a type of this interface with its definitions."""
        return self.type(t.name) if isinstance(t, ct.Ref) else ct.map_children(t, self.closed)

    def look_up(self, t: ct.Type) -> ct.Type:
        """Follow names to a type that is none."""
        seen = set()
        while isinstance(t, ct.Ref):
            if t.name in seen:
                raise CandidError(f"type {t.name} is defined as nothing but itself")
            seen.add(t.name)
            t = self.definitions[t.name]
        return t

    def _closed_func(self, method: ct.Type) -> ct.Func:
        made = ct.map_children(self.look_up(method), self.closed)
        assert isinstance(made, ct.Func)  # parse_did and of() see to it
        return made

    def _reachable(self, name: str) -> ct.Env:
        found: dict[str, ct.Type] = {}
        todo: list[ct.Type] = [ct.Ref(name)]
        while todo:
            t = todo.pop()
            if isinstance(t, ct.Ref) and t.name not in found:
                found[t.name] = self.definitions[t.name]
                todo.append(found[t.name])
            todo.extend(ct.children(t))
        return ct.Env(found)


def parse_did(text: str) -> Interface:
    """Parse an interface file; raise `CandidError` with line and column."""
    tokens = Tokens(text)
    definitions: dict[str, ct.Type] = {}
    docs: dict[str, tuple[str, ...]] = {}
    while tokens.is_next("type") or tokens.is_next("import"):
        above = tokens.peek().docs
        if tokens.is_next("import"):
            raise tokens.error("imports are not supported: write all types into one file")
        tokens.next()
        name = tokens.next()
        if name.kind != "word" or name.value in KEYWORDS:
            raise tokens.error("expected the name of a type, which is no keyword", name)
        if name.value in definitions:
            raise tokens.error("the type is defined twice", name)
        tokens.expect("=")
        definitions[name.value] = parse_type(tokens)
        if above:
            docs[f"type {name.value}"] = above
        if not tokens.accept(";") and tokens.peek().kind != "end":
            raise tokens.error("expected ';'")
    made = _parse_main_service(tokens, definitions, docs)
    if tokens.peek().kind != "end":
        raise tokens.error("expected a type definition, the service, or the end")
    return _checked(made)


def _parse_main_service(
    tokens: Tokens, definitions: dict[str, ct.Type], docs: dict[str, tuple[str, ...]]
) -> Interface:
    above = tokens.peek().docs
    if not tokens.accept("service"):
        return Interface(ct.Env(definitions), docs=docs)
    if not tokens.is_next(":"):
        tokens.next()
    tokens.expect(":")
    args: tuple[ct.Type, ...] = ()
    names: tuple[str | None, ...] = ()
    if above:
        docs["service :"] = above
    has_init = tokens.is_next("(")
    if has_init:
        args, names = parse_arguments(tokens, 0)
        tokens.expect("->")
    service: ct.Service | ct.Ref
    if tokens.is_next("{"):
        service, method_docs = parse_service(tokens)
        docs.update(method_docs)
    else:
        word = tokens.next()
        if word.kind != "word":
            raise tokens.error("expected '{' or the name of a service type", word)
        service = ct.Ref(word.value)
    tokens.accept(";")
    return Interface(ct.Env(definitions), args, names, service, has_init, docs)


def _checked(interface: Interface) -> Interface:
    """Return the interface once every name is defined and every method is one."""
    types = [t for _, t in interface.definitions.definitions] + list(interface.open_init_args)
    if interface.open_service is not None:
        if not isinstance(interface.look_up(interface.open_service), ct.Service):
            raise CandidError("the type of the service is no service")
        types.append(interface.open_service)
    graph_of((ct.Rec("", ct.Env({**dict(interface.definitions.definitions), "": ct.tuple_record(*types)})),))
    return interface


def format_did(interface: Interface) -> str:
    """Print an interface file: definitions sorted by name, then the service."""
    parts: list[Doc] = []
    for name, t in interface.definitions.definitions:
        parts += _doc_lines(interface, f"type {name}")
        parts += ["type ", name, " = ", layout_type(t), ";", HARD_LINE]
    if interface.open_service is not None:
        parts += _doc_lines(interface, "service :")
        parts.append("service : ")
        if interface.has_init:
            parts += [layout_arguments(interface.open_init_args, interface.init_arg_names), " -> "]
        if isinstance(interface.open_service, ct.Ref):
            parts.append(interface.open_service.name)
        else:
            parts.append(layout_service(interface.open_service, dict(interface.docs)))
        parts.append(HARD_LINE)
    return render(join(*parts), _LINE_WIDTH_CHARS)


def _doc_lines(interface: Interface, key: str) -> list[Doc]:
    lines: list[Doc] = []
    for line in interface.docs.get(key, ()):
        lines += [f"// {line}".rstrip(), HARD_LINE]
    return lines


def interface_subtype(new: Interface, old: Interface) -> list[str]:
    """Return what keeps the new interface from replacing the old one; nothing where it can.

    Init arguments do not count: they are the business of who installs.
    """
    lines = explain_subtype(new.service or ct.Service(), old.service or ct.Service())
    return [line.removeprefix("value ").removeprefix("value: ") for line in lines]


class _Lift:
    """Turns closed types into open ones with definitions."""

    def __init__(self) -> None:
        self.definitions: dict[str, ct.Type] = {}
        self._names: dict[tuple[str, ct.Env], str] = {}
        self._marks: dict[tuple[str, ct.Type, bytes], str] = {}

    def open(self, t: ct.Type, env: ct.Env | None = None) -> ct.Type:
        """Return the type with references by name in place of closed ones."""
        if isinstance(t, ct.Rec):
            return ct.Ref(self._name(t.name, t.env))
        if isinstance(t, ct.Ref):
            if env is None:
                raise CandidError(f"type {t.name!r} is not defined: an open reference needs its definitions")
            return ct.Ref(self._name(t.name, env))
        return ct.map_children(t, lambda inner: self.open(inner, env))

    def _name(self, wanted: str, env: ct.Env) -> str:
        """Return the name of a definition: equal definitions share one, different ones get a number."""
        key = (wanted, env)
        if key not in self._names:
            body = env[wanted]
            mark = (wanted, body, encode_type(ct.Rec(wanted, env)))
            name, number = self._marks.get(mark), 1
            if name is None:
                name = wanted
                while name in self.definitions:
                    number += 1
                    name = f"{wanted}_{number}"
                self._marks[mark] = self._names[key] = name
                self.definitions[name] = ct.Null()
                self.definitions[name] = self.open(body, env)
            self._names[key] = name
        return self._names[key]
