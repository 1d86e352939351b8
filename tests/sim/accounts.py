"""Cycles, memory and queues after every round: kept by each batch's changes, compared with what accounts say.

The law of cycles and the law of memory are those of `tests.replica.laws`, which counts the whole store at the
end of a run; here each changed key changes two sums, so that a round costs what it wrote.
"""

from __future__ import annotations

from cannery.ports import WriteBatch
from cannery.replica import keys, records
from cannery.replica.management.running import STOP_WAITER
from cannery.replica.management.upgrade_batch import UPGRADE_BATCH
from cannery.replica.outcall_records import OUTCALL
from cannery.replica.records import AnsweredMessage, CallMessage, Lane, ResponseMessage
from cannery.replica.view import show
from tests.sim.failure import Broken

_CYCLE_SPACES = frozenset(
    {keys.ACCOUNTS, keys.CONTEXTS, keys.QUEUES, keys.STOPS, keys.UPGRADE_BATCHES, keys.OUTCALLS}
)
_STABLE_SPACES = frozenset({keys.STABLE})
_QUEUED_SPACES = frozenset({keys.QUEUES, keys.CALLBACKS, keys.TIMERS})
_SPACES = _CYCLE_SPACES | _STABLE_SPACES | _QUEUED_SPACES
_UNCHANGED = b"unchanged"


class Accounts:
    """Sums over the state as last written."""

    def __init__(self, ingress_count_max: int, call_count_max: int) -> None:
        self._bounds = {Lane.INGRESS: ingress_count_max, Lane.CALLS: call_count_max}
        self._cycles: dict[bytes, int] = {}
        self._sizes: dict[bytes, int] = {}
        self.held = 0
        self._stable: dict[bytes, int] = {}
        self._queued: dict[bytes, int] = {}
        self._accounts: dict[bytes, bytes] = {}

    def load(self, values: dict[bytes, bytes]) -> None:
        """Start from a whole state."""
        self._cycles.clear()
        self._sizes.clear()
        self._stable.clear()
        self._queued.clear()
        self._accounts.clear()
        self.held = 0
        for key, value in values.items():
            if key[0] in _SPACES:
                self._set(key, value)
                if key[0] == keys.ACCOUNTS:
                    self._accounts[keys.owner_of(key)] = value

    def take(self, batch: WriteBatch) -> None:
        """Take a round's changes in, and hold every law. Raises `Broken`."""
        touched: dict[bytes, None] = {}
        for start, end in batch.deleted_ranges:
            if start[0] in _SPACES:
                for key in [key for key in {**self._cycles, **self._sizes} if start <= key < end]:
                    self._set(key, None)
                    touched[keys.owner_of(key)] = None
        for key, value in batch.puts.items():
            if key[0] in _SPACES:
                self._set(key, value)
                touched[keys.owner_of(key)] = None
        self._check_cycles(batch)
        for owner in touched:
            self._check_account(owner, batch.puts.get(keys.owned(keys.ACCOUNTS, owner), _UNCHANGED))

    def _check_cycles(self, batch: WriteBatch) -> None:
        stored = batch.puts.get(keys.SUBNET_KEY)
        if stored is None:
            return
        subnet = records.SUBNET.decode(stored)
        if subnet.held != self.held:
            raise Broken(
                "cycles are conserved",
                f"{subnet.minted} minted less {subnet.burned} burned, {subnet.cycles_in} come in less "
                f"{subnet.cycles_out} gone out, but {self.held} are held",
            )

    def _check_account(self, owner: bytes, stored: bytes | None) -> None:
        if stored == _UNCHANGED:
            stored = self._accounts.get(owner)
        elif stored is not None:
            self._accounts[owner] = stored
        else:
            self._accounts.pop(owner, None)
        account = records.AccountRecord() if stored is None else records.ACCOUNT.decode(stored)
        found = self._stable.get(owner, 0), self._queued.get(owner, 0)
        if (account.memory_bytes, account.queued_bytes) != found:
            raise Broken(
                "memory accounts equal a full count",
                f"{show(owner)} accounts for {account.memory_bytes} and {account.queued_bytes} bytes, "
                f"a count gives {found[0]} and {found[1]}",
            )
        for lane, bound in self._bounds.items():
            waiting = account.lanes[2 * lane + 1] - account.lanes[2 * lane] if account.lanes else 0
            if waiting > bound:
                raise Broken(
                    "queues are bounded", f"{waiting} messages wait in lane {lane.name} of {show(owner)}"
                )

    def _set(self, key: bytes, value: bytes | None) -> None:
        space = key[0]
        if space in _CYCLE_SPACES:
            self.held -= self._cycles.pop(key, 0)
            if value is not None:
                cycles = _cycles_of(space, value)
                if cycles:
                    self._cycles[key] = cycles
                    self.held += cycles
        if space == keys.STABLE:
            self._count(self._stable, key, value, len(key) - 2 - key[1] + len(value or b""))
        elif space in _QUEUED_SPACES:
            size = 0 if value is None else _queued_size(space, value)
            self._count(self._queued, key, value, size)

    def _count(self, sums: dict[bytes, int], key: bytes, value: bytes | None, size: int) -> None:
        owner = keys.owner_of(key)
        before = self._sizes.pop(key, 0)
        if value is not None:
            self._sizes[key] = size
        else:
            size = 0
        sums[owner] = sums.get(owner, 0) + size - before


def _cycles_of(space: int, value: bytes) -> int:
    if space == keys.ACCOUNTS:
        return records.ACCOUNT.decode(value).cycles
    if space == keys.CONTEXTS:
        return records.CONTEXT.decode(value).cycles_available
    if space == keys.STOPS:
        return STOP_WAITER.decode(value).cycles
    if space == keys.UPGRADE_BATCHES:
        return UPGRADE_BATCH.decode(value).cycles
    if space == keys.OUTCALLS:
        return OUTCALL.decode(value).cycles
    message = records.decode_message(value)
    if isinstance(message, CallMessage | AnsweredMessage):
        return message.cycles
    return message.cycles_refunded if isinstance(message, ResponseMessage) else 0


def _queued_size(space: int, value: bytes) -> int:
    if space == keys.QUEUES:
        return records.message_size_bytes(records.decode_message(value))
    if space == keys.CALLBACKS:
        return len(records.CALLBACK.decode(value).saved)
    return len(records.TIMER.decode(value).saved)
