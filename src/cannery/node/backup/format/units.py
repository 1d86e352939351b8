"""Which keys belong together in a backup: units, and the order in which a store is read for them.

A unit is all that one canister owns in every space, one module with its file, a whole shared space, or a
file of the data directory. Its name is one byte of kind, then the canister, the hash, the space or the file's
name; what belongs to a further subnet than the first has its kind, the number, and then that name. Chunks
never span units, so a changed canister changes its own chunks alone. A space that is not named here is a
shared one. This module writes nothing.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import IntEnum
from typing import TypeVar

from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.records import CANISTER
from cannery.replica.snapshot_build import Readable
from cannery.replica.view import show

T = TypeVar("T")

Entry = tuple[bytes, bytes, bytes]
"""A unit's name, a key, a value."""

PartOf = Callable[[bytes], bytes]

OWNED_SPACES = (
    keys.CANISTERS,
    keys.ACCOUNTS,
    keys.STABLE,
    keys.CHUNKS,
    keys.HISTORY,
    keys.LOGS,
    keys.CERTIFIED,
    keys.QUEUES,
    keys.CONTEXTS,
    keys.CALLBACKS,
    keys.PAIRS,
    keys.TIMERS,
    keys.STOPS,
    keys.SNAPSHOTS,
    keys.SNAPSHOT_DATA,
    keys.FLEETS,
    keys.FLEET_MODULES,
    keys.FLEET_MEMBERS,
    keys.FLEET_ROLES,
    keys.FLEET_VALUES,
    keys.FLEET_LOCALS,
    keys.UPGRADE_BATCHES,
    keys.UPGRADE_RESULTS,
    keys.EVENTS,
    keys.OUTCALLS,
    keys.OUTCALL_COUNTS,
)
MODULE_SPACES = (keys.MODULES, keys.MODULE_FILES)
_SPACE_MAX = 0xFE


class UnitKind(IntEnum):
    """What a unit is; the first byte of its name."""

    FILE = 1
    SPACE = 2
    MODULE = 3
    OWNER = 4
    SUBNET = 5


def unit_name(kind: UnitKind, rest: bytes) -> bytes:
    """Give the name of a unit."""
    return bytes((kind,)) + rest


def space_unit(space: int) -> bytes:
    """Give the name of a shared space's unit."""
    return bytes((UnitKind.SPACE, space))


def owner_unit(owner: bytes) -> bytes:
    """Give the name of the unit of all that a canister owns."""
    return unit_name(UnitKind.OWNER, owner)


def module_unit(module_hash: bytes) -> bytes:
    """Give the name of a module's unit."""
    return unit_name(UnitKind.MODULE, module_hash)


def file_unit(name: str) -> bytes:
    """Give the name of the unit of a file of the data directory."""
    return unit_name(UnitKind.FILE, name.encode())


def in_subnet(subnet: int, unit: bytes) -> bytes:
    """Give the name that a unit of a subnet has among those of the node: the first one's have their own."""
    return bytes((UnitKind.SUBNET, subnet)) + unit if subnet else unit


def split_subnet(name: bytes) -> tuple[int, bytes]:
    """Take the name of a unit of a node apart, into the subnet and the name there."""
    return (name[1], name[2:]) if name[0] == UnitKind.SUBNET else (0, name)


def units_in(subnet: int, units: Mapping[bytes, T]) -> dict[bytes, T]:
    """Give the units of a subnet by their names there; files are the first one's."""
    found = ((split_subnet(name), value) for name, value in units.items())
    return {name: value for (number, name), value in found if number == subnet}


def describe_unit(name: bytes) -> str:
    """Name a unit for people."""
    subnet, name = split_subnet(name)
    if subnet:
        return f"{describe_unit(name)} of subnet {subnet}"
    kind, rest = name[:1], name[1:]
    if kind == bytes((UnitKind.OWNER,)):
        return f"canister {show(rest)}"
    if kind == bytes((UnitKind.MODULE,)):
        return f"module {rest.hex()[:16]}"
    if kind == bytes((UnitKind.FILE,)):
        return f"file {rest.decode(errors='replace')}"
    return f"space {rest.hex()}"


# --- reading a store ---------------------------------------------------------------------------------------


def node_entries(reader: StoreReader) -> Iterator[Entry]:
    """Yield everything that a node's store holds, unit by unit, each in the order of its keys."""
    for space in range(_SPACE_MAX + 1):
        if space not in OWNED_SPACES and space not in MODULE_SPACES:
            yield from _space_entries(reader, space)
    yield from _merged(reader, MODULE_SPACES, UnitKind.MODULE, _hash_of)
    yield from _merged(reader, OWNED_SPACES, UnitKind.OWNER, keys.owner_of)


def unit_of(key: bytes) -> bytes:
    """Give the name of the unit that a key of the store belongs to."""
    if key[0] in OWNED_SPACES:
        return owner_unit(keys.owner_of(key))
    return module_unit(key[1:]) if key[0] in MODULE_SPACES else space_unit(key[0])


def canister_entries(reader: StoreReader, canisters: Iterable[bytes]) -> Iterator[Entry]:
    """Yield what some canisters own, and all that their state needs to be understood: types, schemas and the
    modules that they are on.
    """
    wanted = sorted(set(canisters))
    yield from _space_entries(reader, keys.SCHEMAS)
    yield from _space_entries(reader, keys.TYPES)
    yield from _module_entries(reader, wanted)
    for owner in wanted:
        name = owner_unit(owner)
        for space in sorted(OWNED_SPACES):
            for key, value in reader.scan(*keys.owned_range(space, owner)):
                yield name, key, value


def fleet_members(reader: Readable, fleet: bytes) -> list[bytes]:
    """Give the canisters of a fleet: its index, then its members in order, those of local indexes too."""
    start, end = keys.owned_range(keys.FLEET_LOCALS, fleet)
    listers = [fleet, *(key[len(start) :] for key, _ in reader.scan(start, end))]
    members: list[bytes] = []
    for lister in listers:
        start, end = keys.owned_range(keys.FLEET_MEMBERS, lister)
        members += [key[len(start) :] for key, _ in reader.scan(start, end)]
    members.sort()
    return [fleet, *(member for member in members if member != fleet)]


def _module_entries(reader: StoreReader, canisters: list[bytes]) -> Iterator[Entry]:
    used: set[bytes] = set()
    for owner in canisters:
        stored = reader.get(keys.owned(keys.CANISTERS, owner))
        module_hash = None if stored is None else CANISTER.decode(stored).module_hash
        if module_hash is not None:
            used.add(module_hash)
    for module_hash in sorted(used):
        for space in MODULE_SPACES:
            key = keys.hashed(space, module_hash)
            value = reader.get(key)
            if value is not None:
                yield module_unit(module_hash), key, value


def _space_entries(reader: StoreReader, space: int) -> Iterator[Entry]:
    name = space_unit(space)
    for key, value in reader.scan(*keys.space_range(space)):
        yield name, key, value


def _hash_of(key: bytes) -> bytes:
    return key[1:]


def _merged(reader: StoreReader, spaces: tuple[int, ...], kind: UnitKind, part_of: PartOf) -> Iterator[Entry]:
    """Merge several spaces that are ordered by the same thing, so that each thing's keys come together."""
    waiting: list[tuple[bytes, int, bytes, bytes, Iterator[tuple[bytes, bytes]]]] = []
    for space in sorted(spaces):
        pairs = reader.scan(*keys.space_range(space))
        first = next(pairs, None)
        if first is not None:
            # The length comes first, as in the keys themselves, so that the merge keeps their order.
            waiting.append((_rank(part_of(first[0])), space, *first, pairs))
    heapq.heapify(waiting)
    while waiting:
        rank, space, key, value, pairs = waiting[0]
        name = unit_name(kind, rank[1:])
        yield name, key, value
        for key, value in pairs:
            found = _rank(part_of(key))
            if found != rank:
                heapq.heapreplace(waiting, (found, space, key, value, pairs))
                break
            yield name, key, value
        else:
            heapq.heappop(waiting)


def _rank(part: bytes) -> bytes:
    return bytes((len(part),)) + part
