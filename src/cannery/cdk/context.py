"""The context of a message, `ctx`: who calls, what time it is, and everything a method may do beside its own
state.

IC interface specification, "System imports", in Python shapes over `ports.System`. Time and chance come from
the block: they are the same in every replay. What an entry point does not allow (a query that sends a call)
is refused by the system with a trap.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn, TypeVar, cast, overload

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.codec import decoder
from cannery.cdk.calls import Call, Outcome, Pending, read_outcome, read_raw_outcome
from cannery.cdk.entries import ContinuationEntry, TimerEntry
from cannery.cdk.forward import FORWARD, encode_answerer
from cannery.cdk.refusal import Refusal
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.waiter import Continued, Waiter
from cannery.errors import Reject, Trap
from cannery.ports import CallOutcome, CallRequest, FleetRelease, System
from cannery.protocol.principal import Principal

T = TypeVar("T")

SECOND_NS = 1_000_000_000


class _Nothing:
    """The type of `NOTHING`: no saved value was given."""


NOTHING = _Nothing()


class Context:
    """One message as its method sees it."""

    __slots__ = ("_answerer", "_continuations", "_system", "_timers")

    def __init__(
        self,
        system: System,
        continuations: Mapping[object, ContinuationEntry],
        timers: Mapping[object, TimerEntry],
        answerer: tuple[str, tuple[ct.Type, ...]] | None,
    ) -> None:
        self._system = system
        self._continuations = continuations
        self._timers = timers
        self._answerer = answerer

    # who and when

    @property
    def caller(self) -> Principal:
        """Who called; in a continuation, who called the method that began it; in a timer, the canister."""
        return Principal(self._system.caller)

    @property
    def id(self) -> Principal:
        """This canister."""
        return Principal(self._system.canister_id)

    @property
    def now_ns(self) -> int:
        """The block's time in nanoseconds since 1970; it rises from round to round."""
        return self._system.now_ns

    @property
    def version(self) -> int:
        """The canister's version: rises with every change of its code or settings."""
        return self._system.canister_version

    @property
    def method_name(self) -> str:
        """The method that was called; in `@inspect_message` the one that is to be called."""
        return self._system.name

    @property
    def arg(self) -> bytes:
        """The message's argument, undecoded."""
        return self._system.arg

    def is_controller(self, principal: Principal) -> bool:
        """Tell whether a principal may change this canister's code and settings."""
        return self._system.is_controller(principal.raw)

    def is_operator(self, principal: Principal) -> bool:
        """Tell whether a principal is an operator of the node."""
        return self._system.is_operator(principal.raw)

    # the fleet

    @property
    def caller_fleet(self) -> Principal | None:
        """The fleet that the calling canister spoke for when it called: the principal of its index.

        None where a user called, and where the canister is in no fleet or was not to be trusted with one.
        """
        return _principal(self._system.caller_fleet)

    @property
    def fleet(self) -> Principal | None:
        """This canister's fleet: the principal of its index; None without one."""
        return _principal(self._system.fleet)

    def has_role(self, role: str, principal: Principal | None = None) -> bool:
        """Tell whether a principal (the caller, unless told) has a role in this canister's fleet."""
        raw = self._system.caller if principal is None else principal.raw
        return self._system.fleet_role(role, raw)

    def fleet_value(self, name: str) -> str | None:
        """Return a value of the fleet's configuration, set at the index; None where there is none."""
        return self._system.fleet_value(name)

    @property
    def fleet_config_version(self) -> int:
        """The version of the fleet's roles and values: rises with every change, 0 before the first."""
        return self._system.fleet_config_version()

    @property
    def release(self) -> FleetRelease | None:
        """Kind and version of the module that runs here, as the fleet's registry has it."""
        return self._system.fleet_release()

    # answers

    def reject(self, message: str) -> NoReturn:
        """End the method with a reject for the caller; what was written before is kept, as on the IC."""
        raise Refusal(message)

    def trap(self, message: str) -> NoReturn:
        """End the method, drop everything it wrote and sent, and reject to the caller."""
        raise Trap(message)

    # calls

    @overload
    def call(self, call: Call[T], *, cycles: int = 0) -> Pending[T]: ...
    @overload
    def call(
        self, call: Call[T], *, then: Callable[..., object], saved: object = NOTHING, cycles: int = 0
    ) -> Pending[
        Any
    ]: ...  # what the continuation answers is compared with the method's results when it is returned
    def call(
        self,
        call: Call[T],
        *,
        then: Callable[..., object] | None = None,
        saved: object = NOTHING,
        cycles: int = 0,
    ) -> Pending[Any]:
        """Send a call; its continuation `then` runs with the outcome and with `saved`.

        Return the result from a method to answer later. Without `then`, the callee's reply (or reject)
        becomes the answer as it is. Raises Reject, which may be caught, where a queue is full or cycles are
        short.
        """
        if then is None:
            return self._forward(call, saved, cycles)
        entry = self._continuation(then)
        data = _saved_bytes(entry.saved, saved, entry.name)
        request = CallRequest(call.callee, call.method, call.arg, cycles, entry.name, data)
        return Pending(self._system.call(request), entry.results)

    def waiter(self, then: Callable[..., object], saved: object = NOTHING) -> Waiter:
        """Make what lets a continuation of this canister go on later (`resume`), as a value to save."""
        entry = self._continuation(then)
        return Waiter(entry.name, _saved_bytes(entry.saved, saved, entry.name))

    def call_for(
        self,
        call: Call[object],
        answerer: Callable[..., object],
        *,
        then: Callable[..., object],
        saved: object,
        cycles: int = 0,
    ) -> Pending[Any]:
        """Send a call like `call`, for a waiter of `answerer` that `then` resumes: it gives the answer."""
        pending = self.call(call, then=then, saved=saved, cycles=cycles)
        return Pending(pending.number, self._continuation(answerer).results)

    @staticmethod
    def resume(
        waiter: Waiter, outcome: Outcome[Any]
    ) -> Continued:  # whatever the waiter's continuation takes
        """Return this from a continuation hinted `-> Continued`: the waiter goes on with this outcome.

        One that may have to call once more first is hinted `-> Continued | Pending[Any]`, and returns the
        call whose continuation resumes the waiter.
        """
        return Continued(waiter, outcome)

    def notify(self, call: Call[object], *, cycles: int = 0) -> None:
        """Send a call whose outcome nobody waits for."""
        self._system.call(CallRequest(call.callee, call.method, call.arg, cycles))

    def query(self, call: Call[T]) -> Outcome[T]:
        """Ask another canister's query on the same committed state; composite queries only."""
        try:
            reply = CallOutcome(self._system.query(call.callee, call.method, call.arg))
        except Reject as reject:
            reply = CallOutcome(b"", int(reject.code), reject.message, 0, reject.error_code)
        # The call's result types were declared as T; without any, T is bytes.
        if call.results is None:
            return cast(Outcome[T], read_raw_outcome(reply))
        return cast(Outcome[T], read_outcome(reply, decoder(call.results)))

    def _continuation(self, then: Callable[..., object]) -> ContinuationEntry:
        entry = self._continuations.get(getattr(then, "__func__", None))
        if entry is None:
            raise TypeError("then= is a method of this canister that is decorated with @continuation")
        return entry

    def _forward(self, call: Call[T], saved: object, cycles: int) -> Pending[T]:
        if saved is not NOTHING:
            raise TypeError("saved= goes with then=: without a continuation nobody reads it")
        if self._answerer is None:
            raise TypeError("nobody waits for an answer here: use ctx.notify, or give then=")
        name, results = self._answerer
        request = CallRequest(call.callee, call.method, call.arg, cycles, FORWARD, encode_answerer(name))
        return Pending(self._system.call(request), results)

    # cycles

    @property
    def balance(self) -> int:
        """This canister's cycles."""
        return self._system.cycles_balance()

    @property
    def available(self) -> int:
        """The cycles that came with this call and are not accepted yet."""
        return self._system.cycles_available()

    def accept(self, amount_max: int) -> int:
        """Accept up to so many of the cycles that came with this call; return how many."""
        return self._system.cycles_accept(amount_max)

    # certified data, chance, log

    def certified_data_set(self, data: bytes) -> None:
        """Set the up to 32 bytes that certificates prove about this canister."""
        self._system.certified_data_set(data)

    def data_certificate(self) -> bytes | None:
        """Return, in a query, the certificate of the certified data."""
        return self._system.data_certificate()

    def random_bytes(self, count: int) -> bytes:
        """Return random bytes out of the block: unknown before it, the same in every replay."""
        if not 0 <= count <= limits.RANDOM_SIZE_BYTES_MAX:
            raise ValueError(f"random_bytes gives 0 to {limits.RANDOM_SIZE_BYTES_MAX} bytes, not {count}")
        return self._system.random_bytes(count)

    def random_below(self, bound: int) -> int:
        """Return a random number from 0 to bound - 1, each equally likely to within 2^-64."""
        if bound <= 0:
            raise ValueError(f"random_below needs a bound above 0, not {bound}")
        count = (bound.bit_length() + 7) // 8 + 8
        return int.from_bytes(self.random_bytes(count), "big") % bound

    def log(self, text: str) -> None:
        """Add a line to the canister's log, which its controllers read; a long text is cut."""
        if len(text) > limits.LOG_TEXT_SIZE_CHARS_MAX:
            text = text[: limits.LOG_TEXT_SIZE_CHARS_MAX - 1] + "…"
        self._system.log(text)

    def emit(self, topic: str, payload: bytes) -> int:
        """Emit an event for whoever watches this topic; return its number among the canister's events.

        It leaves once the round is durable, and not at all where the message traps. The last events are kept
        for those who come back: within 10,000 events and 4 MiB, the oldest go first.
        """
        return self._system.emit(topic, payload)

    # timers

    def timer_set(
        self,
        method: Callable[..., None],
        *,
        after_s: float | None = None,
        at_ns: int | None = None,
        every_s: float | None = None,
        saved: object = NOTHING,
    ) -> int:
        """Run a `@timer` method after or at a time, once or every so many seconds; return the timer's number.

        Timers are durable: they survive restarts and upgrades. `every_s` alone starts after one period.
        """
        entry = self._timers.get(getattr(method, "__func__", None))
        if entry is None:
            raise TypeError("timer_set takes a method of this canister that is decorated with @timer")
        if (after_s is None) == (at_ns is None) and not (after_s is None and every_s is not None):
            raise TypeError("timer_set takes after_s= or at_ns=, or every_s= alone")
        every_ns = 0 if every_s is None else _nanoseconds(every_s)
        if every_s is not None and every_ns <= 0:
            raise ValueError("every_s= is above 0")
        if at_ns is None:
            at_ns = self._system.now_ns + (every_ns if after_s is None else _nanoseconds(after_s))
        data = _saved_bytes(entry.saved, saved, entry.name)
        return self._system.timer_set(entry.name, at_ns, every_ns, data)

    def timer_cancel(self, timer: int) -> bool:
        """Cancel a timer; say whether it was set."""
        return self._system.timer_cancel(timer)


def _principal(raw: bytes) -> Principal | None:
    return Principal(raw) if raw else None


def _nanoseconds(seconds: float) -> int:
    whole = int(seconds)
    return whole * SECOND_NS + int((seconds - whole) * SECOND_NS)


def _saved_bytes(codec: ValueCodec[object] | None, saved: object, name: str) -> bytes:
    if codec is None:
        if saved is not NOTHING:
            raise TypeError(f"{name} has no parameter for a saved value")
        return b""
    if saved is NOTHING:
        raise TypeError(f"{name} needs saved=")
    return codec.write(saved)
