"""Actors: a canister's methods as Python methods, made at run time from the interface that it publishes.

`actor.greet("x")` calls or queries as the interface says; arguments and results are Python values as in
`candid.values` (records are dicts, variants `Variant`), checked before anything is sent. The interface comes
certified from the canister's metadata `candid:service`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from typing import Any

from cannery.candid.codec import decoder, encoder
from cannery.candid.did import Interface, parse_did
from cannery.candid.errors import CandidError
from cannery.candid.keywords import format_name
from cannery.candid.layout import render
from cannery.candid.type_syntax import layout_type
from cannery.candid.types import Func, Type
from cannery.client.agent import Agent, AsyncAgent
from cannery.client.errors import ClientError, Unverified
from cannery.limits import INTERFACE_CACHE_COUNT_MAX
from cannery.protocol.principal import MANAGEMENT, Principal

SERVICE_SECTION = "candid:service"
_ONE_LINE_CHARS = 1_000_000


class InterfaceError(ClientError):
    """A canister publishes no interface, or one that cannot be read."""


@lru_cache(maxsize=INTERFACE_CACHE_COUNT_MAX)
def parse_interface(text: str) -> Interface:
    """Read the text of an interface file."""
    try:
        return parse_did(text)
    except CandidError as error:
        raise InterfaceError(f"the interface cannot be read: {error}") from None


def interface_of(canister_id: Principal, section: bytes | None) -> Interface:
    """Read the interface out of a canister's metadata section."""
    if section is None:
        raise InterfaceError(f"canister {canister_id} publishes no interface (metadata {SERVICE_SECTION})")
    try:
        return parse_interface(section.decode("utf-8"))
    except UnicodeDecodeError:
        raise InterfaceError(f"the interface of canister {canister_id} is not text") from None


@dataclass(frozen=True, slots=True)
class MethodShape:
    """One method as the interface tells it, with its compiled codecs."""

    name: str
    func: Func
    encode: Callable[[tuple[object, ...]], bytes]
    decode: Callable[[bytes], tuple[object, ...]]
    signature: str
    doc: str

    def encode_args(self, args: tuple[object, ...]) -> bytes:
        """Encode Python values; raise `TypeError` for a wrong number, `CandidError` for a wrong type."""
        if len(args) != len(self.func.args):
            raise TypeError(f"{self.signature} takes {len(self.func.args)} arguments, {len(args)} given")
        try:
            return self.encode(args)
        except CandidError as error:
            raise CandidError(f"{self.signature}: {error}") from None

    def decode_results(self, reply: bytes) -> object:
        """Decode a reply: None for no result, the value for one, a tuple for more."""
        try:
            values = self.decode(reply)
        except CandidError as error:
            raise Unverified(f"the reply of {self.name} is not of its type: {error}") from None
        if len(values) == 1:
            return values[0]
        return values or None


def effective_target(canister_id: Principal, args: Sequence[object]) -> Principal | None:
    """Give the canister that a management call is about, which says where it is sent; else None."""
    if canister_id != MANAGEMENT or not args:
        return None
    record = args[0]
    for label in ("canister_id", "target_canister"):
        target = record.get(label) if isinstance(record, Mapping) else getattr(record, label, None)
        if isinstance(target, Principal):
            return target
    return None


def shape_of(name: str, func: Func, docs: Sequence[str] = ()) -> MethodShape:
    """Compile one method."""
    signature = signature_text(name, func)
    doc = "\n".join([signature, *([""] if docs else []), *docs])
    return MethodShape(name, func, encoder(func.args), decoder(func.results), signature, doc)


def signature_text(name: str, func: Func) -> str:
    """Write a method on one line, as an interface file does; named types by their names."""
    return f"{format_name(name)} : {render(layout_type(func), _ONE_LINE_CHARS).removeprefix('func ')}"


def type_texts(types: Sequence[Type]) -> list[str]:
    """Write types as an interface file does, each on one line."""
    return [render(layout_type(item), _ONE_LINE_CHARS) for item in types]


class Method:
    """One method of an actor: call it as the interface says, or choose with `.call` and `.query`."""

    def __init__(self, agent: Agent, canister_id: Principal, shape: MethodShape) -> None:
        self._agent = agent
        self._canister_id = canister_id
        self._shape = shape
        self.__name__ = shape.name
        self.__doc__ = shape.doc

    def __call__(self, *args: object) -> Any:  # of the result types, known at run time only
        """Query where the interface says `query`, else call."""
        return self.query(*args) if self._shape.func.is_query else self.call(*args)

    def call(self, *args: object) -> Any:  # of the result types, known at run time only
        """Call as an update: also a query method is then answered by the whole subnet, certified."""
        shape = self._shape
        arg, effective = shape.encode_args(args), effective_target(self._canister_id, args)
        return shape.decode_results(self._agent.call(self._canister_id, shape.name, arg, effective=effective))

    def query(self, *args: object) -> Any:  # of the result types, known at run time only
        """Ask as a query: answered at once, from the last committed state."""
        shape = self._shape
        arg, effective = shape.encode_args(args), effective_target(self._canister_id, args)
        return shape.decode_results(
            self._agent.query(self._canister_id, shape.name, arg, effective=effective)
        )

    def __repr__(self) -> str:
        return f"<method {self._shape.signature} of {self._canister_id}>"


class AsyncMethod:
    """One method of an async actor; see `Method`."""

    def __init__(self, agent: AsyncAgent, canister_id: Principal, shape: MethodShape) -> None:
        self._agent = agent
        self._canister_id = canister_id
        self._shape = shape
        self.__name__ = shape.name
        self.__doc__ = shape.doc

    async def __call__(self, *args: object) -> Any:  # of the result types, known at run time only
        """Query where the interface says `query`, else call."""
        return await (self.query(*args) if self._shape.func.is_query else self.call(*args))

    async def call(self, *args: object) -> Any:  # of the result types, known at run time only
        """Call as an update."""
        shape = self._shape
        arg, effective = shape.encode_args(args), effective_target(self._canister_id, args)
        return shape.decode_results(
            await self._agent.call(self._canister_id, shape.name, arg, effective=effective)
        )

    async def query(self, *args: object) -> Any:  # of the result types, known at run time only
        """Ask as a query."""
        shape = self._shape
        arg, effective = shape.encode_args(args), effective_target(self._canister_id, args)
        return shape.decode_results(
            await self._agent.query(self._canister_id, shape.name, arg, effective=effective)
        )

    def __repr__(self) -> str:
        return f"<async method {self._shape.signature} of {self._canister_id}>"


class MethodTable:
    """The methods of one canister, compiled when first used."""

    def __init__(self, canister_id: Principal, interface: Interface) -> None:
        self.canister_id = canister_id
        self._interface = interface
        self._shapes: dict[str, MethodShape] = {}

    def shape(self, name: str) -> MethodShape:
        """Give a method; raise `AttributeError` where there is none of this name."""
        shape = self._shapes.get(name)
        if shape is None:
            func = self._interface.methods.get(name)
            if func is None:
                raise AttributeError(unknown_method(name, self._interface.methods))
            shape = self._shapes[name] = shape_of(name, func, self._interface.docs.get(name, ()))
        return shape

    def names(self) -> list[str]:
        """List the methods."""
        return sorted(self._interface.methods)

    def describe(self) -> str:
        """Write the canister with its methods, one a line."""
        lines = [f"  {signature_text(name, func)}" for name, func in self._interface.methods.items()]
        return "\n".join([f"<canister {self.canister_id} with the methods", *lines, ">"])


class Actor:
    """A canister, blocking: `actor.name(...)`, or `actor["name"]` where a name is no Python name."""

    def __init__(self, agent: Agent, canister_id: Principal, interface: Interface) -> None:
        self._agent = agent
        self._table = MethodTable(canister_id, interface)

    def __getattr__(self, name: str) -> Method:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> Method:
        return Method(self._agent, self._table.canister_id, self._table.shape(name))

    def __dir__(self) -> list[str]:
        return self._table.names()

    def __repr__(self) -> str:
        return self._table.describe()


class AsyncActor:
    """A canister, async: `await actor.name(...)`."""

    def __init__(self, agent: AsyncAgent, canister_id: Principal, interface: Interface) -> None:
        self._agent = agent
        self._table = MethodTable(canister_id, interface)

    def __getattr__(self, name: str) -> AsyncMethod:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> AsyncMethod:
        return AsyncMethod(self._agent, self._table.canister_id, self._table.shape(name))

    def __dir__(self) -> list[str]:
        return self._table.names()

    def __repr__(self) -> str:
        return self._table.describe()


def open_actor(agent: Agent, canister_id: Principal) -> Actor:
    """Read a canister's interface, certified, and make its actor."""
    return Actor(agent, canister_id, interface_of(canister_id, agent.metadata(canister_id)))


async def open_async_actor(agent: AsyncAgent, canister_id: Principal) -> AsyncActor:
    """Read a canister's interface, certified, and make its actor."""
    return AsyncActor(agent, canister_id, interface_of(canister_id, await agent.metadata(canister_id)))


def unknown_method(name: str, known: Iterable[str]) -> str:
    """Say that a method is not there, and which are."""
    names = sorted(known)
    close = get_close_matches(name, names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"the canister has no method {name!r}{hint} (it has: {', '.join(names)})"
