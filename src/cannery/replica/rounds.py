"""A round: one block executed on one state, as values.

`run_round` takes the inputs in, fires what is due, lets canisters take turns within the bounds of a round,
and gives the writes, the answers and the root; the shell makes them durable. The same state, block and
verdicts give the same root: nothing here looks at a clock, at chance or at the order of an unordered
collection. DESIGN, "Block and round".
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

from msgspec.structs import replace

from cannery.errors import StoreError
from cannery.limits import TIMERS_PER_ROUND_COUNT_MAX
from cannery.ports import Programs, StoreReader, Watch, WriteBatch
from cannery.replica import keys, records
from cannery.replica.alarms import tell_low_balances
from cannery.replica.block import (
    GENESIS_HASH,
    GENESIS_ROOT,
    Block,
    Configure,
    Ingress,
    OutcallAnswer,
    PeerLost,
    StreamAck,
    StreamSlice,
    encode_block,
    encode_config,
    round_root,
)
from cannery.replica.calls import commit
from cannery.replica.cycles import is_frozen
from cannery.replica.execute import run_turn
from cannery.replica.ingress import induct_ingress
from cannery.replica.management.dispatch import expire_stops
from cannery.replica.management.fleet_waits import expire_wait
from cannery.replica.outcalls import expire_outcall, take_answer
from cannery.replica.overlay import batch_of
from cannery.replica.peers import greet_new_subnets, lose_peer, take_ack, take_slice
from cannery.replica.records import CanisterStatus, HeadRecord, Lane, TimerMessage
from cannery.replica.request_status import note_unfinished, prune_statuses
from cannery.replica.run import Runner
from cannery.replica.scheduler import Scheduler
from cannery.replica.state import MANAGEMENT_ID, Answer, Emitted, MessageOverlay, RoundEvents, RoundState
from cannery.replica.timers import mark_due


@dataclass(frozen=True, slots=True)
class RoundOutcome:
    """What a round makes of a block. `block` is the given one with the verdicts that were made.

    `accepted`: calls of this block that are let in and not at their end, in order. `backlog`: work is left
    for another round, which may have no inputs. `emitted`: the canisters' events, in order.
    `outcalls`: HTTP requests that it leaves to be performed, by canister and call in flight.
    """

    batch: WriteBatch
    block: Block
    head: HeadRecord
    root: bytes
    answers: tuple[Answer, ...]
    accepted: tuple[bytes, ...]
    next_timer_ns: int | None
    backlog: bool
    events: RoundEvents
    emitted: tuple[Emitted, ...] = ()
    outcalls: tuple[tuple[bytes, int], ...] = ()


def run_round(reader: StoreReader, block: Block, programs: Programs, watch: Watch | None) -> RoundOutcome:
    """Execute a block. Raises `StoreError` where the store fails or the block does not follow its state."""
    before = _head_before(reader, block)
    state = RoundState(reader, block, programs)
    state.runner = Runner(block, watch)
    state.scheduler = Scheduler(state)
    _prefetch(state)
    prune_statuses(state)
    for item in block.inputs:
        if isinstance(item, Ingress):
            induct_ingress(state, item)
        elif isinstance(item, OutcallAnswer):
            take_answer(state, item)
        elif isinstance(item, StreamSlice):
            take_slice(state, item)
        elif isinstance(item, StreamAck):
            take_ack(state, item)
        elif isinstance(item, PeerLost):
            lose_peer(state, item.subnet)
        else:
            _configure(state, item)
    all_fired = _fire_due(state)
    _take_turns(state)
    tell_low_balances(state)
    note_unfinished(state)
    backlog = state.scheduler.waiting or not all_fired
    next_timer_ns = _next_due(state)
    state.reader.check()
    outcome = _close(state, before, backlog, next_timer_ns)
    # State and scheduler hold each other: taken apart, they and the round's arguments go at once.
    del state.scheduler
    return outcome


def _head_before(reader: StoreReader, block: Block) -> HeadRecord:
    stored = reader.get(keys.HEAD_KEY)
    head = HeadRecord(0, GENESIS_HASH, GENESIS_ROOT, 0, 1) if stored is None else records.HEAD.decode(stored)
    if block.number != head.number + 1 or block.previous_hash != head.block_hash:
        raise StoreError(
            f"block {block.number} does not follow the state, which is at block {head.number}: "
            "the state and the block belong to different histories"
        )
    if block.time_ns <= head.time_ns:
        raise StoreError(f"block {block.number} has a time that is not after that of block {head.number}")
    return head


def _prefetch(state: RoundState) -> None:
    """Read what each input needs with one look into the store."""
    wanted: dict[bytes, None] = {}
    for item in state.block.inputs:
        if isinstance(item, Ingress):
            wanted[keys.request_key(item.expiry_ns, item.request_id)] = None
            wanted[keys.owned(keys.CANISTERS, item.canister_id)] = None
            wanted[keys.owned(keys.ACCOUNTS, item.canister_id)] = None
    state.reader.multi_get(list(wanted))


def _configure(state: RoundState, configure: Configure) -> None:
    """Take a configuration into the state; its operators count at the first one alone."""
    config = configure.config
    if config.prices != state.view.config.prices:
        state.subnet.priced_from_ns = state.time_ns
    if state.layer.get(keys.CONFIG_KEY) is None:
        for operator in config.operators:
            state.layer.put(keys.hashed(keys.OPERATORS, operator), b"")
    state.layer.put(keys.CONFIG_KEY, encode_config(config))
    before, state.view.config = state.view.config, config
    greet_new_subnets(state, before)


def _fire_due(state: RoundState) -> bool:
    """Queue the messages of timers that are due; False where the bound of a round left some for the next."""
    start, end = keys.due_range(state.time_ns)
    due: list[bytes] = []
    for key, _ in state.layer.scan(start, end):
        if len(due) >= TIMERS_PER_ROUND_COUNT_MAX:
            break
        due.append(key)
    for key in due:
        _, kind, canister_id, number = keys.parse_due_key(key)
        message = MessageOverlay(state)
        message.put(key, None)
        if kind == keys.DUE_STOP:
            expire_stops(message, canister_id, number)
            commit(message)
        elif kind == keys.DUE_FLEET:
            expire_wait(message, canister_id, number)
            commit(message)
        elif kind == keys.DUE_OUTCALL:
            expire_outcall(message, canister_id, number)
            commit(message)
        elif _fires(state, message, canister_id, number):
            state.events.timers += 1
    return len(due) < TIMERS_PER_ROUND_COUNT_MAX


def _fires(state: RoundState, message: MessageOverlay, canister_id: bytes, number: int) -> bool:
    canister, account = message.canister(canister_id), message.account(canister_id)
    if canister is None or account is None:
        commit(message)
        return False
    runs = canister.status is CanisterStatus.RUNNING and not is_frozen(
        state.view.config, canister, account, state.time_ns, state.subnet.priced_from_ns
    )
    queues = mark_due(message, canister_id, number, runs)
    commit(message)
    if queues:
        own = state.account_for_change(canister_id)
        assert own is not None, "the canister was there when its timer was marked"
        state.scheduler.enqueue(canister_id, own, Lane.TIMERS, TimerMessage(number))
    return queues


def _take_turns(state: RoundState) -> None:
    """Let receivers run messages, turn by turn, until nothing waits or a bound of the round is reached.

    A verdict ends the round: what ran away has cost up to a second, and the others' answers leave before
    another one can cost as much. A replay has the same verdicts, and so the same rounds.
    """
    config, events = state.view.config, state.events
    count = 0
    while (
        count < config.activation_count_max
        and events.work < config.work_count_max
        and not state.runner.has_stopped
    ):
        found = state.scheduler.next_message()
        if found is None:
            return
        count += 1
        run_turn(state, *found)


def _next_due(state: RoundState) -> int | None:
    for key, _ in state.layer.scan(*keys.space_range(keys.DUE)):
        return keys.parse_due_key(key)[0]
    return None


def _close(state: RoundState, before: HeadRecord, backlog: bool, next_timer_ns: int | None) -> RoundOutcome:
    """Write what is kept as objects, make the batch, and chain the root."""
    block = replace(state.block, verdicts=tuple(state.runner.made))
    state.scheduler.flush()
    write_accounts(state)
    for subnet, head in state.stream_heads.items():
        state.layer.put(keys.stream_head_key(subnet), records.encode_record(head))
    state.subnet.updates_total += state.events.activations
    state.layer.put(keys.SUBNET_KEY, records.encode_record(state.subnet))
    batch = batch_of(state.layer, state.reader)
    encoded = encode_block(block)
    block_hash = sha256(encoded).digest()
    root = round_root(before.root, block_hash, batch)
    oldest = _forget_blocks(batch, before, block.number, state.view.config.block_window_count)
    batch.puts[keys.block_key(block.number)] = encoded
    head_record = HeadRecord(block.number, block_hash, root, block.time_ns, oldest)
    batch.puts[keys.HEAD_KEY] = records.encode_record(head_record)
    return RoundOutcome(
        batch,
        block,
        head_record,
        root,
        tuple(state.answers),
        tuple(state.accepted),
        next_timer_ns,
        backlog,
        state.events,
        tuple(state.emitted),
        tuple(state.outcalls),
    )


def write_accounts(state: RoundState) -> None:
    """Write the accounts that the round changed; the management canister has one only while messages wait."""
    for canister_id in state.changed_accounts:
        account = state.view.accounts.get(canister_id)
        key = keys.owned(keys.ACCOUNTS, canister_id)
        if account is None or (canister_id == MANAGEMENT_ID and not account.lanes):
            state.layer.put(key, None)
        else:
            state.layer.put(key, records.encode_record(account))


def _forget_blocks(batch: WriteBatch, before: HeadRecord, number: int, window_count: int) -> int:
    """Delete blocks that fell out of the window; give the oldest one that is kept."""
    oldest = max(before.oldest_block, number - max(1, window_count) + 1)
    if oldest > before.oldest_block:
        batch.deleted_ranges.append((keys.block_key(before.oldest_block), keys.block_key(oldest)))
    return oldest
