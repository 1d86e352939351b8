"""Modules are compared before anything is upgraded, and come in chunks."""

from __future__ import annotations

from hashlib import sha256
from itertools import product

import pytest

from cannery import Canister, Context, Principal, StableCell, StableMap, nat64, query, update
from cannery.replica.management import types as t
from cannery.replica.management.compare import ModuleCompareArgs, ModuleDifferences
from cannery.replica.management.upgrade_types import UpgradeManyArgs
from tests.replica.management_world import (
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    World,
    make_puppet,
    puppet_manage,
)
from tests.replica.test_management_sequences import First, Other, Second
from tests.replica.upgrade_world import Mute

METHOD = "cannery_module_compare"


class Wider(Canister):
    """More in every way: nothing of it can go back."""

    number = StableCell(nat64 | None, None)
    names = StableMap(str, nat64)

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get() or nat64(0)

    @query
    def more(self, ctx: Context) -> str:
        """Give more."""
        return ""


CLASSES: tuple[type[Canister], ...] = (First, Second, Other, Mute, Wider)


def hashes_of(world: World) -> dict[type[Canister], bytes]:
    return {c: world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(c)) for c in CLASSES}


def test_what_differs_is_told_each_way() -> None:
    world = World()
    hashes = hashes_of(world)

    def compare(old: type[Canister], new: type[Canister]) -> ModuleDifferences:
        found = world.ask(OPERATOR, METHOD, ModuleCompareArgs(hashes[old], hashes[new]))
        assert isinstance(found, ModuleDifferences)
        return found

    assert compare(First, Second) == ModuleDifferences(None, None, None, None)
    found = compare(First, Mute)
    assert "method 'set' is missing" in (found.interface or "")
    assert (found.state, found.back_interface, found.back_state) == (None, None, None)
    found = compare(First, Wider)
    assert (found.interface, found.state) == (None, None)
    assert "method 'more' is missing" in (found.back_interface or "")
    assert "number" in (found.back_state or "")
    found = compare(First, Other)
    assert "number" in (found.state or "")
    assert "number" in (found.back_state or "")


@pytest.mark.parametrize(
    ("old", "new"), [pair for pair in product(CLASSES, CLASSES) if pair[0] is not pair[1]]
)
def test_an_upgrade_there_and_back_does_what_the_comparison_says(
    old: type[Canister], new: type[Canister]
) -> None:
    world = World()
    hashes = hashes_of(world)
    found = world.manage(OPERATOR, METHOD, ModuleCompareArgs(hashes[old], hashes[new]))
    canister = make_puppet(world, old, owner=OPERATOR)

    def goes(module_hash: bytes, force: bool) -> bool:
        args = UpgradeManyArgs(module_hash, b"", [canister], force)
        (result,) = world.manage(OPERATOR, "cannery_upgrade_many", args)
        return bool(result.outcome.tag == "upgraded")

    assert (found.interface is None and found.state is None) == goes(hashes[new], False)
    assert (found.state is None) == goes(hashes[new], True) or found.interface is None
    if found.state is None:
        assert (found.back_state is None) == goes(hashes[old], True)


def test_canisters_may_ask_and_unknown_modules_are_named() -> None:
    world = World()
    hashes = hashes_of(world)
    puppet = make_puppet(world, Puppet)
    args = ModuleCompareArgs(hashes[First], hashes[Second])
    assert puppet_manage(world, puppet, METHOD, args) == ModuleDifferences(None, None, None, None)
    for sender in (OWNER, STRANGER):
        for ask in (world.ask, world.manage, world.manage_unadmitted):
            with pytest.raises(Rejected, match="Over HTTP only operators"):
                ask(sender, METHOD, args)
    with pytest.raises(Rejected, match=f"{bytes(32).hex()} is not on this node"):
        world.ask(OPERATOR, METHOD, ModuleCompareArgs(hashes[First], bytes(32)))


# --- chunks --------------------------------------------------------------------------------------------


def upload(world: World, store: Principal, module: bytes) -> list[t.ChunkHash]:
    parts = [module[at : at + 300] for at in range(0, len(module), 300)]
    return [world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(store, part)) for part in parts]


def test_a_module_is_added_out_of_chunks() -> None:
    world = World()
    store = make_puppet(world, Puppet, owner=OPERATOR)
    module = world.programs.module_of(First)
    module_hash, chunks = sha256(module).digest(), upload(world, store, world.programs.module_of(First))
    assert len(chunks) > 1
    before = world.traces()
    for wanted, words in (
        (chunks[:-1], "The chunks together have the hash"),
        (chunks[::-1], "in the order of the file"),
        ([*chunks, t.ChunkHash(bytes(32))], "is not in the chunk store"),
        ([], "no chunks are named"),
        (chunks * 100, "at most 100 chunks"),
    ):
        args = t.ModuleAddChunkedArgs(store, wanted, module_hash)
        with pytest.raises(Rejected, match=words):
            world.manage(OPERATOR, "cannery_module_add_chunked", args)
    assert world.traces() == before
    args = t.ModuleAddChunkedArgs(store, chunks, module_hash)
    assert world.manage(OPERATOR, "cannery_module_add_chunked", args) == module_hash
    (info,) = [each for each in world.ask(OWNER, "cannery_module_list") if each.hash == module_hash]
    assert info.size == len(module)
    assert world.manage(OPERATOR, "cannery_module_add_chunked", args) == module_hash, "again changes nothing"


def test_chunks_are_taken_by_operators_who_control_the_store() -> None:
    world = World()
    store = make_puppet(world, Puppet, owner=OWNER)
    args = t.ModuleAddChunkedArgs(store, [], bytes(32))
    with pytest.raises(Rejected, match="Only operators"):
        world.manage(OWNER, "cannery_module_add_chunked", args)
    with pytest.raises(Rejected, match="Only controllers"):
        world.manage(OPERATOR, "cannery_module_add_chunked", args)
