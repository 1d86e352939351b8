"""A small, honest `System` in memory: one canister's state and one activation at a time, for tests of
programs.

`MemoryCanister` keeps state between activations, `MemorySystem` is one activation: its writes go to an
overlay that `run` keeps where the program returns and drops where it raises. No rounds, no scheduling, no
charges: the state machine has those. Everything that would go out (calls, timers, answers) is kept as a value
to look at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

from cannery.errors import Reject, RejectCode, Trap
from cannery.ports import CallOutcome, CallRequest, EntryKind, FleetRelease, Program

R = TypeVar("R")
CANISTER = bytes.fromhex("00000000001000000101")
CALLER = b"\x04"
QUERIES = frozenset({EntryKind.QUERY, EntryKind.COMPOSITE_QUERY, EntryKind.INSPECT})


@dataclass
class Timer:
    """A timer that was set."""

    method: str
    due_ns: int
    every_ns: int
    saved: bytes


@dataclass
class MemoryCanister:
    """What lasts between activations."""

    canister_id: bytes = CANISTER
    state: dict[bytes, bytes] = field(default_factory=dict)
    slots: dict[str, bytes] = field(default_factory=dict)
    types: dict[bytes, bytes] = field(default_factory=dict)
    timers: dict[int, Timer] = field(default_factory=dict)
    calls: dict[int, CallRequest] = field(default_factory=dict)
    log_lines: list[str] = field(default_factory=list)
    events: list[tuple[str, bytes]] = field(default_factory=list)
    certified_data: bytes = b""
    cycles: int = 10**15
    now_ns: int = 1_700_000_000_000_000_000
    next_number: int = 1
    controllers: frozenset[bytes] = frozenset()
    operators: frozenset[bytes] = frozenset()
    fleet: bytes = b""
    roles: frozenset[tuple[str, bytes]] = frozenset()
    fleet_values: dict[str, str] = field(default_factory=dict)
    fleet_config_version: int = 0
    release: FleetRelease | None = None
    queue_size_max: int = 500
    schema: object = None

    def learn(self, program: object) -> None:
        """Take over slots and types of a `PythonProgram`, as an install does."""
        from cannery.cdk.interface import manifest_of
        from cannery.cdk.schema import CollectionState, Schema, plan_schema

        manifest = manifest_of(program.description, "test:Test")  # type: ignore[attr-defined]
        schema = getattr(self, "schema", None) or Schema(())
        schema = plan_schema(schema, manifest, self.types.get)
        assert all(isinstance(c, CollectionState) for c in schema.collections)
        self.schema = schema
        self.slots = schema.slots()
        self.types.update(manifest.numbered_types())


@dataclass
class MemorySystem:
    """One activation."""

    canister: MemoryCanister
    kind: EntryKind
    name: str = ""
    arg: bytes = b"DIDL\x00\x00"
    caller: bytes = CALLER
    caller_fleet: bytes = b""
    outcome: CallOutcome = field(default_factory=CallOutcome)
    saved: bytes = b""
    available: int = 0
    query_answers: dict[tuple[bytes, str], bytes] = field(default_factory=dict)
    overlay: dict[bytes, bytes | None] = field(default_factory=dict)
    calls: dict[int, CallRequest] = field(default_factory=dict)
    timers: dict[int, Timer | None] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    emitted: list[tuple[str, bytes]] = field(default_factory=list)
    certified: bytes | None = None
    replied: bytes | None = None
    rejected: tuple[int, str] | None = None
    answered_by: int | None = None
    accepted: bool = False
    accepted_cycles: int = 0
    numbers: int = 0
    chance: int = 0

    @property
    def canister_id(self) -> bytes:
        return self.canister.canister_id

    @property
    def now_ns(self) -> int:
        return self.canister.now_ns

    @property
    def canister_version(self) -> int:
        return 1

    # state

    def slot(self, collection: str) -> bytes:
        return self.canister.slots[collection]

    def get(self, key: bytes) -> bytes | None:
        if key in self.overlay:
            return self.overlay[key]
        return self.canister.state.get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._refuse_in_query("put")
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        self.overlay[key] = value

    def delete(self, key: bytes) -> bool:
        self._refuse_in_query("delete")
        found = self.get(key) is not None
        self.overlay[key] = None
        return found

    def delete_range(self, start: bytes, end: bytes) -> None:
        self._refuse_in_query("delete_range")
        for key, _ in list(self.scan(start, end)):
            self.overlay[key] = None

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        merged = {**self.canister.state, **self.overlay}
        for key in sorted((k for k in merged if start <= k < end), reverse=reverse):
            value = merged[key]
            if value is not None:
                yield key, value

    def type_bytes(self, number: bytes) -> bytes | None:
        return self.canister.types.get(number)

    # answers and calls

    def reply(self, data: bytes) -> None:
        self.replied = data

    def reject(self, message: str, code: int = 4) -> None:
        self.rejected = (code, message)

    def call(self, request: CallRequest) -> int:
        self._refuse_in_query("call")
        if len(self.calls) + len(self.canister.calls) >= self.canister.queue_size_max:
            raise Reject(RejectCode.SYS_TRANSIENT, "the output queue is full")
        number = self._number()
        self.calls[number] = request
        return number

    def answer_later(self, call: int) -> None:
        self.answered_by = call

    def query(self, callee: bytes, method: str, arg: bytes) -> bytes:
        if self.kind != EntryKind.COMPOSITE_QUERY:
            raise Trap("only a composite query asks other queries")
        answer = self.query_answers.get((callee, method))
        if answer is None:
            raise Reject(RejectCode.DESTINATION_INVALID, "no such canister")
        return answer

    def accept(self) -> None:
        self.accepted = True

    def cycles_balance(self) -> int:
        return self.canister.cycles

    def cycles_available(self) -> int:
        return self.available

    def cycles_accept(self, amount_max: int) -> int:
        amount = min(amount_max, self.available)
        self.available -= amount
        self.accepted_cycles += amount
        return amount

    # the rest

    def certified_data_set(self, data: bytes) -> None:
        self.certified = data

    def recall(self, name: bytes, make: Callable[[], R], size_of: Callable[[R], int]) -> R:
        made = make()
        assert name
        assert size_of(made) >= 0
        return made

    def data_certificate(self) -> bytes | None:
        return b"certificate" if self.kind == EntryKind.QUERY else None

    def random_bytes(self, count: int) -> bytes:
        self.chance += 1
        return hashlib.shake_256(self.chance.to_bytes(8, "big")).digest(count)

    def log(self, text: str) -> None:
        self.lines.append(text)

    def emit(self, topic: str, payload: bytes) -> int:
        self._refuse_in_query("emit")
        self.emitted.append((topic, payload))
        return len(self.canister.events) + len(self.emitted) - 1

    def timer_set(self, method: str, due_ns: int, every_ns: int, saved: bytes) -> int:
        self._refuse_in_query("timer_set")
        number = self._number()
        self.timers[number] = Timer(method, due_ns, every_ns, saved)
        return number

    def timer_cancel(self, timer: int) -> bool:
        found = self.timers.get(timer, self.canister.timers.get(timer)) is not None
        self.timers[timer] = None
        return found

    def is_controller(self, principal: bytes) -> bool:
        return principal in self.canister.controllers

    def is_operator(self, principal: bytes) -> bool:
        return principal in self.canister.operators

    # the fleet

    @property
    def fleet(self) -> bytes:
        return self.canister.fleet

    def fleet_role(self, role: str, principal: bytes) -> bool:
        return bool(self.canister.fleet) and (role, principal) in self.canister.roles

    def fleet_value(self, name: str) -> str | None:
        return self.canister.fleet_values.get(name)

    def fleet_config_version(self) -> int:
        return self.canister.fleet_config_version

    def fleet_release(self) -> FleetRelease | None:
        return self.canister.release

    # keeping what was done

    def run(self, program: Program) -> MemorySystem:
        """Run the program; keep its effects where it returns."""
        program.run(self)
        if self.kind not in QUERIES:
            self._keep()
        return self

    def _keep(self) -> None:
        for key, value in self.overlay.items():
            if value is None:
                self.canister.state.pop(key, None)
            else:
                self.canister.state[key] = value
        for number, timer in self.timers.items():
            if timer is None:
                self.canister.timers.pop(number, None)
            else:
                self.canister.timers[number] = timer
        self.canister.calls.update(self.calls)
        self.canister.log_lines.extend(self.lines)
        self.canister.events.extend(self.emitted)
        self.canister.next_number += self.numbers
        self.canister.cycles += self.accepted_cycles
        if self.certified is not None:
            self.canister.certified_data = self.certified

    def _number(self) -> int:
        self.numbers += 1
        return self.canister.next_number + self.numbers - 1

    def _refuse_in_query(self, what: str) -> None:
        if self.kind in QUERIES:
            raise Trap(f"a query does not {what}")
