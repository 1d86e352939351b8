"""A canister in a test node, as an object with its methods.

Types are those of the class that was installed (records come back as that class), or those of the interface
text where a file or a module was installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cannery.candid.codec import encoder
from cannery.candid.did import parse_did
from cannery.candid.types import Func, Type
from cannery.cdk.declare import Canister
from cannery.cdk.describe import describe
from cannery.client.actor import MethodShape, shape_of, unknown_method
from cannery.client.errors import Rejected
from cannery.errors import Reject
from cannery.protocol.principal import ANONYMOUS, Principal
from cannery.replica.state import Answer

_EMPTY_ARGS: Final = b"DIDL\x00\x00"


@dataclass(frozen=True, slots=True)
class Interface:
    """What a canister offers: method types, and types of the arguments of its init hook."""

    methods: Mapping[str, Func]
    init_args: tuple[Type, ...]

    def encode_init(self, args: tuple[object, ...]) -> bytes:
        """Encode install arguments."""
        if len(args) != len(self.init_args):
            raise TypeError(f"init takes {len(self.init_args)} arguments, {len(args)} given")
        return encoder(self.init_args)(args) if args else _EMPTY_ARGS


def interface_of_class(cls: type[Canister]) -> Interface:
    """Take the types from a class: values come back as its own records."""
    description = describe(cls)
    methods = {
        name: Func(entry.args, entry.results, _modes(entry.role))
        for name, entry in description.methods.items()
    }
    init = description.hooks.get("init")
    return Interface(methods, init.args if init is not None else ())


def interface_of_did(text: str) -> Interface:
    """Take the types from an interface text: values come back in their plain forms."""
    parsed = parse_did(text)
    return Interface(parsed.methods, parsed.init_args)


def _modes(role: str) -> tuple[str, ...]:
    return (str(role),) if str(role) in ("query", "composite_query", "oneway") else ()


class CallDoor(Protocol):
    """What an actor needs of its node."""

    def call_raw(self, canister_id: Principal, method: str, arg: bytes, sender: Principal) -> bytes: ...

    def query_raw(self, canister_id: Principal, method: str, arg: bytes, sender: Principal) -> bytes: ...

    def submit_raw(self, canister_id: Principal, method: str, arg: bytes, sender: Principal) -> object: ...

    def take_answer(self, ticket: object) -> Answer | None: ...

    def principal(self, who: object) -> Principal: ...


class Sent:
    """A call that was submitted and may not have its answer yet."""

    def __init__(self, door: CallDoor, ticket: object, shape: MethodShape) -> None:
        self._door = door
        self._ticket = ticket
        self._shape = shape

    @property
    def is_answered(self) -> bool:
        return self._door.take_answer(self._ticket) is not None

    def result(self) -> Any:  # of the method's result type, known at run time only
        """Give the result. Raises `Rejected` for a reject, LookupError while there is no answer."""
        answer = self._door.take_answer(self._ticket)
        if answer is None:
            raise LookupError(f"{self._shape.name} has no answer yet: run rounds, or let time pass")
        return self._shape.decode_results(reply_of(answer))


class BoundMethod:
    """One method of a canister; calling it queries where the interface says `query`, else updates."""

    def __init__(self, actor: Actor, shape: MethodShape) -> None:
        self._actor = actor
        self._shape = shape
        self.__name__ = shape.name
        self.__doc__ = shape.doc

    def __call__(self, *args: object) -> Any:  # of the method's result type, known at run time only
        return self.query(*args) if self._shape.func.is_query else self.update(*args)

    def update(self, *args: object) -> Any:  # of the method's result type, known at run time only
        """Call in a round, and run rounds until the answer is there."""
        actor, shape = self._actor, self._shape
        reply = actor.door.call_raw(actor.id, shape.name, shape.encode_args(args), actor.sender)
        return shape.decode_results(reply)

    def query(self, *args: object) -> Any:  # of the method's result type, known at run time only
        """Ask the last durable state."""
        actor, shape = self._actor, self._shape
        reply = actor.door.query_raw(actor.id, shape.name, shape.encode_args(args), actor.sender)
        return shape.decode_results(reply)

    def submit(self, *args: object) -> Sent:
        """Hand in an update without running a round: for calls that shall share one, or that wait for
        time.
        """
        actor, shape = self._actor, self._shape
        ticket = actor.door.submit_raw(actor.id, shape.name, shape.encode_args(args), actor.sender)
        return Sent(actor.door, ticket, shape)


class Actor:
    """A canister: `c.sign("hi")`, or `c["sign"]("hi")` where a name is no Python name.

    `id` is its principal; `as_` gives the same canister called by somebody else.
    """

    def __init__(
        self, door: CallDoor, id: Principal, interface: Interface, sender: Principal = ANONYMOUS
    ) -> None:
        self.door = door
        self.id = id
        self.interface = interface
        self.sender = sender

    def as_(self, who: object) -> Actor:
        """Call as a principal, an identity, or a name such as "ann" (each name is one principal)."""
        return Actor(self.door, self.id, self.interface, self.door.principal(who))

    def __getattr__(self, name: str) -> BoundMethod:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]

    def __getitem__(self, name: str) -> BoundMethod:
        func = self.interface.methods.get(name)
        if func is None:
            raise AttributeError(unknown_method(name, self.interface.methods))
        return BoundMethod(self, shape_of(name, func))

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.interface.methods})

    def __repr__(self) -> str:
        return f"<canister {self.id} with {', '.join(sorted(self.interface.methods))}>"


def reply_of(answer: Answer) -> bytes:
    """Give an answer's reply. Raises `Rejected`."""
    if answer.reply is None:
        raise Rejected(
            answer.reject_code, answer.reject_message, certified=True, error_code=answer.error_code
        )
    return answer.reply


def rejected(reject: Reject) -> Rejected:
    """Give a refusal as a client sees it."""
    return Rejected(int(reject.code), reject.message, certified=False, error_code=reject.error_code)
