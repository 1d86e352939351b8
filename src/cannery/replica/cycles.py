"""Cycles: minting, burning, storage over time, and the line under which a canister is frozen.

Law: minted - burned == balances + cycles of waiting messages + cycles still attached to open calls, to stops
and to batches of upgrades under way, after every round. Charges come from counts in the block's own terms
(messages, bytes, keys, calls, block time), never from wall time. Prices are zero by default, and then nothing
here moves. IC interface specification, "Canister cycles".
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import CYCLES_MINTED_MAX, RESPONSE_PRICED_SIZE_BYTES_MAX
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.replica.prices import FREE
from cannery.replica.records import AccountRecord, CanisterRecord
from cannery.replica.state import MessageOverlay, RoundState
from cannery.replica.timers import unpark_timers
from cannery.replica.view import show

_GIB_SECOND = (1 << 30) * 1_000_000_000
_DAY_S = 86_400


def priced_size_bytes(account: AccountRecord) -> int:
    """Give the bytes that cost storage: all but what waits in queues, which strangers could fill."""
    return account.memory_bytes + account.chunk_bytes + account.snapshot_bytes + account.event_bytes


def storage_due(
    config: ReplicaConfig, account: AccountRecord, now_ns: int, priced_from_ns: int = 0
) -> tuple[int, int]:
    """Give what storage has cost since it was last charged, and the rest below one cycle.

    No time before `priced_from_ns` is charged: the present prices were not known then.
    """
    price = config.prices.storage_per_gib_second
    if not price:
        return 0, account.charged_rest
    elapsed_ns = now_ns - max(account.charged_ns, priced_from_ns)
    if elapsed_ns <= 0:
        return 0, account.charged_rest
    return divmod(priced_size_bytes(account) * elapsed_ns * price + account.charged_rest, _GIB_SECOND)


def settle_account(state: RoundState, account: AccountRecord) -> None:
    """Charge storage up to the block's time. `account` is the round's own."""
    config = state.view.config
    if not config.prices.storage_per_gib_second:
        return
    due, rest = storage_due(config, account, state.time_ns, state.subnet.priced_from_ns)
    account.charged_ns, account.charged_rest = state.time_ns, rest
    _burn(state, account, due)


def charge(state: RoundState, canister_id: bytes, amount: int) -> None:
    """Charge a canister for a message that has run; what it does not have is let off."""
    if amount:
        account = state.account_for_change(canister_id)
        if account is not None:
            _burn(state, account, amount)


def _burn(state: RoundState, account: AccountRecord, amount: int) -> None:
    taken = min(amount, account.cycles)
    account.cycles -= taken
    account.burned += taken
    state.subnet.burned += taken


def burn_refund(state: RoundState, amount: int) -> None:
    """Burn cycles whose owner is gone."""
    state.subnet.burned += amount


def credit_account(state: RoundState, canister_id: bytes, amount: int) -> bool:
    """Give cycles back to a canister outside of any message; False where it is gone and they are burned."""
    account = state.account_for_change(canister_id)
    if account is None:
        burn_refund(state, amount)
        return False
    account.cycles += amount
    if amount and account.timers_parked:
        message = MessageOverlay(state)
        thaw(message, canister_id)
        message.merge()
    return True


# --- inside a message --------------------------------------------------------------------------------------


def mint(message: MessageOverlay, canister_id: bytes, amount: int) -> None:
    """Make cycles and give them to a canister; raises `Reject` past the bound on all that was ever minted."""
    subnet = message.subnet()
    if amount < 0 or subnet.minted + amount > CYCLES_MINTED_MAX:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"{amount} cycles cannot be minted: this subnet mints {CYCLES_MINTED_MAX} at most, "
            f"{subnet.minted} are minted already",
        )
    subnet.minted += amount
    credit(message, canister_id, amount)


def credit(message: MessageOverlay, canister_id: bytes, amount: int) -> None:
    """Add cycles (minted before, or taken off elsewhere) to a canister's balance; wakes timers of a thawed
    canister.
    """
    account = message.account(canister_id)
    if account is None:
        raise Reject(RejectCode.DESTINATION_INVALID, f"Canister {show(canister_id)} not found", "IC0301")
    account.cycles += amount
    thaw(message, canister_id)


def debit(message: MessageOverlay, canister_id: bytes, amount: int) -> None:
    """Take cycles off a balance for somebody else; raises `Reject` where they are not there."""
    account = message.account(canister_id)
    if account is None or account.cycles < amount:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Canister {show(canister_id)} has fewer than {amount} cycles",
            "IC0207",
        )
    account.cycles -= amount


def burn(message: MessageOverlay, canister_id: bytes, amount: int) -> int:
    """Burn up to `amount` of a canister's cycles (creation fee, deletion); give what was burned."""
    account = message.account(canister_id)
    if account is None:
        return 0
    taken = min(amount, account.cycles)
    account.cycles -= taken
    account.burned += taken
    message.subnet().burned += taken
    return taken


def settle_storage(message: MessageOverlay, canister_id: bytes) -> None:
    """Charge a canister's storage up to the block's time: before its memory is changed or told."""
    account = message.account(canister_id)
    config = message.state.view.config
    if account is None or not config.prices.storage_per_gib_second:
        return
    due, rest = storage_due(config, account, message.state.time_ns, message.state.subnet.priced_from_ns)
    account.charged_ns, account.charged_rest = message.state.time_ns, rest
    burn(message, canister_id, due)


def thaw(message: MessageOverlay, canister_id: bytes) -> None:
    """Let the timers of a running canister go on where it is not frozen any more."""
    account, canister = message.account(canister_id), message.canister(canister_id)
    if account is None or canister is None or not account.timers_parked:
        return
    state = message.state
    if not is_frozen(state.view.config, canister, account, state.time_ns, state.subnet.priced_from_ns):
        unpark_timers(message, canister_id)


# --- rules -------------------------------------------------------------------------------------------------


def balance_now(config: ReplicaConfig, account: AccountRecord, now_ns: int, priced_from_ns: int = 0) -> int:
    """Give a balance as it is once storage up to now is charged."""
    return max(0, account.cycles - storage_due(config, account, now_ns, priced_from_ns)[0])


def burned_now(config: ReplicaConfig, account: AccountRecord, now_ns: int, priced_from_ns: int = 0) -> int:
    """Give what a canister has burned as it is once storage up to now is charged."""
    due = storage_due(config, account, now_ns, priced_from_ns)[0]
    return account.burned + min(due, account.cycles)


def idle_burned_per_day(config: ReplicaConfig, account: AccountRecord) -> int:
    """Give what a day of storage costs a canister."""
    return (priced_size_bytes(account) * config.prices.storage_per_gib_second * _DAY_S) >> 30


def freezing_limit(config: ReplicaConfig, canister: CanisterRecord, account: AccountRecord) -> int:
    """Give the balance under which a canister is frozen: its idle burn over the freezing threshold."""
    price = config.prices.storage_per_gib_second
    if not price:
        return 0
    return (priced_size_bytes(account) * price * canister.settings.freezing_threshold_s) >> 30


def shortage(
    config: ReplicaConfig,
    canister: CanisterRecord,
    account: AccountRecord,
    now_ns: int,
    priced_from_ns: int,
    fee: int = 0,
) -> int:
    """Give the cycles that a canister lacks for an update with this fee; 0: none."""
    if config.prices == FREE:
        return 0
    needed = freezing_limit(config, canister, account) + fee
    return max(0, needed - balance_now(config, account, now_ns, priced_from_ns))


def is_frozen(
    config: ReplicaConfig,
    canister: CanisterRecord,
    account: AccountRecord,
    now_ns: int,
    priced_from_ns: int = 0,
) -> bool:
    """Say whether a canister is under its freezing limit: it rejects updates and keeps its state."""
    return shortage(config, canister, account, now_ns, priced_from_ns) > 0


def message_fee(prices: PriceSchedule, size_bytes: int, *, is_ingress: bool = False) -> int:
    """Give what a message costs before it runs; its sender can know it."""
    fee = prices.per_message + prices.per_byte * size_bytes
    if is_ingress:
        fee += prices.per_ingress + prices.per_ingress_byte * size_bytes
    return fee


def work_cost(
    prices: PriceSchedule, bytes_moved: int, touched: int, calls_made: int = 0, call_bytes: int = 0
) -> int:
    """Give what an activation costs beside its fee: values it moved, keys it touched, calls it made."""
    return (
        prices.per_byte * bytes_moved
        + prices.per_key * touched
        + prices.per_call * calls_made
        + prices.per_call_byte * call_bytes
    )


def response_cost(prices: PriceSchedule, size_bytes: int) -> int:
    """Give what a response costs who called; bounded, as it is the callee who decides on its size."""
    return prices.per_call_byte * min(size_bytes, RESPONSE_PRICED_SIZE_BYTES_MAX)
