"""The system of activations that only read: queries, composite queries, `inspect_message`.

They run on a committed state and keep nothing: every act that would change something is a trap. Time is the
node's, since nothing of theirs enters the state. IC interface specification, "Query methods", "Ingress
message inspection".
"""

# The names of arguments are the port's, also where an act is refused.
# ruff: noqa: ARG002

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

from cannery.errors import RejectCode, Trap
from cannery.limits import REJECT_TEXT_SIZE_CHARS_MAX
from cannery.ports import CallOutcome, CallRequest, EntryKind, FleetRelease
from cannery.replica import fleets, keys
from cannery.replica.overlay import READ
from cannery.replica.view import StateView

R = TypeVar("R")
Certify = Callable[[bytes, bytes], bytes]
QueryOther = Callable[[bytes, bytes, str, bytes], bytes]


class Memory(Protocol):
    """What queries have made of the last durable state, kept by a shell for those that follow."""

    def recall(self, name: bytes) -> object | None: ...
    def remember(self, name: bytes, made: object, size_bytes: int, read: set[tuple[bytes, bytes]]) -> None:
        """Keep it until a key that was read, or a key of a range that was read, is written: `read` has keys
        with an empty end, and ranges with their ends.
        """
        ...


class ReadActivation:
    """One read-only activation over a view."""

    __slots__ = (
        "_certify",
        "_get",
        "_memory",
        "_noted",
        "_prefix",
        "_query_other",
        "_slots",
        "_view",
        "accepted",
        "arg",
        "caller",
        "caller_fleet",
        "canister_id",
        "kind",
        "name",
        "now_ns",
        "rejection",
        "reply_data",
    )

    def __init__(
        self,
        view: StateView,
        canister_id: bytes,
        kind: EntryKind,
        name: str,
        arg: bytes,
        caller: bytes,
        now_ns: int,
        *,
        caller_fleet: bytes = b"",
        certify: Certify | None = None,
        query_other: QueryOther | None = None,
        memory: Memory | None = None,
    ) -> None:
        self._view = view
        self._get = view.reader.get
        self._prefix = keys.owned(keys.STABLE, canister_id)
        self._slots: dict[str, bytes] | None = None
        self._certify = certify
        self._query_other = query_other
        self._memory = memory
        self._noted: set[tuple[bytes, bytes]] | None = None
        self.kind = kind
        self.name = name
        self.arg = arg
        self.caller = caller
        self.caller_fleet = caller_fleet
        self.canister_id = canister_id
        self.now_ns = now_ns
        self.accepted = False
        self.reply_data: bytes | None = None
        self.rejection: tuple[int, str] | None = None

    @property
    def outcome(self) -> CallOutcome:
        """Refuse: only continuations have an outcome."""
        raise Trap("only a continuation has an outcome")

    @property
    def saved(self) -> bytes:
        """Refuse: only continuations and timers have a saved value."""
        raise Trap("only continuations and timers have a saved value")

    @property
    def canister_version(self) -> int:
        """Give the canister's version."""
        account = self._view.account(self.canister_id)
        return 0 if account is None else account.version

    # stable state

    def slot(self, collection: str) -> bytes:
        """Give a collection's key prefix."""
        slots = self._slots
        if slots is None:
            canister = self._view.canister(self.canister_id)
            slots = {} if canister is None else self._view.slots(canister.schema_id)
            self._slots = slots
        return slots[collection]

    def get(self, key: bytes) -> bytes | None:
        """Read a value."""
        full = self._prefix + key
        if self._noted is not None:
            self._noted.add((full, b""))
        return self._get(full)

    def recall(self, name: bytes, make: Callable[[], R], size_of: Callable[[R], int]) -> R:
        """Give what `make` makes, or what an earlier query made while nothing that it read has changed."""
        memory = self._memory
        if memory is None or self._noted is not None:
            return make()
        full = self._prefix + name
        found = memory.recall(full)
        if found is not None:
            # Each name has one maker, and so one type.
            return typing.cast(R, found)
        # Another module may make something else of the same state.
        self._noted = {(keys.owned(keys.CANISTERS, self.canister_id), b"")}
        try:
            made = make()
        finally:
            noted, self._noted = self._noted, None
        memory.remember(full, made, size_of(made), noted)
        return made

    def put(self, key: bytes, value: bytes) -> None:
        """Refuse: reads keep nothing."""
        raise self._refusal("write")

    def delete(self, key: bytes) -> bool:
        """Refuse: reads keep nothing."""
        raise self._refusal("delete")

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Refuse: reads keep nothing."""
        raise self._refusal("delete")

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Give pairs from `start` up to `end`."""
        prefix = self._prefix
        size = len(prefix)
        low, high = prefix + start, prefix + end
        if self._noted is not None:
            self._noted.add((low, high))
        found = self._view.reader.scan(low, high, reverse=reverse)
        if type(found) is READ:
            return iter([(key[size:], value) for key, value in found])
        return ((key[size:], value) for key, value in found)

    def type_bytes(self, number: bytes) -> bytes | None:
        """Give the encoded Candid type with this number."""
        return self._view.type_bytes(number)

    # answers

    def reply(self, data: bytes) -> None:
        """Answer the query."""
        self._check_unanswered("reply")
        size_bytes_max = self._view.config.reply_size_bytes_max
        if len(data) > size_bytes_max:
            raise Trap(f"a reply has at most {size_bytes_max} bytes, got {len(data)}: answer in pages")
        self.reply_data = data

    def reject(self, message: str, code: int = 4) -> None:
        """Refuse the query, or the inspected message with this reason."""
        if self.kind is not EntryKind.INSPECT:
            self._check_unanswered("reject")
        if code not in RejectCode._value2member_map_:
            raise Trap(f"{code} is no reject code: 1 to 6 are")
        self.rejection = (code, message[:REJECT_TEXT_SIZE_CHARS_MAX])

    def call(self, request: CallRequest) -> int:
        """Refuse: reads call nobody."""
        raise self._refusal("call another canister")

    def answer_later(self, call: int) -> None:
        """Refuse: reads are answered at once."""
        raise self._refusal("answer later")

    def query(self, callee: bytes, method: str, arg: bytes) -> bytes:
        """Run another canister's query on the same state."""
        if self.kind is not EntryKind.COMPOSITE_QUERY or self._query_other is None:
            raise self._refusal("query another canister")
        return self._query_other(self.canister_id, callee, method, arg)

    def accept(self) -> None:
        """Let the inspected message in."""
        if self.kind is not EntryKind.INSPECT:
            raise self._refusal("accept a message")
        self.accepted = True

    # cycles

    def cycles_balance(self) -> int:
        """Give the canister's balance."""
        account = self._view.account(self.canister_id)
        return 0 if account is None else account.cycles

    def cycles_available(self) -> int:
        """Give 0: reads carry no cycles."""
        return 0

    def cycles_accept(self, amount_max: int) -> int:
        """Refuse: reads carry no cycles."""
        raise self._refusal("accept cycles")

    # certified data, chance, time, log

    def certified_data_set(self, data: bytes) -> None:
        """Refuse: reads keep nothing."""
        raise self._refusal("set certified data")

    def data_certificate(self) -> bytes | None:
        """Give a certificate of the canister's certified data, where it has any."""
        if self._certify is None or self.kind is EntryKind.INSPECT:
            return None
        data = self._get(keys.owned(keys.CERTIFIED, self.canister_id))
        return self._certify(self.canister_id, b"" if data is None else data)

    def random_bytes(self, count: int) -> bytes:
        """Refuse: chance comes from a block, and a query is in none."""
        raise self._refusal("draw random bytes")

    def log(self, text: str) -> None:
        """Drop the line: a log is state, and reads keep nothing."""

    def emit(self, topic: str, payload: bytes) -> int:
        """Refuse: reads keep nothing."""
        raise self._refusal("emit an event")

    def timer_set(self, method: str, due_ns: int, every_ns: int, saved: bytes) -> int:
        """Refuse: reads keep nothing."""
        raise self._refusal("set a timer")

    def timer_cancel(self, timer: int) -> bool:
        """Refuse: reads keep nothing."""
        raise self._refusal("cancel a timer")

    # who

    def is_controller(self, principal: bytes) -> bool:
        """Say whether a principal controls this canister."""
        return self._view.is_controller(self.canister_id, principal)

    def is_operator(self, principal: bytes) -> bool:
        """Say whether a principal is one of the node's operators."""
        return self._view.is_operator(principal)

    # the fleet

    @property
    def fleet(self) -> bytes:
        """Give this canister's fleet."""
        return fleets.present_fleet(self._get, self._view.canister(self.canister_id))

    def fleet_role(self, role: str, principal: bytes) -> bool:
        """Say whether a principal has a role in the fleet."""
        return fleets.has_role(self._get, self._view.canister(self.canister_id), role, principal)

    def fleet_value(self, name: str) -> str | None:
        """Give a value of the fleet's configuration."""
        return fleets.value_of(self._get, self._view.canister(self.canister_id), name)

    def fleet_config_version(self) -> int:
        """Give the version of the fleet's configuration."""
        return fleets.config_version_of(self._get, self._view.canister(self.canister_id))

    def fleet_release(self) -> FleetRelease | None:
        """Give kind and version of the running module."""
        return fleets.release_of(self._get, self._view.canister(self.canister_id))

    def _check_unanswered(self, act: str) -> None:
        if self.kind is EntryKind.INSPECT:
            raise self._refusal(act)
        if self.reply_data is not None or self.rejection is not None:
            raise Trap(f"this query is answered already: it cannot {act} again")

    def _refusal(self, act: str) -> Trap:
        return Trap(f"{self.kind.name.lower().replace('_', ' ')} cannot {act}")
