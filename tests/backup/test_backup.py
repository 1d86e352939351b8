"""Backups of a node on RocksDB: made, made again, damaged, cut short at each step, restored, replayed."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from msgspec.structs import replace

from cannery.errors import CanneryError
from cannery.node.backup.errors import BackupError, RepositoryLockedError, ShelfError
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.prune_plan import KeepRule
from cannery.node.backup.format.time_plan import ReplayPlan, plan_block
from cannery.node.backup.prune import prune_repository
from cannery.node.backup.repository import open_repository
from cannery.node.backup.restore import Restored, restore_node
from cannery.node.backup.shelf import Shelf
from cannery.node.backup.shelf_folder import FolderShelf
from cannery.node.backup.source import open_source
from cannery.node.backup.verify import drill, verify_repository
from cannery.node.data_dir import DataLock, open_data_dir
from cannery.node.store_rocksdb import DiskFullError, RocksStore
from cannery.replica.block import ReplicaConfig
from tests.backup.stand import FailingShelf, Stand


def silent(_text: str) -> None:
    """Take a word about how far it is."""


def restore(shelf: Shelf, target: Path, plan: ReplayPlan | None = None) -> Restored:
    repository = open_repository(shelf)
    backups = repository.backups()
    repository.load_index(silent)
    return restore_node(repository, backups, plan or ReplayPlan(backups[-1].head, None), target, silent)


@pytest.fixture
def stand(tmp_path: Path) -> Stand:
    return Stand(tmp_path)


def test_a_restored_node_has_the_same_state_and_goes_on(stand: Stand, tmp_path: Path) -> None:
    canisters = stand.fill(5)
    (stand.data / "cannery.toml").write_text("[node]\nport = 5000\n")
    made = stand.back_up()
    before, target = stand.state_hash(), tmp_path / "restored"
    done = restore(stand.shelf, target)
    assert done.state_hash == made.head.state_hash == before == stand.state_hash(target)
    for name in ("format", "cannery.toml", "operator.pem", "keys/root.bls", "keys/node.pem"):
        assert (target / name).read_bytes() == (stand.data / name).read_bytes()
        assert (target / name).stat().st_mode & 0o777 == 0o600
    assert target.stat().st_mode & 0o777 == 0o700
    open_data_dir(target)[1].release()
    with stand.node() as node:
        kept = node.actor(canisters[0].id, stand.module).row(2)
    with stand.node(target) as node:
        assert node.subnet.head.number > made.head.block.number, "it runs its next block"
        book = node.actor(canisters[0].id, stand.module)
        assert book.row(2) == kept
        book.fill(0, 1)
        assert book.row(0) != kept


def test_all_files_of_a_repository_are_their_owners_alone(stand: Stand) -> None:
    stand.fill(1)
    stand.back_up()
    for path in [stand.place, *stand.place.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


def test_an_unchanged_node_costs_a_manifest_and_a_changed_canister_its_own_chunks(stand: Stand) -> None:
    canisters = stand.fill(2_000)
    first = stand.back_up()
    again = stand.back_up()
    assert again.head.written_bytes == 0
    assert again.written_bytes < 1_000
    stand.change(canisters[::100])
    second = stand.back_up()
    assert second.changed_count < 40
    assert second.written_bytes <= 0.03 * first.written_bytes, (second.written_bytes, first.written_bytes)
    assert verify_repository(stand.shelf).problems == ()
    assert drill(stand.shelf, None, silent).replayed_from == 2


def test_without_keys_no_secret_is_in_any_file(stand: Stand, tmp_path: Path) -> None:
    stand.fill(1)
    stand.back_up(with_keys=False)
    restore(stand.shelf, tmp_path / "restored")
    assert not (tmp_path / "restored" / "operator.pem").exists()
    assert not list((tmp_path / "restored" / "keys").iterdir())
    repository = open_repository(stand.shelf)
    repository.load_index(silent)
    secrets = [
        (stand.data / name).read_bytes() for name in ("operator.pem", "keys/root.bls", "keys/node.pem")
    ]
    for places in repository.packs.values():
        for chunk in places:
            assert not any(secret in repository.chunk(chunk) for secret in secrets)


def test_a_copy_of_a_running_store_holds_whole_rounds_that_are_durable(stand: Stand, tmp_path: Path) -> None:
    from cannery.node.store_rocksdb import RocksCopy
    from cannery.replica.keys import HEAD_KEY, block_key
    from cannery.replica.records import HEAD

    (canister, *_) = stand.fill(1)
    with stand.node() as node:
        actor = node.actor(canister.id, stand.module)
        actor.fill(0, 1)
        durable = node.subnet.head.number
        # A round that is written and that no sync has covered yet.
        actor["fill"].submit(0, 1)
        node.subnet.run_round()
        assert node.subnet.head.number == durable
        block = node.subnet.checkpoint(str(tmp_path / "copy"))
        assert block == durable + 1
        actor.fill(0, 1)
        with pytest.raises(CanneryError, match="there is something already"):
            node.subnet.checkpoint(str(tmp_path / "copy"))
    copy = RocksCopy(str(tmp_path / "copy"))
    stored = copy.get(HEAD_KEY)
    assert stored is not None
    assert HEAD.decode(stored).number == block
    assert copy.get(block_key(block)) is not None
    assert copy.get(block_key(block + 1)) is None
    copy.close()
    with pytest.raises(CanneryError, match="is closed"):
        copy.get(HEAD_KEY)


def test_what_the_first_version_wrote_opens_for_ever(tmp_path: Path) -> None:
    """`tests/formats/backup-1`: two backups without keys of 12 canisters, the second one a difference."""
    shelf = FolderShelf(Path(__file__).parents[1] / "formats" / "backup-1")
    checked = verify_repository(shelf)
    assert (checked.problems, checked.chunk_count) == ((), 37)
    first, second = (backup.head for backup in checked.backups)
    assert (first.base, second.base is not None, second.follows) == (None, True, (1,))
    assert (first.canister_count, second.canister_count, second.has_keys) == (12, 12, False)
    repository = open_repository(shelf)
    repository.load_index(silent)
    done = restore_node(repository, repository.backups(), ReplayPlan(second, None), tmp_path / "old", silent)
    assert done.state_hash.hex() == "41b1df27f0be3acd1695dd15408331a99ef80af62ddc5acf0970e9373735d356"
    assert done.root.hex() == "04349cc6a64ae6465622b83670cfeefc7e7b353729a37bedb94b75fd79bcad99"


# --- points in time


def test_every_block_between_two_backups_can_be_gone_back_to(stand: Stand, tmp_path: Path) -> None:
    (canister, *_) = stand.fill(2)
    first = stand.back_up().head
    states = {}
    with stand.node() as node:
        actor = node.actor(canister.id, stand.module)
        for _ in range(4):
            actor.fill(0, 2)
            actor.wake()
            node.advance(seconds=61)
            states[node.subnet.head.number] = actor.row(0), actor.row(100)
    last = stand.back_up().head
    assert last.follows == (first.number,)
    heads = [first, last]
    for block, (row, ticked) in states.items():
        target = tmp_path / f"at-{block}"
        plan = plan_block(heads, block)
        assert plan is not None
        done = restore(stand.shelf, target, plan)
        assert (done.block, done.replayed_count) == (block, block - first.block.number if plan.blocks else 0)
        if block == last.block.number:
            assert done.state_hash == last.state_hash
        with stand.node(target) as node:
            actor = node.actor(canister.id, stand.module)
            assert (actor.row(0), actor.row(100)) == (row, ticked)
    drilled = drill(stand.shelf, None, silent)
    assert drilled.replayed is not None
    assert drilled.replayed.root == last.block.root


def test_a_replay_runs_under_the_nodes_seed_of_hashes(stand: Stand) -> None:
    """Blocks whose effect hangs on the order of a set replay under the node's own seed alone."""
    import os
    import subprocess
    import sys

    (canister, *_) = stand.fill(1)
    seed = stand.back_up().head.hash_seed
    code = (
        "import sys; from pathlib import Path; from tests.backup.stand import Stand, Small;"
        "stand = Stand(Path(sys.argv[1]));\n"
        "with stand.node() as node:\n"
        "    from cannery.protocol.principal import Principal\n"
        "    node.actor(Principal.parse(sys.argv[2]), Small).keep_order()\n"
    )
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}", "PYTHONHASHSEED": str(seed)}
    command = [sys.executable, "-c", code, str(stand.data.parent), str(canister.id)]
    subprocess.run(command, env=environment, check=True, cwd=root)
    stand.back_up()
    drilled = drill(stand.shelf, None, silent)
    assert drilled.replayed is not None
    assert drilled.replayed.replayed_count > 0

    environment["PYTHONHASHSEED"] = str(seed ^ 1)
    subprocess.run(command, env=environment, check=True, cwd=root)
    stand.back_up()
    with pytest.raises(BackupError, match="gives another"):
        drill(stand.shelf, None, silent)


def test_blocks_of_another_history_lead_nowhere(stand: Stand, tmp_path: Path) -> None:
    (canister, *_) = stand.fill(1)
    stand.back_up()
    stand.change([canister])
    stand.back_up()
    # The node goes back to the first backup and on from there, over the same numbers.
    heads = [backup.head for backup in open_repository(stand.shelf).backups()]
    shutil.rmtree(stand.data)
    restore(stand.shelf, stand.data, ReplayPlan(heads[0], None))
    with stand.node() as node:
        node.advance(seconds=7200)
        for _ in range(6):
            node.actor(canister.id, stand.module).fill(0, 1)
    third = stand.back_up().head
    assert third.block.number > heads[1].block.number
    assert third.follows == (1,)


def test_blocks_that_fell_out_of_the_window_end_the_span(tmp_path: Path) -> None:
    stand = Stand(tmp_path, replace(ReplicaConfig(), block_window_count=5))
    (canister, *_) = stand.fill(1)
    stand.back_up()
    stand.change([canister] * 10)
    assert stand.back_up().head.follows == ()
    assert drill(stand.shelf, None, silent).replayed is None


# --- damage


def test_every_flipped_byte_is_found_and_named(stand: Stand) -> None:
    canisters = stand.fill(2)
    stand.back_up()
    stand.change(canisters)
    stand.back_up()
    files = [path for path in sorted(stand.place.rglob("*")) if path.is_file() and path.name != "lock"]
    assert len(files) == 5
    for path in files:
        sound = path.read_bytes()
        # Every byte of small files, some of large ones.
        for at in range(0, len(sound), 1 + len(sound) // 200):
            path.write_bytes(sound[:at] + bytes((sound[at] ^ 0x55,)) + sound[at + 1 :])
            if path.name == "cannery-backup":
                with pytest.raises(BackupFormatError, match="is damaged"):
                    verify_repository(stand.shelf)
                continue
            problems = verify_repository(stand.shelf).problems
            assert any(path.name in problem for problem in problems), (path, at)
        path.unlink()
        # Nothing says that there was a backup after the last one.
        if not path.name.startswith(("cannery-backup", "00000002")):
            assert verify_repository(stand.shelf).problems, path
        path.write_bytes(sound)
    assert verify_repository(stand.shelf).problems == ()


def test_a_lost_pack_is_written_anew_by_the_next_backup(stand: Stand) -> None:
    stand.fill(3)
    made = stand.back_up()
    (pack,) = (stand.place / "packs").iterdir()
    pack.unlink()
    (problem,) = verify_repository(stand.shelf).problems
    assert problem.startswith("backup 1 cannot be restored whole: ")
    assert " units lack " in problem
    assert problem.endswith(" more"), "one line for a backup, however much it holds"
    assert stand.back_up().head.written_bytes == made.head.written_bytes
    assert verify_repository(stand.shelf).problems == ()


def test_where_a_base_is_lost_the_next_backup_is_whole_by_itself(stand: Stand, tmp_path: Path) -> None:
    canisters = stand.fill(2)
    stand.back_up()
    stand.change(canisters)
    assert stand.back_up().head.base is not None
    (lost,) = stand.place.rglob("*00000001-*")
    lost.unlink()
    stand.change(canisters)
    made = stand.back_up()
    assert (made.head.number, made.head.base) == (3, None)
    restore(stand.shelf, tmp_path / "restored")
    assert stand.state_hash(tmp_path / "restored") == stand.state_hash()


def test_a_damaged_backup_restores_nothing(stand: Stand, tmp_path: Path) -> None:
    stand.fill(3)
    stand.back_up()
    (pack,) = (stand.place / "packs").iterdir()
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    with pytest.raises(BackupFormatError, match="take another backup, or that file from a copy"):
        restore(stand.shelf, tmp_path / "restored")
    assert not list((tmp_path / "restored").iterdir())


def test_a_foreign_folder_is_left_alone(stand: Stand, tmp_path: Path) -> None:
    stand.fill(1)
    stand.place.mkdir()
    (stand.place / "photo.jpg").write_bytes(b"jpg")
    with pytest.raises(BackupError, match=r"holds 'photo.jpg'"):
        stand.back_up()
    with pytest.raises(BackupError, match="no repository"):
        verify_repository(stand.shelf)
    assert [path.name for path in stand.place.iterdir() if path.name != "lock"] == ["photo.jpg"]
    (stand.place / "photo.jpg").unlink()
    (stand.place / "lock").unlink()
    stand.back_up()
    (stand.place / "photo.jpg").write_bytes(b"jpg")
    assert verify_repository(stand.shelf).problems == ("photo.jpg is a foreign file: move it away",)
    with pytest.raises(BackupError, match="is not empty"):
        restore(stand.shelf, stand.place)


def test_a_newer_repository_names_its_version(stand: Stand) -> None:
    stand.place.mkdir()
    (stand.place / "cannery-backup").write_bytes(b"cannery backup 2\n")
    with pytest.raises(BackupFormatError, match="use the version that wrote it"):
        stand.back_up()


# --- cut short


def test_a_backup_that_fails_at_any_step_harms_nothing_and_the_next_goes_on(stand: Stand) -> None:
    canisters = stand.fill(3)
    stand.back_up()
    stand.change(canisters)
    fails_at = 0
    while True:
        shelf = FailingShelf(stand.shelf, fails_at)
        with suppress(ShelfError):
            stand.back_up(shelf)
        if not shelf.has_failed:
            break
        checked = verify_repository(stand.shelf)
        assert checked.problems == ()
        assert [backup.head.number for backup in checked.backups] == [1]
        assert not (stand.data / "subnet-0" / "checkpoint").exists()
        fails_at += 1
    assert fails_at > 4
    checked = verify_repository(stand.shelf)
    assert len(checked.backups) == 2
    assert checked.pack_count == 2, "the pack of a backup that was cut short is used"
    drill(stand.shelf, None, silent)


def test_a_pruning_that_fails_at_any_step_harms_nothing_and_the_next_goes_on(
    stand: Stand, tmp_path: Path
) -> None:
    canisters = stand.fill(6, rows=200)
    for _ in range(4):
        stand.change(canisters[:5])
        newest = stand.back_up().head
    kept = tmp_path / "kept"
    stand.place.rename(kept)
    fails_at = 0
    while True:
        shutil.rmtree(stand.place, ignore_errors=True)
        shutil.copytree(kept, stand.place)
        shelf = FailingShelf(stand.shelf, fails_at)
        with suppress(ShelfError):
            done = prune_repository(shelf, KeepRule(last=2), "a test")
        if not shelf.has_failed:
            break
        assert verify_repository(stand.shelf).problems == ()
        backups = open_repository(stand.shelf).backups()
        assert [backup.head.number for backup in backups][-2:] == [3, 4]
        finished = prune_repository(stand.shelf, KeepRule(last=2), "a test")
        assert finished.kept == (3, 4)
        assert verify_repository(stand.shelf).problems == ()
        fails_at += 1
    assert fails_at > 8
    assert (done.kept, done.dropped) == ((3, 4), (1, 2))
    assert done.bytes_after < done.bytes_before
    assert done.deleted_pack_count + done.rewritten_pack_count > 0
    checked = verify_repository(stand.shelf)
    assert checked.problems == ()
    assert restore(stand.shelf, tmp_path / "restored").state_hash == newest.state_hash
    assert prune_repository(stand.shelf, KeepRule(last=2), "a test").deleted_pack_count == 0


def test_a_dry_run_changes_nothing(stand: Stand) -> None:
    stand.fill(1)
    stand.back_up()
    stand.back_up()
    before = sorted(path.name for path in stand.place.rglob("*"))
    done = prune_repository(stand.shelf, KeepRule(last=1), "a test", dry_run=True)
    assert done.dropped == (1,)
    assert sorted(path.name for path in stand.place.rglob("*")) == before
    with pytest.raises(BackupError, match="say what to keep"):
        prune_repository(stand.shelf, KeepRule(), "a test")


def test_a_restoration_that_was_cut_short_is_no_data_directory_and_can_be_run_again(
    stand: Stand, tmp_path: Path
) -> None:
    stand.fill(2)
    stand.back_up()
    target, fails_at = tmp_path / "restored", 0
    while True:
        shelf = FailingShelf(stand.shelf, fails_at)
        with suppress(ShelfError):
            restore(shelf, target)
        if not shelf.has_failed:
            break
        assert not (target / "format").exists()
        fails_at += 1
    assert fails_at > 3
    assert stand.state_hash(target) == stand.state_hash()
    assert not (target / "restoring").exists()


def test_a_restoration_onto_a_full_disk_says_where_there_is_no_room(
    stand: Stand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand.fill(2)
    stand.back_up()

    def full(*_args: object) -> None:
        raise DiskFullError("make room where the node's data stands, it goes on by itself")

    monkeypatch.setattr(RocksStore, "write", full)
    target = tmp_path / "restored"
    with pytest.raises(BackupError, match=rf"cannot restore into {target} \(the disk is full\): make room"):
        restore(stand.shelf, target)
    monkeypatch.undo()
    restore(stand.shelf, target)
    assert stand.state_hash(target) == stand.state_hash()


# --- two at once


def test_two_at_once_are_told_apart(stand: Stand) -> None:
    stand.fill(1)
    stand.back_up()
    with (
        stand.shelf.lock("process 7 on host", 0),
        pytest.raises(RepositoryLockedError, match="process 7 on host: wait"),
    ):
        stand.back_up()
    # Into two repositories: the copy of the store is one backup's.
    other = FolderShelf(stand.place.with_name("others"))
    with (
        open_source(stand.data, silent),
        pytest.raises(BackupError, match=r"another backup of .* is under way: wait"),
    ):
        stand.back_up(other)
    stand.back_up(other)
    stand.back_up()


def test_a_store_that_is_in_use_by_no_node_is_named(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    stand.fill(1)
    monkeypatch.setattr("cannery.node.backup.source.BACKUP_CONNECT_WAIT_S_MAX", 0.0)
    lock = DataLock(stand.data / "lock")
    with pytest.raises(BackupError, match="no node answers"):
        stand.back_up()
    lock.release()
    stand.back_up()


def test_what_is_no_data_directory_is_refused(stand: Stand, tmp_path: Path) -> None:
    stand.data = tmp_path / "nowhere"
    with pytest.raises(CanneryError, match="is no data directory"):
        stand.back_up()
    assert not (tmp_path / "nowhere").exists()
