"""Lets old backups go, and what only they needed: in an order in which no end of the process harms the rest.

First kept backups that are differences to backups that go are written anew as whole ones, then backups go,
then chunks that are needed move out of packs that are mostly not, then packs go that nobody needs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.manifest import whole_manifest
from cannery.node.backup.format.names import pack_name
from cannery.node.backup.format.prune_plan import (
    KeepRule,
    PackPlan,
    measure_packs,
    plan_keep,
    plan_packs,
    plan_whole,
)
from cannery.node.backup.repository import Backup, PackWriter, Repository, Say, open_repository
from cannery.node.backup.shelf import Lock, Shelf


@dataclass(frozen=True, slots=True)
class Pruned:
    """What was let go, or would be: backups by number, packs, bytes in the repository before and after."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]
    deleted_pack_count: int
    rewritten_pack_count: int
    bytes_before: int
    bytes_after: int


def prune_repository(
    shelf: Shelf,
    rule: KeepRule,
    holder: str,
    say: Say = lambda _text: None,
    now: Callable[[], int] = time.time_ns,
    *,
    dry_run: bool = False,
) -> Pruned:
    """Prune by a rule. Raises `CanneryError`; whatever happens, kept backups stay valid."""
    if not rule.keeps_something:
        raise BackupError("say what to keep: --keep-last, --keep-daily or --keep-weekly with at least 1")
    with shelf.lock(holder, now()) as lock:
        repository = open_repository(shelf)
        backups = repository.backups()
        repository.load_index(say)
        kept = plan_keep((backup.head for backup in backups), rule)
        dropped = [backup for backup in backups if backup.head.number not in kept]
        # Before anything goes: a kept backup that cannot be read stops the pruning here.
        needed: set[bytes] = set()
        for backup in backups:
            if backup.head.number in kept:
                for unit in repository.units(backup, backups).values():
                    needed.update(unit.chunks)
        for chunk in needed:
            if not repository.has(chunk):
                raise BackupError(
                    f"chunk {chunk.hex()[:16]} of a backup that stays is in no pack: nothing was pruned; "
                    "'cannery backup verify' tells more"
                )
        packs = {
            name: {chunk: place.size_bytes for chunk, place in places.items()}
            for name, places in repository.packs.items()
        }
        plan = plan_packs(measure_packs(packs, needed))
        before = sum(stored.size_bytes for stored in shelf.list())
        if not dry_run:
            pruning = _Pruning(repository, backups, lock, now, say)
            pruning.drop_backups(kept)
            written = pruning.rewrite(plan, needed)
            # What an earlier pruning had moved comes out as the very pack that it left.
            pruning.delete(pack for pack in (*plan.delete, *plan.rewrite) if pack not in written)
        after = sum(stored.size_bytes for stored in shelf.list())
    return Pruned(
        tuple(sorted(kept)),
        tuple(backup.head.number for backup in dropped),
        len(plan.delete),
        len(plan.rewrite),
        before,
        after,
    )


class _Pruning:
    """The steps of a pruning, under the lock."""

    def __init__(
        self, repository: Repository, backups: Sequence[Backup], lock: Lock, now: Callable[[], int], say: Say
    ) -> None:
        self._repository = repository
        self._backups = backups
        self._lock = lock
        self._now = now
        self._say = say

    def drop_backups(self, kept: frozenset[int]) -> None:
        """Write anew what must be whole, then delete the manifests of backups that go, the newest first, so
        that no difference ever stands without its base.
        """
        repository, heads = self._repository, [backup.head for backup in self._backups]
        whole = plan_whole(heads, kept)
        staying = set()
        for backup in self._backups:
            number = backup.head.number
            if number in whole:
                self._say(f"writing backup {number} anew")
                self._renew()
                manifest = whole_manifest(backup.head, repository.units(backup, self._backups))
                staying.add(repository.write_manifest(manifest)[0])
            elif number in kept:
                staying.add(backup.name)
        for name in reversed(repository.manifest_names()):
            if name not in staying:
                self._renew()
                repository.shelf.delete(str(name))

    def rewrite(self, plan: PackPlan, needed: set[bytes]) -> frozenset[str]:
        """Copy what is needed out of packs into new ones, and give the names of these."""
        going = {*plan.delete, *plan.rewrite}
        elsewhere = {
            chunk for name, places in self._repository.packs.items() if name not in going for chunk in places
        }
        fresh = Repository(self._repository.shelf, self._repository.id)
        writer = PackWriter(fresh, self._renew)
        for pack in plan.rewrite:
            self._say("moving chunks out of a pack that is mostly not needed")
            for chunk in self._repository.packs[pack]:
                if chunk in needed and chunk not in elsewhere:
                    writer.add(self._repository.chunk(chunk))
        writer.flush()
        return frozenset(fresh.packs)

    def delete(self, packs: Iterable[str]) -> None:
        """Delete packs."""
        for pack in packs:
            self._renew()
            self._repository.shelf.delete(pack_name(pack))

    def _renew(self) -> None:
        self._lock.renew(self._now())
