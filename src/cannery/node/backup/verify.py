"""Reads everything in a repository and checks every hash; a drill restores, and replays, to compare states.

Nothing is believed: packs and manifests by their names, chunks by theirs, backups by their listings. What is
wrong is told with the file's name and the backups that need it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.manifest import BackupHead, Units
from cannery.node.backup.format.names import MARKER_NAME, parse_manifest_name, parse_pack_name
from cannery.node.backup.format.pack import read_pack
from cannery.node.backup.format.time_plan import ReplayPlan
from cannery.node.backup.format.units import describe_unit
from cannery.node.backup.repository import Backup, Repository, Say, open_repository
from cannery.node.backup.restore import Restored, restore_state, scratch_folder
from cannery.node.backup.shelf import Shelf

_UNITS_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Checked:
    """What a check found: what was read, and what is wrong, one line each."""

    backups: tuple[Backup, ...]
    pack_count: int
    chunk_count: int
    stored_bytes: int
    spare_bytes: int
    problems: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill that went well: the backup that was restored, what came out, and by replay from which one."""

    head: BackupHead
    restored: Restored
    replayed_from: int | None
    replayed: Restored | None


def verify_repository(shelf: Shelf, say: Say = lambda _text: None) -> Checked:
    """Read and check everything; raises `CanneryError` where it is no repository at all."""
    repository = open_repository(shelf)
    problems: list[str] = []
    chunks, pack_count, stored_bytes = _check_packs(repository, problems, say)
    say("checking the backups")
    backups = _check_manifests(repository, problems)
    needed: set[bytes] = set()
    for backup in backups:
        _check_backup(repository, backup, backups, chunks, needed, problems)
    spare = sum(size for chunk, size in chunks.items() if chunk not in needed)
    return Checked(tuple(backups), pack_count, len(chunks), stored_bytes, spare, tuple(problems))


def _check_packs(repository: Repository, problems: list[str], say: Say) -> tuple[dict[bytes, int], int, int]:
    """Check each pack; give the sizes of all sound chunks, the number of packs and their bytes."""
    chunks: dict[bytes, int] = {}
    count = stored_bytes = 0
    for stored in repository.shelf.list():
        pack = parse_pack_name(stored.name)
        if pack is None:
            if stored.name != MARKER_NAME and parse_manifest_name(stored.name) is None:
                problems.append(f"{stored.name} is a foreign file: move it away")
            continue
        count += 1
        stored_bytes += stored.size_bytes
        say(f"checking pack {count}")
        try:
            data = repository.shelf.get(stored.name)
            if sha256(data).hexdigest() != pack:
                raise BackupFormatError("it is damaged: its SHA-256 is not that of its name")
            for chunk_hash, chunk in read_pack(data):
                chunks[chunk_hash] = len(chunk)
        except BackupFormatError as error:
            problems.append(
                f"{stored.name}: {error}; restore that file from a copy, or move it away and back up again: "
                "what is still there on the node is then written anew"
            )
    return chunks, count, stored_bytes


def _check_manifests(repository: Repository, problems: list[str]) -> list[Backup]:
    sound: dict[int, Backup] = {}
    for name in repository.manifest_names():
        try:
            backup = Backup(name, repository.read_manifest(name).head)
        except BackupFormatError as error:
            problems.append(f"{error}; backup {name.number} is lost, and those that are differences to it")
            continue
        other = sound.get(name.number)
        if other is None or backup.head.base is None:
            sound[name.number] = backup
    return [sound[number] for number in sorted(sound)]


def _check_backup(
    repository: Repository,
    backup: Backup,
    backups: Sequence[Backup],
    chunks: Mapping[bytes, int],
    needed: set[bytes],
    problems: list[str],
) -> None:
    number = backup.head.number
    try:
        units: Units = repository.units(backup, backups)
    except BackupFormatError as error:
        problems.append(f"backup {number}: {error}")
        return
    lacking: list[bytes] = []
    missing_count = 0
    for name in sorted(units):
        unit = units[name]
        missing = [chunk for chunk in unit.chunks if chunk not in chunks]
        needed.update(unit.chunks)
        if missing:
            lacking.append(name)
            missing_count += len(missing)
        elif sum(chunks[chunk] for chunk in unit.chunks) != unit.size_bytes:
            problems.append(
                f"backup {number}: {describe_unit(name)} does not have the size that it should have"
            )
    if lacking:
        shown = ", ".join(describe_unit(name) for name in lacking[:_UNITS_SHOWN])
        more = len(lacking) - _UNITS_SHOWN
        problems.append(
            f"backup {number} cannot be restored whole: {len(lacking)} of {len(units)} units lack "
            f"{missing_count} chunks: {shown}{f' and {more} more' if more > 0 else ''}"
        )


def drill(shelf: Shelf, wanted: int | None, say: Say, folder: Path | None = None) -> Drilled:
    """Restore a node's backup into a temporary directory and compare the state; where an earlier backup's
    state leads on to it, replay the blocks between them as well and compare the root of the round.

    Raises `BackupError` where something else comes out.
    """
    repository = open_repository(shelf)
    backups = repository.backups()
    head = _drilled(repository, backups, wanted)
    repository.load_index(say)
    with scratch_folder(folder) as scratch:
        whole = ReplayPlan(head, None)
        restored = _restore(repository, backups, [whole] * head.subnet_count, scratch / "restored", say)
        earlier = [other.head for other in backups if other.head.number in head.follows]
        earlier = [other for other in earlier if other.block.number < head.block.number]
        start = max(earlier, key=lambda other: (other.block.number, other.number), default=None)
        if start is None:
            return Drilled(head, restored, None, None)
        plans = [
            ReplayPlan(start, head, until_block=head.of(subnet).block.number)
            for subnet in range(head.subnet_count)
        ]
        replayed = _restore(repository, backups, plans, scratch / "replayed", say)
    return Drilled(head, restored, start.number, replayed)


def _restore(
    repository: Repository, backups: Sequence[Backup], plans: Sequence[ReplayPlan], path: Path, say: Say
) -> Restored:
    """Restore each subnet by its plan; give what came out of the first one."""
    found = [
        restore_state(repository, backups, plan, path.with_name(f"{path.name}-{subnet}"), say, subnet)
        for subnet, plan in enumerate(plans)
    ]
    return found[0]


def _drilled(repository: Repository, backups: Sequence[Backup], wanted: int | None) -> BackupHead:
    if wanted is not None:
        head = repository.find(wanted).head
        if not head.is_node:
            raise BackupError(f"backup {wanted} is not one of a whole node: a drill needs one")
        return head
    for backup in reversed(backups):
        if backup.head.is_node:
            return backup.head
    raise BackupError("there is no backup of a whole node here, and a drill needs one")
