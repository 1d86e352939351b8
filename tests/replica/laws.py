"""Laws that hold after every round, each by a full count of the store."""

from __future__ import annotations

from cannery.limits import EVENT_LOG_COUNT_MAX, EVENT_LOG_SIZE_BYTES_MAX, SNAPSHOT_PAGE_SIZE_BYTES
from cannery.ports import StoreReader
from cannery.replica import keys, records
from cannery.replica.fleet_records import FLEET
from cannery.replica.fleets_away import home_of
from cannery.replica.management.snapshot_store import SNAPSHOT, Part
from cannery.replica.outcall_records import OUTCALL
from cannery.replica.records import AnsweredMessage, CallMessage, ResponseMessage


def check_laws(reader: StoreReader, subnet: int = 0) -> None:
    """Hold all laws of the state of one subnet."""
    check_cycles(reader)
    check_memory(reader)
    check_counts(reader)
    check_snapshots(reader)
    check_fleets(reader, subnet)


def check_cycles(reader: StoreReader) -> None:
    """minted - burned + come in - gone out == balances + waiting messages + cycles attached to open calls."""
    stored = reader.get(keys.SUBNET_KEY)
    assert stored is not None
    subnet = records.SUBNET.decode(stored)
    held = 0
    for _, data in reader.scan(*keys.space_range(keys.ACCOUNTS)):
        cycles = records.ACCOUNT.decode(data).cycles
        assert cycles >= 0
        held += cycles
    for _, data in reader.scan(*keys.space_range(keys.CONTEXTS)):
        held += records.CONTEXT.decode(data).cycles_available
    for _, data in reader.scan(*keys.space_range(keys.QUEUES)):
        held += _cycles_of(records.decode_message(data))
    for _, data in reader.scan(*keys.space_range(keys.OUTCALLS)):
        held += OUTCALL.decode(data).cycles
    assert subnet.minted - subnet.burned + subnet.cycles_in - subnet.cycles_out == held


def _cycles_of(message: records.Message) -> int:
    if isinstance(message, CallMessage | AnsweredMessage):
        return message.cycles
    return message.cycles_refunded if isinstance(message, ResponseMessage) else 0


def check_memory(reader: StoreReader) -> None:
    """An account's memory equals the bytes of live keys and values, waiting messages and saved values.

    Its key count equals the number of live keys. Its events are dense, within their bounds, and counted.
    """
    events = _count_events(reader)
    stable: dict[bytes, int] = {}
    counts = _count(reader, keys.STABLE)
    queued: dict[bytes, int] = {}
    for key, value in reader.scan(*keys.space_range(keys.STABLE)):
        owner = keys.owner_of(key)
        stable[owner] = stable.get(owner, 0) + len(key) - 2 - len(owner) + len(value)
    for key, data in reader.scan(*keys.space_range(keys.QUEUES)):
        owner = keys.owner_of(key)
        size = records.message_size_bytes(records.decode_message(data))
        queued[owner] = queued.get(owner, 0) + size
    for key, data in reader.scan(*keys.space_range(keys.CALLBACKS)):
        owner = keys.owner_of(key)
        queued[owner] = queued.get(owner, 0) + len(records.CALLBACK.decode(data).saved)
    for key, data in reader.scan(*keys.space_range(keys.TIMERS)):
        owner = keys.owner_of(key)
        queued[owner] = queued.get(owner, 0) + len(records.TIMER.decode(data).saved)
    for key, data in reader.scan(*keys.space_range(keys.ACCOUNTS)):
        owner = keys.owner_of(key)
        account = records.ACCOUNT.decode(data)
        assert account.memory_bytes == stable.pop(owner, 0)
        assert account.key_count == counts.pop(owner, 0)
        assert account.messages >= account.rejects + account.traps
        assert account.queued_bytes == queued.pop(owner, 0)
        numbers, event_bytes = events.pop(owner, ([], 0))
        assert numbers == list(range(account.event_first, account.event_next))
        assert account.event_bytes == event_bytes <= EVENT_LOG_SIZE_BYTES_MAX
        assert len(numbers) <= EVENT_LOG_COUNT_MAX
    assert stable == counts == events == {}
    assert queued == {}


def _count_events(reader: StoreReader) -> dict[bytes, tuple[list[int], int]]:
    found: dict[bytes, tuple[list[int], int]] = {}
    for key, data in reader.scan(*keys.space_range(keys.EVENTS)):
        numbers, size_bytes = found.get(keys.owner_of(key), ([], 0))
        event = records.EVENT.decode(data)
        size_bytes += len(event.topic.encode()) + len(event.payload)
        found[keys.owner_of(key)] = [*numbers, keys.number_of(key)], size_bytes
    return found


def check_snapshots(reader: StoreReader) -> None:
    """An account's snapshots equal the full count of their records; taken ones have all their pages, uploaded
    ones no more; nothing is left of those that are gone.
    """
    counted: dict[bytes, int] = {}
    pages: dict[tuple[bytes, int, int], int] = {}
    for key, data in reader.scan(*keys.space_range(keys.SNAPSHOT_DATA)):
        owner = keys.owner_of(key)
        rest = key[2 + len(owner) :]
        place = owner, int.from_bytes(rest[:8], "big"), rest[8]
        pages[place] = pages.get(place, 0) + len(data)
        assert 0 < len(data) <= SNAPSHOT_PAGE_SIZE_BYTES
    for key, data in reader.scan(*keys.space_range(keys.SNAPSHOTS)):
        owner, number, record = keys.owner_of(key), keys.number_of(key), SNAPSHOT.decode(data)
        counted[owner] = counted.get(owner, 0) + record.size_bytes
        archive, module = (pages.pop((owner, number, int(part)), 0) for part in Part)
        assert archive <= record.archive_bytes
        assert module <= record.module_bytes
        assert record.uploaded or (archive, module) == (record.archive_bytes, 0)
    assert pages == {}
    for key, data in reader.scan(*keys.space_range(keys.ACCOUNTS)):
        assert records.ACCOUNT.decode(data).snapshot_bytes == counted.pop(keys.owner_of(key), 0)
    assert counted == {}


def check_counts(reader: StoreReader) -> None:
    """Counters equal the records that they count; whoever has messages stands in the ring once.

    A canister that is gone may stand there until its turn comes, which passes over it.
    """
    waiting: dict[bytes, int] = {}
    for key, _ in reader.scan(*keys.space_range(keys.QUEUES)):
        owner = keys.owner_of(key)
        waiting[owner] = waiting.get(owner, 0) + 1
    contexts = _count(reader, keys.CONTEXTS)
    callbacks = _count(reader, keys.CALLBACKS)
    timers = _count(reader, keys.TIMERS)
    parked: dict[bytes, int] = {}
    for key, data in reader.scan(*keys.space_range(keys.TIMERS)):
        if records.TIMER.decode(data).parked:
            parked[keys.owner_of(key)] = parked.get(keys.owner_of(key), 0) + 1
    for key, data in reader.scan(*keys.space_range(keys.ACCOUNTS)):
        owner = keys.owner_of(key)
        account = records.ACCOUNT.decode(data)
        assert account.contexts_open == contexts.pop(owner, 0)
        assert account.calls_open == callbacks.pop(owner, 0)
        assert account.timers_open == timers.pop(owner, 0)
        assert account.timers_parked == parked.get(owner, 0)
        lanes = account.lanes
        assert sum(lanes[1::2]) - sum(lanes[0::2]) == waiting.get(owner, 0)
    assert contexts == callbacks == timers == {}
    ring = [value for _, value in reader.scan(*keys.space_range(keys.READY))]
    ring = [raw for raw in ring if reader.get(keys.owned(keys.ACCOUNTS, raw)) is not None]
    assert sorted(ring) == sorted(waiting)


def _count(reader: StoreReader, space: int) -> dict[bytes, int]:
    counts: dict[bytes, int] = {}
    for key, _ in reader.scan(*keys.space_range(space)):
        owner = keys.owner_of(key)
        counts[owner] = counts.get(owner, 0) + 1
    return counts


def check_fleets(reader: StoreReader, subnet: int = 0) -> None:
    """Keys of members and records of canisters say the same; a fleet counts members, holders and values.

    At home a fleet has the members of all subnets, elsewhere its own.
    """
    found = {
        keys.owner_of(key): FLEET.decode(data) for key, data in reader.scan(*keys.space_range(keys.FLEETS))
    }
    counts = {fleet: {keys.FLEET_MEMBERS: 0, keys.FLEET_ROLES: 0, keys.FLEET_VALUES: 0} for fleet in found}
    locals_of = {key[12:]: keys.owner_of(key) for key, _ in reader.scan(*keys.space_range(keys.FLEET_LOCALS))}
    here = 0
    for space in (keys.FLEET_MEMBERS, keys.FLEET_ROLES, keys.FLEET_VALUES):
        for key, _ in reader.scan(*keys.space_range(space)):
            lister = keys.owner_of(key)
            counts[lister if lister in found else locals_of[lister]][space] += 1
            here += space == keys.FLEET_MEMBERS and home_of(key[2 + len(lister) :]) == subnet
    for fleet, record in found.items():
        assert [record.members, record.holders, record.values] == list(counts[fleet].values())
        is_here = reader.get(keys.owned(keys.CANISTERS, fleet)) is not None
        assert is_here == (home_of(fleet) == subnet)
    members = 0
    for key, data in reader.scan(*keys.space_range(keys.CANISTERS)):
        canister_id, fleet = keys.owner_of(key), records.CANISTER.decode(data).fleet
        if fleet in found and fleet != canister_id:
            members += 1
            listers = (fleet, records.CANISTER.decode(data).creator)
            found_in = [reader.get(keys.owned(keys.FLEET_MEMBERS, each, canister_id)) for each in listers]
            assert found_in.count(b"") == 1 or listers[0] == listers[1]
            assert any(each is not None for each in found_in)
    assert members == here
