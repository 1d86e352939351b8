"""Puts a backup back: a whole node into an empty directory, or its state where a drill or a copy needs it.

What comes out is compared with what went in: every chunk by its hash, the whole state by `state_hash`. The
file `format` comes last, so that a directory which was cut short is none that a node would use.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cannery.limits import BACKUP_WRITE_SIZE_BYTES
from cannery.node.backup.create import KEY_FILES, PLAIN_FILES
from cannery.node.backup.cut import find_cut_fault
from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.manifest import BackupHead, UnitEntry
from cannery.node.backup.format.time_plan import ReplayPlan
from cannery.node.backup.format.units import UnitKind, in_subnet, space_unit, units_in
from cannery.node.backup.replay import Replayed, Target, replay_blocks
from cannery.node.backup.repository import Backup, Repository, Say
from cannery.node.data_dir import DataDir
from cannery.node.store_rocksdb import DiskFullError, RocksCopy, RocksStore
from cannery.ports import Store, WriteBatch
from cannery.replica import keys
from cannery.replica.block import state_hash

_MIB = 2**20
_PARTIAL = "restoring"
_LAST_FILE = "format"


@dataclass(frozen=True, slots=True)
class Restored:
    """A state that was put back: the last block in it, its hashes, and how many blocks were replayed."""

    block: int
    time_ns: int
    root: bytes
    state_hash: bytes
    replayed_count: int


def restore_node(
    repository: Repository, backups: Sequence[Backup], plan: ReplayPlan, target: Path, say: Say
) -> Restored:
    """Restore a node into a directory that is empty or not there; raises `CanneryError`.

    A node that was backed up without its keys gets new ones when it starts.
    """
    target = target.absolute()
    partial = target / _PARTIAL
    _check_empty(target)
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        folder = DataDir(partial)
        subnets = [folder.of(number) for number in range(plan.start.subnet_count)]
        for path in (partial / "keys", partial / "spool", partial / "run", *(each.own for each in subnets)):
            path.mkdir(mode=0o700)
        found = [restore_state(repository, backups, plan, each.store, say, each.subnet) for each in subnets]
        _check_cut([each.store for each in subnets])
        restored = found[0]
        _write_files(repository, _units_of(repository, backups, plan.start), folder)
        _move_up(partial, target)
    except (OSError, DiskFullError) as error:
        why = "the disk is full" if isinstance(error, DiskFullError) else error.strerror or error
        raise BackupError(
            f"cannot restore into {target} ({why}): make room or choose another place, and run it again"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return restored


def restore_state(
    repository: Repository,
    backups: Sequence[Backup],
    plan: ReplayPlan,
    path: Path,
    say: Say,
    subnet: int = 0,
) -> Restored:
    """Restore the store of a node's subnet into a directory of its own, and replay blocks as planned.

    Raises `BackupError` where the state that comes out is not the one that went in.
    """
    plan = plan.of(subnet)
    start = plan.start
    units = units_in(subnet, _units_of(repository, backups, start))
    store = RocksStore(str(path))
    try:
        write_units(store, repository, units, say)
        say("comparing the state")
        found = state_hash(store)
        if found != start.state_hash:
            raise BackupError(
                f"backup {start.number} does not give the state that it was made of (its hash is "
                f"{found.hex()[:16]}, not {start.state_hash.hex()[:16]}): use another backup, and tell the "
                "makers of Cannery"
            )
    finally:
        store.close()
    if plan.blocks is None:
        return Restored(start.block.number, start.block.time_ns, start.block.root, found, 0)
    return _replay(repository, backups, plan, path, say, subnet)


def _replay(
    repository: Repository,
    backups: Sequence[Backup],
    plan: ReplayPlan,
    path: Path,
    say: Say,
    subnet: int,
) -> Restored:
    assert plan.blocks is not None, "there is something to replay"
    held = _units_of(repository, backups, plan.blocks).get(in_subnet(subnet, space_unit(keys.BLOCKS)))
    blocks = iter(()) if held is None else repository.entries(held)
    # The whole way to a backup's own state can be compared with what it says of itself.
    is_whole = plan.until_block == plan.blocks.block.number
    target = Target(
        plan.until_block,
        plan.until_ns,
        plan.blocks.block.root if is_whole else b"",
        plan.blocks.state_hash if is_whole else b"",
    )
    done: Replayed = replay_blocks(path, blocks, plan.start, target, say)
    return Restored(done.block, done.time_ns, done.root, done.state_hash, done.count)


def _check_cut(stores: Sequence[Path]) -> None:
    """Raise `BackupError` where the restored subnets do not fit each other."""
    with ExitStack() as stack:
        fault = find_cut_fault([stack.enter_context(closing(RocksCopy(str(path)))) for path in stores])
    if fault is not None:
        raise BackupError(
            f"the subnets do not fit each other at that point ({fault}): choose another time, or a backup as "
            "it was made"
        )


def write_units(store: Store, repository: Repository, units: Mapping[bytes, UnitEntry], say: Say) -> None:
    """Write everything but files into a store, durably."""
    batch, size_bytes, done = WriteBatch(), 0, 0
    for key, value in _pairs(repository, units):
        batch.puts[key] = value
        size_bytes += len(key) + len(value)
        if size_bytes >= BACKUP_WRITE_SIZE_BYTES:
            store.write(batch)
            done += size_bytes
            say(f"{done // _MIB} MiB restored")
            batch, size_bytes = WriteBatch(), 0
    store.write(batch)
    store.sync()


def _pairs(repository: Repository, units: Mapping[bytes, UnitEntry]) -> Iterator[tuple[bytes, bytes]]:
    for name in sorted(units):
        if name[0] != UnitKind.FILE:
            yield from repository.entries(units[name])


def _units_of(repository: Repository, backups: Sequence[Backup], head: BackupHead) -> dict[bytes, UnitEntry]:
    backup = next(backup for backup in backups if backup.head.number == head.number)
    return repository.units(backup, backups)


def _write_files(repository: Repository, units: Mapping[bytes, UnitEntry], folder: DataDir) -> None:
    """Write the files of the data directory, readable by their owner alone."""
    for name in sorted(units):
        if name[0] == UnitKind.FILE:
            for file, content in repository.entries(units[name]):
                path = folder.path / _inside(file)
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as out:
                    out.write(content)
                    out.flush()
                    os.fsync(out.fileno())


def _inside(file: bytes) -> str:
    """Give the name of a file of the data directory; a foreign backup must not write anywhere else."""
    name = file.decode(errors="replace")
    if name not in (*KEY_FILES, *PLAIN_FILES):
        raise BackupError(
            f"the backup holds a file {name!r}, which is none of a data directory: do not use it"
        )
    return name


def _check_empty(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise BackupError(f"{target} is a file: name a directory that is not there yet")
    strangers = sorted(entry.name for entry in target.iterdir()) if target.exists() else []
    if [name for name in strangers if name != _PARTIAL]:
        raise BackupError(
            f"{target} is not empty (it holds {strangers[0]!r}): name a directory that is not there yet"
        )


def _move_up(partial: Path, target: Path) -> None:
    """Move everything out of the part of the directory that was filled."""
    entries = sorted(partial.iterdir(), key=lambda path: (path.name == _LAST_FILE, path.name))
    for entry in entries:
        os.rename(entry, target / entry.name)
    target.chmod(0o700)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def scratch_folder(parent: Path | None = None) -> Iterator[Path]:
    """Make a temporary directory, for its owner alone, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="cannery-restore-", dir=parent))
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
