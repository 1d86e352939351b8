"""Attachments, the file system and metadata by Diode's methods, with the faults that theirs had."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from cannery import LogRule, Principal, WhenFull, encode_args
from cannery.apps.zones import bounds
from cannery.apps.zones.diode_types import Done, NatResult, ZoneInit
from cannery.apps.zones.file_tree import ROOT
from cannery.apps.zones.roles import Role
from cannery.apps.zones.zone import Zone
from cannery.ports import EntryKind
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Rejected
from tests.apps.zones.world import ZoneWorld, digest
from tests.cdk.driver import Driver
from tests.cdk.memory_system import CALLER

DAY_S = 24 * 3_600


def limited(bytes_max: int) -> LogRule:
    return LogRule(1_000, bytes_max, None, WhenFull.prune_oldest())


# attachments


def test_an_attachment_in_one_piece(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    data = b"picture" * 30_000
    assert ann.write_attachment(digest(data), data).tag == "ok"
    assert ann.write_attachment(digest(data), data).tag == "ok"
    assert ann.get_attachment(digest(data)).ok == data
    assert ann.read_attachment_chunk(digest(data), 65_530, 20).ok == data[65_530:65_550]
    facts = ann.get_attachment_metadata(digest(data)).ok
    assert (facts.finalized, facts.size, facts.timestamp) == (True, len(data), world.node.now_ns // 10**9)
    assert ann.get_attachment_count() == 1
    assert len(data) < ann.get_attachment_usage() < len(data) + 3_000
    assert ann.write_attachment(digest(b"other"), data).err.startswith("hash mismatch")
    assert ann.get_attachment_count() == 1, "what was refused leaves nothing"
    ann.delete_attachment(digest(data))
    assert (ann.get_attachment_count(), ann.get_attachment_usage()) == (0, 0)
    assert ann.get_attachment(digest(data)).err == "attachment not found"


def test_an_attachment_in_chunks(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    data = bytes(range(256)) * 700
    name = digest(data)
    assert ann.allocate_attachment(name, len(data)).ok == 0
    assert ann.allocate_attachment(name, len(data)).ok == 0
    assert "begun with 179200 bytes, not 5" in ann.allocate_attachment(name, 5).err
    for at in (100_000, 0, 150_000, 50_000, 50_000):
        assert ann.write_attachment_chunk(name, at, data[at : at + 50_000]).tag == "ok"
    assert "chunk out of bounds" in ann.write_attachment_chunk(name, len(data), b"x").err
    assert ann.get_attachment(name).err == "attachment is not finalized"
    assert ann.read_attachment_chunk(name, 0, 1).err == "attachment is not finalized"
    assert not ann.get_attachment_metadata(name).ok.finalized
    assert ann.finalize_attachment(name).tag == "ok"
    assert ann.finalize_attachment(name).tag == "ok"
    assert "finalized: it cannot be changed" in ann.write_attachment_chunk(name, 0, b"x").err
    assert ann.get_attachment(name).ok == data
    assert "out of bounds" in ann.read_attachment_chunk(name, 179_000, 300).err


def test_attachments_of_wrong_sizes_and_hashes_are_refused(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(attachments=limited(1_000))
    for result, text in (
        (ann.allocate_attachment(b"short", 5), "identity_hash must be 32 bytes, not 5"),
        (ann.allocate_attachment(bytes(32), 0), "size must be greater than 0"),
        (ann.allocate_attachment(bytes(32), 1_000), "size is too large"),
        (ann.allocate_attachment(bytes(32), 2**63), "size is too large"),
        (ann.write_attachment_chunk(bytes(32), 0, b"x"), "attachment not found"),
        (ann.finalize_attachment(bytes(32)), "attachment not found"),
        (ann.write_attachment(b"short", b"x"), "identity_hash must be 32 bytes"),
        (ann.read_attachment_chunk(bytes(32), 0, 4_000_001), "a chunk has at most 4000000 bytes"),
    ):
        assert text in result.err
    ann.allocate_attachment(digest(b"four"), 4)
    ann.write_attachment_chunk(digest(b"four"), 0, b"fo")
    assert "not whole: bytes 2 to 4 are missing" in ann.finalize_attachment(digest(b"four")).err
    ann.write_attachment_chunk(digest(b"four"), 2, b"ul")
    assert "hash mismatch" in ann.finalize_attachment(digest(b"four")).err
    assert ann.get_attachment(digest(b"four")).tag == "err"


def test_the_oldest_attachments_make_room_and_nobody_gets_anothers_bytes(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(attachments=limited(10_000))
    bodies = [bytes([i]) * (900 + 90 * i) for i in range(30)]
    for i, data in enumerate(bodies):
        assert ann.write_attachment(digest(data), data).tag == "ok"
        assert ann.get_attachment_usage() <= 10_000
        kept = [d for d in bodies[: i + 1] if ann.get_attachment(digest(d)).tag == "ok"]
        assert kept == bodies[i + 1 - len(kept) : i + 1], "what goes is the oldest"
        assert [ann.get_attachment(digest(d)).ok for d in kept] == kept
    assert ann.get_attachment_max_usage() == 10_000


def test_an_upload_that_nobody_finishes_gives_its_room_back(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.retain(attachments=LogRule(1, 10**6, None, WhenFull.refuse()))
    assert ann.allocate_attachment(bytes(32), 5).tag == "ok"
    assert "no room" in ann.write_attachment(digest(b"x"), b"x").err
    world.node.advance(seconds=DAY_S + 1)
    assert ann.write_attachment(digest(b"x"), b"x").tag == "ok"


def test_a_member_removed_in_mid_download_gets_no_further_chunk(world: ZoneWorld) -> None:
    bob = world.join("bob", Role.reader())
    world.as_("ann").write_attachment(digest(b"picture"), b"picture")
    assert bob.read_attachment_chunk(digest(b"picture"), 0, 3).ok == b"pic"
    world.as_("ann").member_remove(world.node.principal("bob"))
    with pytest.raises(Rejected, match="Not a member"):
        bob.read_attachment_chunk(digest(b"picture"), 3, 4)


# files

DOCS = b"docs-dir"


@pytest.fixture
def drive(world: ZoneWorld) -> ZoneWorld:
    assert world.as_("ann").create_directory(DOCS, b"docs", ROOT).tag == "ok"
    return world


def test_directories_stand_in_each_other(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    assert ann.create_directory(b"sub-docs", b"sub", DOCS).tag == "ok"
    for result, text in (
        (ann.create_directory(b"short", b"n", ROOT), "directory_id must be at least 8 bytes"),
        (ann.create_directory(bytes(65), b"n", ROOT), "at most 64, not 65"),
        (ann.create_directory(ROOT, b"n", ROOT), "reserved root ID"),
        (ann.create_directory(b"orphan--", b"n", None), "without parent"),
        (ann.create_directory(b"orphan--", b"n", b"nowhere-"), "parent directory not found"),
        (ann.create_directory(DOCS, b"n", ROOT), "directory already exists"),
        (ann.create_directory(b"long-name", bytes(4_097), ROOT), "a name has at most 4096 bytes"),
    ):
        assert text in result.err
    root = ann.get_directory(ROOT)
    assert (root.child_directories, root.child_files, root.parent_id) == ([DOCS], [], None)
    assert [d.id for d in ann.get_child_directories(DOCS)] == [b"sub-docs"]
    assert ann.get_directory(b"sub-docs").parent_id == DOCS
    assert ann.get_directory(b"nowhere-") is None
    assert ann.get_directory_count() == 3


def test_files_share_contents_and_the_last_one_frees_them(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    data = b"report" * 1_000
    first = ann.write_file(DOCS, b"name", digest(data), data).ok
    second = ann.write_file(ROOT, b"copy", digest(data), data).ok
    assert (first, second, ann.get_last_file_id(), ann.get_file_count()) == (1, 2, 2, 2)
    assert ann.write_file(ROOT, b"copy", digest(data), data).ok == second, "the same file again is the same"
    used = ann.get_file_system_usage()
    assert ann.get_file_by_hash(digest(data)).ok.id == first
    file = ann.get_file_by_id(second)
    assert (file.directory_id, file.metadata_ciphertext, file.size, file.finalized) == (
        ROOT,
        b"copy",
        6_000,
        True,
    )
    assert [f and f.id for f in ann.get_file_by_id_batch([2, 9, 1])] == [2, None, 1]
    assert ann.delete_file(first).tag == "ok"
    assert ann.get_file_system_usage() == used
    assert ann.read_file_chunk(digest(data), 6, 6).ok == b"report"
    assert ann.get_directory(DOCS).child_files == [], "it is gone from its directory too"
    assert ann.delete_file(second).tag == "ok"
    assert (ann.get_file_system_usage(), ann.get_file_count()) == (0, 0)
    assert ann.read_file_chunk(digest(data), 0, 1).err == "file not found"
    assert ann.delete_file(second).err == "file not found"
    assert ann.get_file_by_hash(digest(data)).err == "file not found"


def test_a_file_in_chunks_shows_when_it_is_whole(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    data = bytes(range(250)) * 400
    name = digest(data)[:20]
    file = ann.allocate_file(DOCS, b"n", name, len(data)).ok
    assert (file.id, file.finalized, file.size, file.offset) == (1, False, len(data), 0)
    assert ann.write_file_chunk(name, 50_000, data[50_000:]).tag == "ok"
    assert ann.get_files_in_directory(DOCS) == []
    assert ann.get_directory(DOCS).child_files == []
    assert ann.read_file_chunk(name, 50_000, 5).err == "file is not finalized"
    assert "bytes 0 to 50000 are missing" in ann.finalize_file(name).err
    assert ann.write_file_chunk(name, 0, data[:50_000]).tag == "ok"
    assert ann.finalize_file(name).tag == "ok"
    assert [f.id for f in ann.get_files_in_directory(DOCS)] == [1]
    assert ann.read_file_chunk(name, 65_000, 2_000).ok == data[65_000:67_000]
    assert "cannot be changed" in ann.write_file_chunk(name, 0, b"x").err


def test_files_of_wrong_sizes_and_hashes_are_refused(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    drive.retain(files=limited(1_000))
    for result, text in (
        (ann.allocate_file(b"nowhere-", b"n", bytes(32), 5), "directory not found"),
        (ann.allocate_file(DOCS, b"n", bytes(15), 5), "content_hash must be at least 16 bytes"),
        (ann.allocate_file(DOCS, b"n", bytes(33), 5), "at most 32, not 33"),
        (ann.allocate_file(DOCS, b"n", bytes(32), 0), "size must be greater than 0"),
        (ann.allocate_file(DOCS, b"n", bytes(32), 1_000), "size is too large"),
        (ann.write_file(DOCS, b"n", digest(b"x"), b"y"), "hash mismatch"),
        (ann.write_file_chunk(bytes(32), 0, b"x"), "file not found"),
    ):
        assert text in result.err
    assert (ann.get_file_count(), ann.get_file_system_usage()) == (0, 0), "what was refused leaves nothing"


def test_the_oldest_contents_make_room_with_all_their_files(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    drive.retain(files=limited(3_000))
    bodies = [bytes([i]) * 800 for i in range(6)]
    for data in bodies:
        assert ann.write_file(DOCS, b"a", digest(data), data).tag == "ok"
        assert ann.write_file(ROOT, b"b", digest(data), data).tag == "ok"
        assert ann.get_file_system_usage() <= 3_000
    kept = [d for d in bodies if ann.get_file_by_hash(digest(d)).tag == "ok"]
    assert kept == bodies[-2:]
    assert ann.get_file_count() == 4
    assert [f.content_hash for f in ann.get_files_in_directory(DOCS)] == [digest(d) for d in kept]
    assert [ann.read_file_chunk(digest(d), 0, 800).ok for d in kept] == kept
    ann.set_file_system_max_storage(1_500)
    assert (ann.get_file_count(), ann.get_file_system_max_usage()) == (2, 1_500)
    world_reader = drive.join("bob", Role.member())
    world_reader.set_file_system_max_storage.submit(5_000)
    drive.node.run()
    assert ann.get_file_system_max_usage() == 1_500, "members do not set limits"


def test_what_is_refused_drops_nothing_and_leaves_nothing(drive: ZoneWorld) -> None:
    """Its hash is looked at before anything makes room for it."""
    ann = drive.as_("ann")
    drive.retain(attachments=limited(1_000), files=limited(1_000))
    kept = b"k" * 600
    assert ann.write_attachment(digest(kept), kept).tag == "ok"
    assert ann.write_file(DOCS, b"kept", digest(kept), kept).tag == "ok"
    wrong = b"w" * 600
    assert ann.write_attachment(digest(b"other"), wrong).err.startswith("hash mismatch")
    assert ann.write_file(DOCS, b"wrong", digest(b"other"), wrong).err.startswith("hash mismatch")
    assert ann.get_attachment(digest(kept)).ok == kept
    assert ann.read_file_chunk(digest(kept), 0, 600).ok == kept


def test_a_file_that_is_refused_leaves_no_name_for_the_upload_of_somebody_else(drive: ZoneWorld) -> None:
    ann, bob = drive.as_("ann"), drive.join("bob")
    data = b"report"
    assert ann.allocate_file(DOCS, b"ann's", digest(data), len(data)).ok.id == 1
    assert ann.write_file_chunk(digest(data), 0, b"rep").tag == "ok"
    assert bob.write_file(DOCS, b"bob's", digest(data), b"wrong!").err.startswith("hash mismatch")
    assert (ann.get_file_count(), ann.get_last_file_id()) == (1, 1)
    assert ann.write_file_chunk(digest(data), 3, b"ort").tag == "ok"
    assert ann.finalize_file(digest(data)).tag == "ok", "what she had written is still there"
    assert bob.write_file(DOCS, b"bob's", digest(data), data).ok == 2


def test_directories_come_in_the_order_in_which_they_were_made(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    made = [b"zz-directory", b"aa-directory", b"mm-directory"]
    for id in made:
        assert ann.create_directory(id, b"n", DOCS).tag == "ok"
    assert ann.get_directory(DOCS).child_directories == made
    assert [each.id for each in ann.get_child_directories(DOCS)] == made


def test_errors_begin_with_diodes_texts(drive: ZoneWorld) -> None:
    """Clients of theirs tell some of them apart by what they say."""
    ann = drive.as_("ann")
    data = b"done"
    ann.write_attachment(digest(data), data)
    ann.write_file(DOCS, b"n", digest(data), data)
    for result, text in (
        (ann.write_attachment_chunk(digest(data), 0, b"x"), "attachment is finalized"),
        (ann.write_file_chunk(digest(data), 0, b"x"), "file is already finalized"),
        (ann.write_file_chunk(digest(b"?"), 0, b"x"), "file not found"),
        (ann.finalize_file(digest(b"?")), "file not found"),
        (ann.finalize_attachment(digest(b"?")), "attachment not found"),
        (ann.read_file_chunk(digest(data), 1, 4), "chunk out of bounds"),
        (ann.add_message(b"short", b"x"), "key_id must be 41 bytes"),
        (
            ann.create_directory(b"orphan--", b"n", None),
            "cannot create directory without parent - only root directory can have null parent",
        ),
        (ann.create_directory(ROOT, b"n", ROOT), "cannot create directory with reserved root ID"),
    ):
        assert result.err.startswith(text)


# metadata


def test_metadata_as_diode_keeps_it(world: ZoneWorld) -> None:
    ann, bob = world.as_("ann"), world.join("bob", Role.reader())
    assert bob.get_meta_data_info().manifest == 0
    ann.set_data_entry(3, b"avatar")
    at = world.node.now_ns
    ann.set_data_entry(255, b"title")
    info = bob.get_meta_data_info()
    assert (info.manifest, info.timestamp) == ((1 << 3) + (1 << 255), world.node.now_ns)
    assert bob.get_data_entry(3).data == b"avatar"
    assert [entry and entry.data for entry in bob.get_data_entry_batch(bytes([255, 4, 3]))] == [
        b"title",
        None,
        b"avatar",
    ]
    assert [(e.key, e.timestamp) for e in bob.get_timestamps()] == [(3, at), (255, world.node.now_ns)]
    ann.delete_data_entry(3)
    assert bob.get_meta_data_info().manifest == 1 << 255
    ann.set_public_and_protected_key(b"public", b"protected")
    info = bob.get_meta_data_info()
    assert (info.public_key, info.vet_protected_key, info.manifest, info.timestamp) == (
        b"public",
        b"protected",
        0,
        0,
    )
    assert bob.get_data_entry(255) is None
    bob.set_data_entry.submit(1, b"by a reader")
    ann.set_data_entry.submit(1, bytes(64 * 1024 + 1))
    world.node.run()
    assert bob.get_data_entry(1) is None


def test_the_aggregate_status_is_what_the_single_methods_say(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    drive.post("a", "x", "y")
    ann.write_attachment(digest(b"p"), b"p")
    ann.write_file(DOCS, b"n", digest(b"f"), b"f")
    ann.set_data_entry(9, b"z")
    status: Any = ann.get_aggregate_status_v1()
    single = {
        "version": ann.get_version(),
        "installation_id": ann.get_installation_id(),
        "zone_id": ann.get_zone_id(),
        "role": ann.my_role(),
        "cycles_balance": ann.get_cycles_balance(),
        "stable_storage_size": ann.get_stable_storage_size(),
        "metadata_timestamps": ann.get_timestamps(),
        "metadata_info": ann.get_meta_data_info(),
        "message_min_id": ann.get_min_message_id(),
        "message_max_id": ann.get_max_message_id(),
        "message_usage": ann.get_message_usage(),
        "message_count": ann.get_message_count(),
        "file_system_last_file_id": ann.get_last_file_id(),
        "file_system_file_count": ann.get_file_count(),
        "file_system_directory_count": ann.get_directory_count(),
        "file_system_max_usage": ann.get_file_system_max_usage(),
        "attachment_usage": ann.get_attachment_usage(),
        "attachment_count": ann.get_attachment_count(),
        "attachment_max_usage": ann.get_attachment_max_usage(),
    }
    assert {name: getattr(status, name) for name in single} == single
    assert ann.get_stable_storage_size() == ann.get_logical_stable_storage_size()
    assert drive.zone.as_(drive.node.operator).get_cycles_balance() == status.cycles_balance


def test_what_is_deleted_leaves_nothing_behind(drive: ZoneWorld) -> None:
    ann = drive.as_("ann")
    data = bytes(range(256)) * 300

    def memory_after_a_round() -> int:
        ann.write_attachment(digest(data), data)
        ann.delete_attachment(digest(data))
        ann.write_file(DOCS, b"n", digest(data), data)
        ann.delete_file(ann.get_last_file_id())
        status: Any = drive.node.manage("canister_status", CanisterIdRecord(drive.zone.id))
        return int(status.memory_size)

    assert memory_after_a_round() == memory_after_a_round()


def test_a_full_directory_still_knows_the_files_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever goes on with an upload, or asks again after a lost answer, adds nothing."""
    monkeypatch.setattr(bounds, "DIRECTORY_ENTRY_COUNT_MAX", 2)
    zone = Driver(Zone)
    zone.activation(EntryKind.INIT, arg=encode_args(ZoneInit("z", "", "", Principal(CALLER), None, None)))
    put = partial(zone.update, "write_file", ROOT, b"name", digest(b"1"), b"1")
    assert put() == NatResult.ok(1)
    assert zone.update("allocate_file", ROOT, b"large", digest(b"22"), 2).tag == "ok"  # type: ignore[attr-defined]
    assert put() == NatResult.ok(1)
    assert zone.update("allocate_file", ROOT, b"large", digest(b"22"), 2).ok.id == 2  # type: ignore[attr-defined]
    full = zone.update("write_file", ROOT, b"third", digest(b"3"), b"3")
    assert full == NatResult.err("the directory holds 2 entries, the most there can be")
    made = zone.update("create_directory", b"12345678", b"name", ROOT)
    assert made == Done.err("the parent holds 2 entries, the most there can be")
