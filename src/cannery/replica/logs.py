"""Canister logs: the last lines that a canister wrote, and its traps, within a bound of bytes.

IC interface specification, "Canister logs". Lines of a message that trapped are kept, and its trap is the
last of them: a log that loses the reason of a failure would be of little use. Logs count to nobody's memory
size. Who may read them is decided by the management canister.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cannery.limits import LOG_ENTRY_COUNT_MAX
from cannery.ports import StoreReader
from cannery.replica import keys, records
from cannery.replica.overlay import Layer
from cannery.replica.records import AccountRecord, LogEntry
from cannery.replica.state import MessageOverlay, RoundState


def append_lines(
    state: RoundState, canister_id: bytes, lines: Iterable[str], trap: str | None = None
) -> None:
    """Append lines to a canister's log outside of any message, and the text of a trap after them."""
    canister, account = state.view.canister(canister_id), state.account_for_change(canister_id)
    if canister is not None and account is not None:
        limit = canister.settings.log_memory_limit
        _append(state.layer, account, canister_id, limit, state.time_ns, lines)
        if trap is not None:
            _append(state.layer, account, canister_id, limit, state.time_ns, (trap,), is_trap=True)


def append_log(message: MessageOverlay, canister_id: bytes, text: str) -> None:
    """Append a line to a canister's log within a message."""
    canister, account = message.canister(canister_id), message.account(canister_id)
    if canister is not None and account is not None:
        limit = canister.settings.log_memory_limit
        _append(message.layer, account, canister_id, limit, message.state.time_ns, (text,))


def read_log(reader: StoreReader, canister_id: bytes) -> Iterator[tuple[int, LogEntry]]:
    """Yield a canister's log lines with their numbers, oldest first."""
    for key, data in reader.scan(*keys.owned_range(keys.LOGS, canister_id)):
        yield keys.number_of(key), records.LOG.decode(data)


def drop_log(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove a canister's log."""
    message.delete_range(*keys.owned_range(keys.LOGS, canister_id))
    account = message.account(canister_id)
    if account is not None:
        account.log_first, account.log_bytes = account.log_next, 0


def _append(
    layer: Layer,
    account: AccountRecord,
    canister_id: bytes,
    limit_bytes: int,
    time_ns: int,
    lines: Iterable[str],
    *,
    is_trap: bool = False,
) -> None:
    for line in lines:
        content = line.encode("utf-8", "replace")[:limit_bytes]
        key = keys.numbered(keys.LOGS, canister_id, account.log_next)
        layer.put(key, records.encode_record(LogEntry(time_ns, content, is_trap)))
        account.log_next += 1
        account.log_bytes += len(content)
        while account.log_bytes > limit_bytes or account.log_next - account.log_first > LOG_ENTRY_COUNT_MAX:
            oldest = keys.numbered(keys.LOGS, canister_id, account.log_first)
            data = layer.get(oldest)
            if data is not None:
                account.log_bytes -= len(records.LOG.decode(data).content)
                layer.delete(oldest)
            account.log_first += 1
