"""The doors between floors, as protocols: store, clock, entropy, programs and the system that a program sees.

Everything above is written against these; `node` holds the real sides, `testing` their fault-injecting twins.
`System` follows the System API of the IC interface specification ("WebAssembly System API") in Python shapes.
Nothing here does anything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol, TypeVar

# --- store


R = TypeVar("R")


@dataclass(slots=True)
class WriteBatch:
    """Changes that become visible together: ranges are deleted first, then `puts` apply (None deletes the
    key).
    """

    puts: dict[bytes, bytes | None] = field(default_factory=dict)
    deleted_ranges: list[tuple[bytes, bytes]] = field(default_factory=list)


class StoreReader(Protocol):
    """Ordered bytes to bytes."""

    def get(self, key: bytes) -> bytes | None: ...

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]: ...

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs with start <= key < end, in key order or backwards."""
        ...


class StoreSnapshot(StoreReader, Protocol):
    """A fixed state of the store; later writes do not show."""

    def close(self) -> None: ...


class Store(StoreReader, Protocol):
    """One subnet's store. `write` is visible at once and durable only after a later `sync` has returned."""

    def write(self, batch: WriteBatch) -> None: ...

    def sync(self) -> None:
        """Make every earlier write durable. May be called from another thread than `write`."""
        ...

    def snapshot(self) -> StoreSnapshot: ...

    def checkpoint(self, path: str) -> None: ...

    def close(self) -> None: ...


# --- time and chance


class Clock(Protocol):
    """Wall time in nanoseconds since 1970."""

    def now_ns(self) -> int: ...


class Entropy(Protocol):
    """True chance; only the shell asks for it, and only blocks and keys receive it."""

    def random_bytes(self, count: int) -> bytes: ...


# --- programs


class EntryKind(IntEnum):
    """The way into a program."""

    INIT = 1
    PRE_UPGRADE = 2
    POST_UPGRADE = 3
    HEALTH = 4
    INSPECT = 5
    UPDATE = 6
    QUERY = 7
    COMPOSITE_QUERY = 8
    CONTINUATION = 9
    TIMER = 10


@dataclass(frozen=True, slots=True)
class CallRequest:
    """A call that a program asks for. `continuation` None means: nobody waits for the response.

    `saved` is the value kept for the continuation: an 8-byte type number, then the value's Candid bytes; or
    empty.
    """

    callee: bytes
    method: str
    arg: bytes
    cycles: int = 0
    continuation: str | None = None
    saved: bytes = b""


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What came back from a call: a reply (`reject_code` 0), or a reject with its text and perhaps its error
    code.
    """

    reply: bytes = b""
    reject_code: int = 0
    reject_message: str = ""
    cycles_refunded: int = 0
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class FleetRelease:
    """A module as its fleet's registry knows it: the kind of canister, and the version."""

    kind: str
    version: int


class System(Protocol):
    """One activation of a canister, as its program sees it. Principals are raw bytes here.

    A method that is not allowed for the entry kind raises `Trap`. Reads and writes go to the message's
    overlay and are kept only where the program returns without raising.
    """

    @property
    def kind(self) -> EntryKind: ...
    @property
    def name(self) -> str:
        """Method, continuation or timer method by name; empty for hooks."""
        ...

    @property
    def arg(self) -> bytes: ...
    @property
    def caller(self) -> bytes: ...
    @property
    def canister_id(self) -> bytes: ...
    @property
    def now_ns(self) -> int: ...
    @property
    def outcome(self) -> CallOutcome:
        """Continuations only: what the call brought back."""
        ...

    @property
    def saved(self) -> bytes:
        """Continuations and timers: the saved value (8-byte type number, then Candid bytes), or empty."""
        ...

    # stable state: keys are relative to the canister; the first part is a collection's slot
    def slot(self, collection: str) -> bytes:
        """Give the key prefix of a collection by attribute name."""
        ...

    def get(self, key: bytes) -> bytes | None: ...
    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> bool:
        """Delete a key; say whether it was there."""
        ...

    def delete_range(self, start: bytes, end: bytes) -> None: ...
    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]: ...
    def recall(self, name: bytes, make: Callable[[], R], size_of: Callable[[R], int]) -> R:
        """Give what `make` makes of this canister's stable state and of nothing else.

        A query may get what an earlier query made under the same name, as long as nothing that it read has
        changed; `size_of` says how many bytes it holds. It must be immutable.
        """
        ...

    def type_bytes(self, number: bytes) -> bytes | None:
        """Give the encoded Candid type that has this 8-byte number, if a module ever declared it."""
        ...

    # answers
    def reply(self, data: bytes) -> None: ...
    def reject(self, message: str, code: int = 4) -> None: ...
    def call(self, request: CallRequest) -> int:
        """Queue a call and return its number. Raises `Reject` where a queue is full or cycles are short."""
        ...

    def answer_later(self, call: int) -> None:
        """Leave the answer to this message's caller to the continuation of `call`."""
        ...

    def query(self, callee: bytes, method: str, arg: bytes) -> bytes:
        """Composite queries only: run another canister's query on the same snapshot. Raises `Reject`."""
        ...

    def accept(self) -> None:
        """`INSPECT` only: let the message in."""
        ...

    # cycles
    def cycles_balance(self) -> int: ...
    def cycles_available(self) -> int: ...
    def cycles_accept(self, amount_max: int) -> int: ...

    # certified data, chance, time, log
    def certified_data_set(self, data: bytes) -> None: ...
    def data_certificate(self) -> bytes | None: ...
    def random_bytes(self, count: int) -> bytes: ...
    def log(self, text: str) -> None: ...
    def emit(self, topic: str, payload: bytes) -> int:
        """Emit an event for whoever watches the topic; give its number."""
        ...

    def timer_set(self, method: str, due_ns: int, every_ns: int, saved: bytes) -> int:
        """Set a durable timer; `every_ns` 0 means once. Return its number."""
        ...

    def timer_cancel(self, timer: int) -> bool: ...

    # who
    def is_controller(self, principal: bytes) -> bool: ...
    def is_operator(self, principal: bytes) -> bool: ...
    @property
    def canister_version(self) -> int: ...

    # the fleet: principals of an index, empty for none
    @property
    def caller_fleet(self) -> bytes:
        """Give the fleet that the calling canister spoke for when it called."""
        ...

    @property
    def fleet(self) -> bytes:
        """Give this canister's own fleet."""
        ...

    def fleet_role(self, role: str, principal: bytes) -> bool:
        """Say whether a principal has a role in this canister's fleet."""
        ...

    def fleet_value(self, name: str) -> str | None: ...
    def fleet_config_version(self) -> int:
        """Give the version of the fleet's roles and values; 0 before the first change."""
        ...

    def fleet_release(self) -> FleetRelease | None:
        """Give what this canister runs, as its fleet's registry knows it."""
        ...


class Program(Protocol):
    """The loaded code of one module. It keeps nothing between runs."""

    def run(self, system: System) -> None:
        """Run one activation to its end. Whatever it raises is a trap."""
        ...


class Programs(Protocol):
    """Where loaded programs come from. Bounded cache; loading is pure: the same module gives the same
    program.
    """

    def load(self, module_hash: bytes, module: bytes) -> Program:
        """Load a module's file. Raises `Reject` where it cannot be loaded, with the reason."""
        ...

    def loaded(self, module_hash: bytes) -> Program | None: ...


class Stopped(BaseException):
    """Raised into a running program by the watch: it ran too long. Not an `Exception`, so that authors do not
    catch it.
    """


class Watch(Protocol):
    """Watches one activation at a time: marks what runs (so that a killed process leaves the culprit's name
    behind).
    """

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        """Note that the message or query with this 32-byte identity runs now; `Stopped` is raised past the
        limit.
        """
        ...

    def end(self) -> bool:
        """Note the activation's end; say whether `Stopped` was raised into it, caught there or not."""
        ...
