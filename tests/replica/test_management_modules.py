"""Modules and chunks: who brings them, how they are known, how they are counted."""

from __future__ import annotations

import gzip
from hashlib import sha256

import pytest

from cannery.limits import CHUNK_COUNT_MAX, CHUNK_SIZE_BYTES_MAX
from cannery.replica.management import types as t
from tests.replica.management_world import (
    OPERATOR,
    OWNER,
    Rejected,
    World,
    make_puppet,
    puppet_manage,
)
from tests.replica.tally import (
    MODES,
    Plain,
    Tally,
    TallyNext,
    deploy,
    get,
    number,
    status_of,
    tally,
)

# --- who brings modules ------------------------------------------------------------------------------------


def test_only_operators_bring_modules_and_any_controller_installs_them() -> None:
    world = World()
    canister = tally(world)
    module = world.programs.module_of(TallyNext)
    by_content = t.InstallCodeArgs(MODES["upgrade"], canister, module, number(1))
    with pytest.raises(Rejected, match="only operators bring modules"):
        world.manage(OWNER, "install_code", by_content)
    module_hash = world.manage(OPERATOR, "cannery_module_add", module)
    assert module_hash == sha256(module).digest()
    world.manage(OWNER, "install_code", by_content)
    assert get(world, canister) == 6


def test_a_canister_installs_what_is_known_and_brings_nothing() -> None:
    world = World()
    index = make_puppet(world)
    made = puppet_manage(world, index, "create_canister", t.CreateCanisterArgs()).canister_id
    module = world.programs.module_of(Tally)
    with pytest.raises(Rejected, match="only operators bring modules"):
        puppet_manage(
            world, index, "install_code", t.InstallCodeArgs(MODES["install"], made, module, number(2))
        )
    module_hash = world.manage(OPERATOR, "cannery_module_add", module)
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, [], module_hash, number(2))
    puppet_manage(world, index, "install_chunked_code", args)
    assert get(world, made) == 2


def test_a_gzipped_module_is_known_by_the_hash_of_the_file_as_given() -> None:
    world = World()
    module = gzip.compress(world.programs.module_of(Tally), mtime=0)
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    world.manage(OPERATOR, "install_code", t.InstallCodeArgs(MODES["install"], made, module, number(3)))
    status = status_of(world, made)
    assert status.module_hash == sha256(module).digest()
    assert status.memory_metrics.wasm_binary_size == len(module)
    assert get(world, made) == 3


def test_a_module_is_stored_once_and_its_canisters_are_counted() -> None:
    world = World()
    first, second = tally(world), tally(world)
    deploy(world, second, TallyNext, arg=number(0))
    deploy(world, second, TallyNext, arg=number(0))
    uses = {m.name: m.canisters for m in world.ask(OWNER, "cannery_module_list")}
    assert uses == {"tests.Tally:Tally": 1, "tests.TallyNext:TallyNext": 1}
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(first))
    deploy(world, second, Plain, "reinstall")
    uses = {m.name: m.canisters for m in world.ask(OWNER, "cannery_module_list")}
    assert uses == {"tests.Tally:Tally": 0, "tests.TallyNext:TallyNext": 0, "tests.Plain:Plain": 1}


# --- chunks -------------------------------------------------------------------------------------------------


def test_a_module_comes_in_chunks() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    module = world.programs.module_of(Tally)
    third = len(module) // 3
    parts = [module[:third], module[third : 2 * third], module[2 * third :]]
    chunks = [world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, part)) for part in parts]
    assert [c.hash for c in chunks] == [sha256(part).digest() for part in parts]
    assert {c.hash for c in world.manage(OPERATOR, "stored_chunks", t.CanisterIdRecord(made))} == {
        c.hash for c in chunks
    }
    assert status_of(world, made).memory_metrics.wasm_chunk_store_size == len(module)
    wrong = t.InstallChunkedCodeArgs(
        MODES["install"], made, None, chunks[:2], sha256(module).digest(), number(4)
    )
    with pytest.raises(Rejected, match="together have the hash"):
        world.manage(OPERATOR, "install_chunked_code", wrong)
    right = t.InstallChunkedCodeArgs(MODES["install"], made, made, chunks, sha256(module).digest(), number(4))
    world.manage(OPERATOR, "install_chunked_code", right)
    world.manage(OPERATOR, "clear_chunk_store", t.CanisterIdRecord(made))
    assert world.manage(OPERATOR, "stored_chunks", t.CanisterIdRecord(made)) == []
    assert get(world, made) == 4
    missing = t.InstallChunkedCodeArgs(MODES["upgrade"], made, None, chunks, bytes(32), b"")
    with pytest.raises(Rejected, match="not in the chunk store"):
        world.manage(OPERATOR, "install_chunked_code", missing)


def test_chunks_are_bounded() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    with pytest.raises(Rejected, match="at most"):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, bytes(CHUNK_SIZE_BYTES_MAX + 1)))
    for number_ in range(CHUNK_COUNT_MAX):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"%d" % number_))
    world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"0"))
    with pytest.raises(Rejected, match="clear it first"):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"one more"))
    many = [t.ChunkHash(bytes(32))] * (CHUNK_COUNT_MAX + 1)
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, many, bytes(32), b"")
    with pytest.raises(Rejected, match="at most"):
        world.manage(OPERATOR, "install_chunked_code", args)


def test_the_store_of_another_canister_needs_its_controller() -> None:
    world = World()
    mine, other = tally(world), world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    args = t.InstallChunkedCodeArgs(MODES["upgrade"], mine, other, [], bytes(32), b"")
    with pytest.raises(Rejected, match=f"Only controllers of canister {other}"):
        world.manage(OWNER, "install_chunked_code", args)
