"""Makes a backup: reads a node's state once, writes the chunks that are not there yet, then the manifest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cannery.cdk.interface import KIT_VERSION
from cannery.limits import BACKUP_CHAIN_COUNT_MAX, BACKUP_COUNT_MAX
from cannery.node.backup.cut import States, subnet_of_canister
from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.chunks import cut_chunks
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.manifest import (
    BackupHead,
    BlockPoint,
    CanisterScope,
    FleetScope,
    NodeScope,
    Scope,
    SubnetPoint,
    UnitEntry,
    listing_of,
    plan_manifest,
)
from cannery.node.backup.format.units import (
    Entry,
    UnitKind,
    canister_entries,
    file_unit,
    fleet_members,
    in_subnet,
    node_entries,
    split_subnet,
)
from cannery.node.backup.repository import Backup, PackWriter, Repository, Say, open_repository
from cannery.node.backup.shelf import Shelf
from cannery.node.backup.source import OpenState, Source, SubnetState, open_source
from cannery.node.data_dir import load_keys
from cannery.node.supervisor import hash_seed_of
from cannery.protocol.principal import Principal, PrincipalError
from cannery.replica import keys
from cannery.replica.block import decode_block, state_hash
from cannery.replica.records import HeadRecord
from cannery.replica.snapshot_build import Readable
from cannery.replica.view import show

KEY_FILES = ("operator.pem", "keys/root.bls", "keys/node.pem")
PLAIN_FILES = ("format", "cannery.toml")
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Order:
    """What to back up: the node's data directory; a fleet or canisters by id or name, else the whole node;
    whether the node's keys come along with it.
    """

    data: Path
    fleet: str | None = None
    canisters: tuple[str, ...] = ()
    with_keys: bool = True


@dataclass(frozen=True, slots=True)
class Created:
    """A backup that was made: its head, the bytes that it added to the repository, manifest included."""

    head: BackupHead
    unit_count: int
    changed_count: int
    manifest_bytes: int
    was_running: bool

    @property
    def written_bytes(self) -> int:
        return self.head.written_bytes + self.manifest_bytes


def create_backup(
    shelf: Shelf,
    order: Order,
    holder: str,
    say: Say = lambda _text: None,
    now: Callable[[], int] = time.time_ns,
    open_state: OpenState = open_source,
) -> Created:
    """Make a backup. Raises `CanneryError`; whatever happens, what the repository holds stays valid."""
    with shelf.lock(holder, now()) as lock:
        repository = open_repository(shelf, create=True)
        say("reading what is there")
        backups = repository.backups()
        if len(backups) >= BACKUP_COUNT_MAX:
            raise BackupError(f"there are {len(backups)} backups here, as many as may be: prune some")
        repository.load_index(say)
        with open_state(order.data, say) as source:
            scope = _scope(source.states, order)
            writer = PackWriter(repository, lambda: lock.renew(now()))
            units = _write_units(writer, _entries(source, scope, order.with_keys), say)
            writer.flush()
            head = _head(source, scope, order.with_keys, backups, units, writer.written_bytes, now(), say)
        base, base_units = _base_for(head, repository, backups)
        manifest = plan_manifest(
            head, units, None if base is None else base.head, base_units, BACKUP_CHAIN_COUNT_MAX
        )
        lock.renew(now())
        _, manifest_bytes = repository.write_manifest(manifest)
    return Created(manifest.head, len(units), len(manifest.changed), manifest_bytes, source.was_running)


def _write_units(writer: PackWriter, entries: Iterator[Entry], say: Say) -> dict[bytes, UnitEntry]:
    """Write the chunks of all units and give the units."""
    units: dict[bytes, UnitEntry] = {}
    hashes: list[bytes] = []
    name, size_bytes, read_bytes = b"", 0, 0
    for unit, chunk in cut_chunks(entries):
        if unit != name:
            if hashes:
                units[name] = UnitEntry(name, tuple(hashes), size_bytes)
            name, hashes, size_bytes = unit, [], 0
        hashes.append(writer.add(chunk))
        size_bytes += len(chunk)
        read_bytes += len(chunk)
        say(f"{read_bytes // _MIB} MiB read, {writer.written_bytes // _MIB} MiB written")
    if hashes:
        units[name] = UnitEntry(name, tuple(hashes), size_bytes)
    return units


# --- what is read ------------------------------------------------------------------------------------------


def _scope(state: States, order: Order) -> Scope:
    if order.fleet is not None:
        return FleetScope(find_canister(state, order.fleet))
    if order.canisters:
        return CanisterScope(tuple(sorted({find_canister(state, text) for text in order.canisters})))
    return NodeScope()


def find_canister(state: Readable, text: str) -> bytes:
    """Read a canister id, or look a name up in a state; raises `BackupError`."""
    try:
        return Principal.parse(text).raw
    except PrincipalError:
        found = state.get(keys.hashed(keys.NAMES, text.encode()))
        if found is None:
            raise BackupError(f"{text!r} is neither a canister id nor the name of a canister here") from None
        return found


def _entries(source: Source, scope: Scope, with_keys: bool) -> Iterator[Entry]:
    if isinstance(scope, NodeScope):
        yield from _file_entries(source, with_keys)
        wanted: tuple[bytes, ...] = ()
    else:
        wanted = _scope_canisters(source.states, scope)
    for number, subnet in enumerate(source.subnets):
        if isinstance(scope, NodeScope):
            found = node_entries(subnet.reader)
        else:
            here = [canister for canister in wanted if subnet_of_canister(canister) == number]
            found = canister_entries(subnet.reader, here) if here else iter(())
        for unit, key, value in found:
            yield in_subnet(number, unit), key, value


def _scope_canisters(state: States, scope: FleetScope | CanisterScope) -> tuple[bytes, ...]:
    if isinstance(scope, FleetScope):
        wanted = tuple(fleet_members(state, scope.fleet))
        if len(wanted) == 1 and state.get(keys.owned(keys.FLEETS, scope.fleet)) is None:
            raise BackupError(f"{show(scope.fleet)} is no fleet: name its index, or use --canister")
    else:
        wanted = scope.canisters
    for canister in wanted:
        if state.get(keys.owned(keys.CANISTERS, canister)) is None:
            raise BackupError(f"there is no canister {show(canister)} on this node")
    return wanted


def _file_entries(source: Source, with_keys: bool) -> Iterator[Entry]:
    for name in sorted((*PLAIN_FILES, *(KEY_FILES if with_keys else ()))):
        path = source.folder.path / name
        if path.exists():
            yield file_unit(name), name.encode(), path.read_bytes()


# --- the head ----------------------------------------------------------------------------------------------


def _head(
    source: Source,
    scope: Scope,
    with_keys: bool,
    backups: Sequence[Backup],
    units: dict[bytes, UnitEntry],
    written_bytes: int,
    made_ns: int,
    say: Say,
) -> BackupHead:
    is_node = isinstance(scope, NodeScope)
    node_keys = load_keys(source.folder.path)
    node = sha256(node_keys.root.public_key_der).digest()
    if is_node:
        say("hashing the state")
    points = [
        SubnetPoint(_block_point(subnet.head), state_hash(subnet.reader) if is_node else b"")
        for subnet in source.subnets
    ]
    return BackupHead(
        number=1 + max((backup.head.number for backup in backups), default=0),
        made_ns=made_ns,
        scope=scope,
        node=node,
        kit_version=KIT_VERSION,
        block=points[0].block,
        state_hash=points[0].state_hash,
        has_keys=is_node and with_keys,
        hash_seed=hash_seed_of(node_keys),
        follows=_follows(source, node, backups) if is_node else (),
        canister_count=sum(1 for name in units if _is_canister(name, source.states)),
        size_bytes=sum(unit.size_bytes for unit in units.values()),
        written_bytes=written_bytes,
        listing=listing_of(units),
        subnets=tuple(points[1:]),
    )


def _block_point(head: HeadRecord) -> BlockPoint:
    return BlockPoint(head.number, head.block_hash, head.root, head.time_ns, head.oldest_block)


def _is_canister(unit: bytes, state: States) -> bool:
    _, name = split_subnet(unit)
    return name[0] == UnitKind.OWNER and state.get(keys.owned(keys.CANISTERS, name[1:])) is not None


def _follows(source: Source, node: bytes, backups: Sequence[Backup]) -> tuple[int, ...]:
    """Give the backups of this node whose state the blocks that it still has lead on from, on each subnet.

    A node that was restored to an earlier point has blocks of the same numbers as those it once had, so the
    hashes decide.
    """
    return tuple(
        backup.head.number
        for backup in backups
        if backup.head.is_node
        and backup.head.node == node
        and backup.head.subnet_count == len(source.subnets)
        and all(
            _leads_on(subnet, backup.head.of(number).block) for number, subnet in enumerate(source.subnets)
        )
    )


def _leads_on(subnet: SubnetState, block: BlockPoint) -> bool:
    head = subnet.head
    if block.number == head.number:
        return block.hash == head.block_hash
    if not head.oldest_block - 1 <= block.number < head.number:
        return False
    stored = subnet.reader.get(keys.block_key(block.number + 1))
    return stored is not None and decode_block(stored).previous_hash == block.hash


def _base_for(
    head: BackupHead, repository: Repository, backups: Sequence[Backup]
) -> tuple[Backup | None, Mapping[bytes, UnitEntry]]:
    """Give the newest backup of the same thing that is still whole, and its units; nothing where there is
    none: then the new one is whole by itself.
    """
    for backup in reversed(backups):
        if backup.head.series == head.series:
            # One whose own base is lost is no ground to stand on, and no reason to save nothing more.
            with suppress(BackupFormatError):
                return backup, repository.units(backup, backups)
    return None, {}
