"""Drive one canister class on a `MemoryCanister` by Python values: what most tests of the kit do."""

from __future__ import annotations

from cannery.candid.codec import decoder, encoder
from cannery.cdk.declare import Canister
from cannery.cdk.entries import MethodEntry
from cannery.cdk.program import PythonProgram
from cannery.errors import Trap
from cannery.ports import CallOutcome, EntryKind
from tests.cdk.memory_system import CALLER, MemoryCanister, MemorySystem


class Rejected(Exception):
    """The canister answered with a reject."""


class Driver:
    """A canister and its program."""

    def __init__(self, cls: type[Canister], canister: MemoryCanister | None = None) -> None:
        self.program = PythonProgram(cls)
        self.canister = canister or MemoryCanister()
        self.canister.learn(self.program)
        self.last: MemorySystem | None = None

    def activation(self, kind: EntryKind, name: str = "", **facts: object) -> MemorySystem:
        """Run one activation and keep what it did."""
        self.last = MemorySystem(self.canister, kind, name, **facts)  # type: ignore[arg-type]
        return self.last.run(self.program)

    def entry(self, name: str) -> MethodEntry:
        return self.program.description.methods[name]

    def update(self, name: str, *args: object, caller: bytes = CALLER, **facts: object) -> object:
        return self._call(EntryKind.UPDATE, name, args, caller, facts)

    def query(self, name: str, *args: object, caller: bytes = CALLER, **facts: object) -> object:
        role = self.entry(name).role
        kind = EntryKind.QUERY if role == "query" else EntryKind.COMPOSITE_QUERY
        return self._call(kind, name, args, caller, facts)

    def respond(self, number: int, *values: object, types: tuple[object, ...] = (), code: int = 0) -> object:
        """Answer a call in flight; return the canister's own answer to whoever waits."""
        from cannery.candid.python import type_of

        reply = b"" if code else encoder(tuple(type_of(t) for t in types))(values)
        return self.respond_raw(number, CallOutcome(reply, code, "no" if code else ""))

    def respond_raw(self, number: int, outcome: CallOutcome) -> MemorySystem:
        request = self.canister.calls.pop(number)
        assert request.continuation is not None
        return self.activation(
            EntryKind.CONTINUATION,
            request.continuation,
            outcome=outcome,
            saved=request.saved,
            caller=self.canister.canister_id,
        )

    def fire(self) -> bool:
        """Run the timer that is due first, at its time; say whether there was one."""
        if not self.canister.timers:
            return False
        number = min(self.canister.timers, key=lambda n: (self.canister.timers[n].due_ns, n))
        timer = self.canister.timers.pop(number)
        self.canister.now_ns = max(self.canister.now_ns, timer.due_ns)
        self.activation(EntryKind.TIMER, timer.method, saved=timer.saved, caller=self.canister.canister_id)
        return True

    def _call(
        self, kind: EntryKind, name: str, args: tuple[object, ...], caller: bytes, facts: dict[str, object]
    ) -> object:
        entry = self.entry(name)
        system = self.activation(kind, name, arg=encoder(entry.args)(args), caller=caller, **facts)
        if system.rejected is not None:
            raise Rejected(system.rejected[1])
        if system.answered_by is not None:
            return system.answered_by
        if system.replied is None:
            raise Trap("no answer")
        values = decoder(entry.results)(system.replied)
        return values[0] if len(values) == 1 else values or None
