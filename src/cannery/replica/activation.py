"""One activation of a canister: the `System` that its program sees.

IC interface specification, "System imports", in the shapes of `ports.System`. Reads and writes of stable
state go to the message's overlay under the canister's own prefix, and every one is counted, since counts
are what is charged. An activation says what its program did (`reply_data`, `rejection`, calls made, lines
logged); what follows from it is decided in `execute` and `calls`.
"""

# The names of arguments are the port's, also where an act is refused.
# ruff: noqa: ARG002

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Final, TypeVar

from cannery.errors import Reject, RejectCode, Trap
from cannery.limits import (
    CALLS_PER_CANISTER_COUNT_MAX,
    CALLS_PER_MESSAGE_COUNT_MAX,
    CALLS_PER_PAIR_COUNT_MAX,
    CERTIFIED_DATA_SIZE_BYTES_MAX,
    EVENTS_PER_MESSAGE_COUNT_MAX,
    LOG_LINES_PER_MESSAGE_COUNT_MAX,
    METHOD_NAME_SIZE_CHARS_MAX,
    RANDOM_SIZE_BYTES_MAX,
    REJECT_TEXT_SIZE_CHARS_MAX,
    STATE_KEY_SIZE_BYTES_MAX,
)
from cannery.ports import CallOutcome, CallRequest, EntryKind, FleetRelease
from cannery.replica import fleets, keys
from cannery.replica.cycles import freezing_limit
from cannery.replica.events import append_event, check_event
from cannery.replica.records import AccountRecord, Callback, CallMessage, encode_record
from cannery.replica.state import MessageOverlay
from cannery.replica.timers import cancel_timer, set_timer

_MAY_WRITE: Final = frozenset(
    (
        EntryKind.INIT,
        EntryKind.PRE_UPGRADE,
        EntryKind.POST_UPGRADE,
        EntryKind.UPDATE,
        EntryKind.CONTINUATION,
        EntryKind.TIMER,
    )
)
_MAY_CALL: Final = frozenset((EntryKind.UPDATE, EntryKind.CONTINUATION, EntryKind.TIMER))
_HAS_SAVED: Final = frozenset((EntryKind.CONTINUATION, EntryKind.TIMER))


R = TypeVar("R")


class Activation:
    """The system of one activation that runs within a message: methods, continuations, timers, hooks.

    `fee` is what the message costs before it runs, `payer` the canister that pays it where this one refuses
    the message; None: nobody.
    """

    __slots__ = (
        "_account",
        "_calls",
        "_continuation_outcome",
        "_get",
        "_may_call",
        "_may_write",
        "_overlay",
        "_prefix",
        "_put",
        "_random_count",
        "_saved",
        "_schema_id",
        "_slots",
        "answering_call",
        "arg",
        "bytes_moved",
        "call_bytes",
        "caller",
        "caller_fleet",
        "calls_made",
        "canister_id",
        "context",
        "cycles_attached",
        "events_emitted",
        "fee",
        "kind",
        "lines",
        "name",
        "now_ns",
        "ordinal",
        "payer",
        "rejection",
        "reply_data",
        "touched",
        "waits",
    )

    def __init__(
        self,
        overlay: MessageOverlay,
        account: AccountRecord,
        canister_id: bytes,
        schema_id: bytes,
        kind: EntryKind,
        name: str,
        arg: bytes,
        caller: bytes,
        *,
        ordinal: int,
        caller_fleet: bytes = b"",
        fee: int = 0,
        payer: bytes | None = None,
        waits: bool = False,
        writes: bool = True,
        context: int = 0,
        cycles_attached: int = 0,
        outcome: CallOutcome | None = None,
        saved: bytes = b"",
    ) -> None:
        self._overlay = overlay
        self._get = overlay.get
        self._put = overlay.put
        self._account = account
        self._prefix = keys.owned(keys.STABLE, canister_id)
        self._schema_id = schema_id
        self._slots: dict[str, bytes] | None = None
        self._may_write = writes and kind in _MAY_WRITE
        self._may_call = writes and kind in _MAY_CALL
        self._continuation_outcome = outcome
        self._saved = saved
        self._random_count = 0
        self._calls: dict[int, bool] | None = None
        self.kind = kind
        self.name = name
        self.arg = arg
        self.caller = caller
        self.caller_fleet = caller_fleet
        self.canister_id = canister_id
        self.now_ns = overlay.state.time_ns
        self.ordinal = ordinal
        self.fee = fee
        self.payer = payer
        self.waits = waits
        self.context = context
        self.cycles_attached = cycles_attached
        self.answering_call = 0
        self.reply_data: bytes | None = None
        self.rejection: tuple[int, str] | None = None
        self.calls_made = 0
        self.call_bytes = 0
        self.events_emitted = 0
        self.lines: list[str] | None = None
        self.touched = 0
        self.bytes_moved = 0

    @property
    def outcome(self) -> CallOutcome:
        """Give what the call brought back."""
        if self._continuation_outcome is None:
            raise Trap("only a continuation has an outcome")
        return self._continuation_outcome

    @property
    def saved(self) -> bytes:
        """Give the value saved for this continuation or timer."""
        if self.kind not in _HAS_SAVED:
            raise Trap("only continuations and timers have a saved value")
        return self._saved

    @property
    def canister_version(self) -> int:
        """Give the canister's version."""
        return self._account.version

    # stable state

    def slot(self, collection: str) -> bytes:
        """Give a collection's key prefix."""
        slots = self._slots
        if slots is None:
            slots = self._slots = self._overlay.slots(self._schema_id)
        return slots[collection]

    def get(self, key: bytes) -> bytes | None:
        """Read a value."""
        self.touched += 1
        return self._get(self._prefix + key)

    def put(self, key: bytes, value: bytes) -> None:
        """Write a value."""
        if not self._may_write:
            raise self._refusal("write")
        if len(key) > STATE_KEY_SIZE_BYTES_MAX:
            raise Trap(f"a key has at most {STATE_KEY_SIZE_BYTES_MAX} bytes, got {len(key)}")
        self.touched += 1
        size_bytes = len(value)
        self.bytes_moved += size_bytes
        full = self._prefix + key
        old = self._get(full)
        if old is None:
            self._account.memory_bytes += len(key) + size_bytes
            self._account.key_count += 1
        else:
            self._account.memory_bytes += size_bytes - len(old)
        self._put(full, value)

    def delete(self, key: bytes) -> bool:
        """Delete a key; say whether it was there."""
        if not self._may_write:
            raise self._refusal("delete")
        self.touched += 1
        full = self._prefix + key
        old = self._get(full)
        if old is None:
            return False
        self._account.memory_bytes -= len(key) + len(old)
        self._account.key_count -= 1
        self._put(full, None)
        return True

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Delete all keys from `start` up to `end`; each one counts as touched."""
        if not self._may_write:
            raise self._refusal("delete")
        prefix_size = len(self._prefix)
        count = freed = 0
        for key, value in self._overlay.scan(*self._bounds(start, end)):
            count += 1
            freed += len(key) - prefix_size + len(value)
        self.touched += count
        self._account.memory_bytes -= freed
        self._account.key_count -= count
        self._overlay.delete_range(*self._bounds(start, end))

    def recall(self, name: bytes, make: Callable[[], R], size_of: Callable[[R], int]) -> R:
        """Make it: what a round gives must not hang on what was asked before."""
        return make()

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield pairs from `start` up to `end`."""
        prefix_size = len(self._prefix)
        low, high = self._bounds(start, end)
        for key, value in self._overlay.scan(low, high, reverse=reverse):
            self.touched += 1
            self.bytes_moved += len(value)
            yield key[prefix_size:], value

    def type_bytes(self, number: bytes) -> bytes | None:
        """Give the encoded Candid type with this number."""
        return self._overlay.type_bytes(number)

    # answers

    def reply(self, data: bytes) -> None:
        """Answer the caller."""
        if not self._is_due("reply"):
            return
        size_bytes_max = self._overlay.state.view.config.reply_size_bytes_max
        if len(data) > size_bytes_max:
            raise Trap(f"a reply has at most {size_bytes_max} bytes, got {len(data)}: answer in pages")
        self.bytes_moved += len(data)
        self.reply_data = data

    def reject(self, message: str, code: int = 4) -> None:
        """Refuse the caller."""
        if not self._is_due("reject"):
            return
        if code not in RejectCode._value2member_map_:
            raise Trap(f"{code} is no reject code: 1 to 6 are")
        self.rejection = (code, message[:REJECT_TEXT_SIZE_CHARS_MAX])

    def answer_later(self, call: int) -> None:
        """Leave the answer to the continuation of a call."""
        if not self._is_due("leave the answer to a call"):
            return
        if self._calls is None or call not in self._calls:
            raise Trap(f"call {call} was not made by this message: it cannot give its answer")
        if not self._calls[call]:
            raise Trap(f"call {call} has no continuation: it cannot give this message's answer")
        self.answering_call = call

    def call(self, request: CallRequest) -> int:
        """Queue a call and give its number; raises `Reject` where it finds no room or no cycles."""
        if not self._may_call:
            raise self._refusal("call another canister")
        overlay, account = self._overlay, self._account
        self._check_call(request)
        self._count_pair(request.callee)
        if not self.context:
            self.context = account.next_number
            account.next_number += 1
        number = account.next_number
        account.next_number += 1
        account.calls_open += 1
        account.queued_bytes += len(request.saved)
        account.cycles -= request.cycles
        callback = Callback(
            self.context,
            request.callee,
            request.method,
            request.continuation,
            request.saved,
            request.cycles,
            self.now_ns,
        )
        overlay.put(keys.numbered(keys.CALLBACKS, self.canister_id, number), encode_record(callback))
        state = overlay.state
        own = state.view.canister(self.canister_id)
        stamp = fleets.stamp_in_round(state, self.canister_id) if own is not None and own.fleet else b""
        overlay.send(
            request.callee,
            self.canister_id,
            CallMessage(self.canister_id, number, request.method, request.arg, request.cycles, stamp),
        )
        if self._calls is None:
            self._calls = {}
        self._calls[number] = request.continuation is not None
        self.calls_made += 1
        self.call_bytes += len(request.arg)
        self.bytes_moved += len(request.arg)
        return number

    def query(self, callee: bytes, method: str, arg: bytes) -> bytes:
        """Refuse: only composite queries query."""
        raise self._refusal("query another canister")

    def accept(self) -> None:
        """Refuse: only `inspect_message` accepts."""
        raise self._refusal("accept a message")

    # cycles

    def cycles_balance(self) -> int:
        """Give the canister's balance."""
        return self._account.cycles

    def cycles_available(self) -> int:
        """Give what is left of the cycles attached to the call."""
        return self.cycles_attached

    def cycles_accept(self, amount_max: int) -> int:
        """Take up to this many of the attached cycles; give what was taken."""
        taken = max(0, min(amount_max, self.cycles_attached))
        self.cycles_attached -= taken
        self._account.cycles += taken
        return taken

    # certified data, chance, time, log

    def certified_data_set(self, data: bytes) -> None:
        """Set the canister's certified data."""
        if not self._may_write:
            raise self._refusal("set certified data")
        if len(data) > CERTIFIED_DATA_SIZE_BYTES_MAX:
            raise Trap(f"certified data has at most {CERTIFIED_DATA_SIZE_BYTES_MAX} bytes, got {len(data)}")
        self._put(keys.owned(keys.CERTIFIED, self.canister_id), data)

    def data_certificate(self) -> bytes | None:
        """Give nothing: certificates are seen by queries."""
        return None

    def random_bytes(self, count: int) -> bytes:
        """Give chance from the block's seed: its own for each activation, equal in each replay."""
        if not 0 <= count <= RANDOM_SIZE_BYTES_MAX:
            raise Trap(f"random_bytes gives 0 to {RANDOM_SIZE_BYTES_MAX} bytes, asked for {count}")
        head = self._overlay.state.block.seed + b"%d:" % self.ordinal + self.canister_id
        parts: list[bytes] = []
        for _ in range((count + 31) // 32):
            parts.append(sha256(head + b":%d" % self._random_count).digest())
            self._random_count += 1
        return b"".join(parts)[:count]

    def log(self, text: str) -> None:
        """Keep a line for the canister's log."""
        if self.lines is None:
            self.lines = []
        if len(self.lines) < LOG_LINES_PER_MESSAGE_COUNT_MAX:
            self.lines.append(text)

    def emit(self, topic: str, payload: bytes) -> int:
        """Emit an event and give its number."""
        if not self._may_write:
            raise self._refusal("emit an event")
        check_event(topic, payload)
        if self.events_emitted >= EVENTS_PER_MESSAGE_COUNT_MAX:
            raise Trap(f"one message emits at most {EVENTS_PER_MESSAGE_COUNT_MAX} events")
        self.events_emitted += 1
        number, dropped = append_event(self._overlay, self._account, self.canister_id, topic, payload)
        self.touched += 1 + dropped
        self.bytes_moved += len(payload)
        return number

    def timer_set(self, method: str, due_ns: int, every_ns: int, saved: bytes) -> int:
        """Set a durable timer and give its number."""
        if not self._may_write:
            raise self._refusal("set a timer")
        self.touched += 2
        return set_timer(self._overlay, self.canister_id, method, due_ns, every_ns, saved)

    def timer_cancel(self, timer: int) -> bool:
        """Cancel a timer; say whether it was there."""
        if not self._may_write:
            raise self._refusal("cancel a timer")
        self.touched += 2
        return cancel_timer(self._overlay, self.canister_id, timer)

    # who

    def is_controller(self, principal: bytes) -> bool:
        """Say whether a principal controls this canister."""
        return self._overlay.is_controller(self.canister_id, principal)

    def is_operator(self, principal: bytes) -> bool:
        """Say whether a principal is one of the node's operators."""
        return self._overlay.is_operator(principal)

    # the fleet

    @property
    def fleet(self) -> bytes:
        """Give this canister's fleet."""
        self.touched += 1
        return fleets.present_fleet(self._get, self._overlay.canister(self.canister_id))

    def fleet_role(self, role: str, principal: bytes) -> bool:
        """Say whether a principal has a role in the fleet."""
        self.touched += 1
        return fleets.has_role(self._get, self._overlay.canister(self.canister_id), role, principal)

    def fleet_value(self, name: str) -> str | None:
        """Give a value of the fleet's configuration."""
        self.touched += 1
        return fleets.value_of(self._get, self._overlay.canister(self.canister_id), name)

    def fleet_config_version(self) -> int:
        """Give the version of the fleet's configuration."""
        self.touched += 1
        return fleets.config_version_of(self._get, self._overlay.canister(self.canister_id))

    def fleet_release(self) -> FleetRelease | None:
        """Give kind and version of the running module."""
        self.touched += 1
        return fleets.release_of(self._get, self._overlay.canister(self.canister_id))

    # within

    def _bounds(self, start: bytes, end: bytes) -> tuple[bytes, bytes]:
        """Give full keys that cannot leave the canister's own state."""
        low = self._prefix + start
        high = self._prefix + end
        return low, high

    def _is_due(self, act: str) -> bool:
        """Say whether an answer counts; a second one is a trap, one that nobody waits for is dropped."""
        if not self.waits:
            return False
        if self.reply_data is not None or self.rejection is not None:
            raise Trap(f"this message is answered already: it cannot {act} again")
        if self.answering_call:
            raise Trap(f"this message left its answer to call {self.answering_call}: it cannot {act} too")
        return True

    def _check_call(self, request: CallRequest) -> None:
        account, overlay = self._account, self._overlay
        if len(request.method) > METHOD_NAME_SIZE_CHARS_MAX:
            raise Trap(f"a method name has at most {METHOD_NAME_SIZE_CHARS_MAX} characters")
        config = overlay.state.view.config
        if len(request.arg) > config.argument_size_bytes_max:
            raise Trap(
                f"an argument has at most {config.argument_size_bytes_max} bytes, got {len(request.arg)}"
            )
        if request.cycles < 0:
            raise Trap("a call cannot carry fewer than 0 cycles")
        if self.calls_made >= CALLS_PER_MESSAGE_COUNT_MAX:
            raise Reject(
                RejectCode.SYS_TRANSIENT,
                f"one message makes at most {CALLS_PER_MESSAGE_COUNT_MAX} calls: go on in the continuation",
            )
        if account.calls_open >= CALLS_PER_CANISTER_COUNT_MAX:
            raise Reject(
                RejectCode.SYS_TRANSIENT,
                f"this canister has {account.calls_open} calls in flight, which is the most: "
                "wait for responses",
            )
        if request.cycles:
            self._check_cycles(request.cycles)

    def _check_cycles(self, cycles: int) -> None:
        account, overlay = self._account, self._overlay
        canister = overlay.canister(self.canister_id)
        limit = 0 if canister is None else freezing_limit(overlay.state.view.config, canister, account)
        if account.cycles - cycles < limit:
            raise Reject(
                RejectCode.SYS_TRANSIENT,
                f"{cycles} cycles cannot be sent: the balance is {account.cycles}, of which {limit} "
                "are kept back by the freezing threshold",
                "IC0207",
            )

    def _count_pair(self, callee: bytes) -> None:
        key = keys.pair_key(self.canister_id, callee)
        stored = self._get(key)
        count = 0 if stored is None else int.from_bytes(stored, "big")
        if count >= CALLS_PER_PAIR_COUNT_MAX:
            raise Reject(
                RejectCode.SYS_TRANSIENT,
                f"{count} calls to this canister are in flight, which is the most: wait for responses",
            )
        self._put(key, (count + 1).to_bytes(2, "big"))

    def _refusal(self, act: str) -> Trap:
        # An update may do everything that a message can; it is refused only where the method is a query's.
        is_query_method = self.kind is EntryKind.UPDATE
        who = (
            "a query method, also when it is called as an update,"
            if is_query_method
            else self.kind.name.lower()
        )
        return Trap(f"{who} cannot {act}")
