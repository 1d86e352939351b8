"""Where backups lie: a folder, and the stores of obstore; locks, crashes within a write, refusals."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from obstore.store import LocalStore, MemoryStore

from cannery.limits import BACKUP_LOCK_NS_MAX
from cannery.node.backup.errors import MissingError, RepositoryLockedError, ShelfError
from cannery.node.backup.shelf import Shelf, Stored, open_shelf
from cannery.node.backup.shelf_folder import FolderShelf
from cannery.node.backup.shelf_objects import ObjectShelf
from cannery.node.backup.verify import drill, verify_repository
from tests.backup.stand import Stand


class CrashError(BaseException):
    """The process ends here."""


@pytest.fixture(params=["folder", "memory", "local"])
def shelf(request: pytest.FixtureRequest, tmp_path: Path) -> Shelf:
    if request.param == "folder":
        return FolderShelf(tmp_path / "shelf")
    if request.param == "memory":
        return ObjectShelf(MemoryStore(), "memory://")
    return ObjectShelf(LocalStore(tmp_path / "shelf", mkdir=True), "local://")


def test_objects_are_put_read_listed_and_deleted(shelf: Shelf) -> None:
    assert list(shelf.list()) == []
    shelf.put("packs/one", b"0123456789")
    shelf.put("two", b"")
    assert shelf.get("packs/one") == b"0123456789"
    assert shelf.get_range("packs/one", 2, 3) == b"234"
    assert sorted(shelf.list(), key=lambda found: found.name) == [Stored("packs/one", 10), Stored("two", 0)]
    with pytest.raises(MissingError, match="three is not there"):
        shelf.get("three")
    shelf.delete("packs/one")
    shelf.delete("packs/one")
    assert [found.name for found in shelf.list()] == ["two"]


def test_a_node_is_backed_up_to_any_store(shelf: Shelf, tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    canisters = stand.fill(3)
    stand.back_up(shelf)
    stand.change(canisters)
    stand.back_up(shelf)
    assert verify_repository(shelf).problems == ()
    assert drill(shelf, None, lambda _text: None).replayed_from == 1


def test_one_lock_at_a_time(shelf: Shelf) -> None:
    with (
        shelf.lock("process 1 on a", 0),
        pytest.raises(RepositoryLockedError, match="process 1 on a"),
        shelf.lock("process 2 on b", 1),
    ):
        pass
    with shelf.lock("process 2 on b", 2):
        assert list(shelf.list()) == [], "the lock is no object"


def test_a_lapsed_lock_is_taken_over_by_one_alone_and_its_holder_hears_so() -> None:
    shelf = ObjectShelf(MemoryStore(), "memory://")
    with shelf.lock("slow", 0) as slow:
        slow.renew(BACKUP_LOCK_NS_MAX)
        with pytest.raises(RepositoryLockedError, match="slow"), shelf.lock("b", BACKUP_LOCK_NS_MAX + 1):
            pass
        with shelf.lock("fast", 2 * BACKUP_LOCK_NS_MAX + 1) as fast:
            with pytest.raises(RepositoryLockedError, match="took it over"):
                slow.renew(2 * BACKUP_LOCK_NS_MAX + 2)
            fast.renew(3 * BACKUP_LOCK_NS_MAX)
            with pytest.raises(RepositoryLockedError, match="fast"), shelf.lock("c", 3 * BACKUP_LOCK_NS_MAX):
                pass


def test_a_store_without_conditional_writes_cannot_take_a_lock_over(tmp_path: Path) -> None:
    shelf = ObjectShelf(LocalStore(tmp_path, mkdir=True), "local://")
    shelf.put("lock", b'{"holder": "crashed", "until_ns": 1}')
    with pytest.raises(ShelfError, match="does not support conditional writes"), shelf.lock("b", 2):
        pass


def test_a_folders_lock_goes_with_its_process(tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path)
    child = os.fork()
    if child == 0:
        lock = shelf.lock("a child", 0)
        lock.__enter__()
        os._exit(0)
    os.waitpid(child, 0)
    with shelf.lock("a parent", 0):
        pass


# A backup syncs the pack, its folder, the manifest, its folder, and renames each file once.
@pytest.mark.parametrize(
    ("step", "crashes_at", "count"),
    [("fsync", 0, 1), ("fsync", 1, 1), ("fsync", 2, 1), ("fsync", 3, 2), ("rename", 0, 1), ("rename", 1, 1)],
)
def test_a_crash_in_the_middle_of_a_write_leaves_nothing_that_counts(
    step: str, crashes_at: int, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand = Stand(tmp_path)
    canisters = stand.fill(2)
    stand.back_up()
    stand.change(canisters)
    real, left = getattr(os, step), crashes_at

    def crash(*args: object) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise CrashError
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(os, step, crash)
        with pytest.raises(CrashError):
            stand.back_up()
    assert bool(list(stand.place.rglob("*.partial"))) == (step == "rename" or crashes_at in (0, 2))
    checked = verify_repository(stand.shelf)
    assert (checked.problems, len(checked.backups)) == ((), count)
    stand.back_up()
    assert not list(stand.place.rglob("*.partial"))
    checked = verify_repository(stand.shelf)
    assert (checked.problems, len(checked.backups)) == ((), count + 1)


def test_a_full_disk_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    shelf = FolderShelf(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        ShelfError, match=r"the disk is full: .* Make room, or prune, and run the backup again"
    ):
        shelf.put("a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_places_are_told_apart() -> None:
    assert isinstance(open_shelf("some/folder"), FolderShelf)
    assert isinstance(open_shelf("file:///some/folder"), FolderShelf)
    assert isinstance(open_shelf("s3://bucket/path"), ObjectShelf)
    with pytest.raises(ShelfError, match=r"nope://x cannot be opened .*: say a folder, or a URL"):
        open_shelf("nope://x")
