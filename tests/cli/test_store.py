"""`cannery store` and the Python door: put, get, find, rm, stats, while buckets appear, on a real node."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import pytest

from cannery.cdk.management import FleetConfigureArgs, FleetValue
from cannery.cli.app_install import build_app, install_app
from cannery.cli.typed_calls import TypedCanister
from cannery.client import AsyncAgent
from cannery.client.store import Note, Store, StoreConflict, StoreIncomplete, StoreRefused
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest
from tests.waiting import wait_until

MIB = 1 << 20


@pytest.fixture(scope="module")
def index_id(running_node: NodeUnderTest) -> Principal:
    """A store of small buckets on the worker's node."""
    with running_node.agent(running_node.operator) as agent:
        found = install_app(agent, build_app("store")).index_id
        values = [FleetValue("bucket_slots", "20"), FleetValue("slot_size_bytes", str(10 * MIB))]
        TypedCanister(agent, found).call_for_effect("fleet_config_set", (FleetConfigureArgs([], [], values),))
        assert install_app(agent, build_app("store")).index_id == found
    return found


@pytest.fixture
def people(cli: Cli) -> None:
    for name in ("ann", "bob"):
        assert cli("identity", "new", name).code == 0


def test_a_value_is_put_found_read_and_removed(
    cli: Cli, running_node: NodeUnderTest, index_id: Principal, people: None, tmp_path: Path
) -> None:
    node = running_node
    put = cli("store", "put", "greeting", "hello", "--tag", "cli", "--identity", "ann", node=node)
    assert (put.code, put.out.startswith("stored: greeting, revision ")) == (0, True), put.err
    again = cli("store", "put", "greeting", "-", "--identity", "ann", node=node, stdin="hello again")
    assert again.out.startswith("updated: greeting")
    assert cli("store", "get", "greeting", "--identity", "bob", node=node).out == "hello again"
    note = cli("store", "put", "--note", "buy milk", "--tag", "cli", "--identity", "ann", "--json", node=node)
    key = str(note.json["key"])  # type: ignore[index]
    found = cli("store", "find", "cli", "--identity", "bob", node=node).out.splitlines()
    assert [line.split()[-1] for line in found] == ["key", key]
    photo = tmp_path / "photo"
    photo.write_bytes(bytes(range(256)) * 12_000)
    private = ("--private", "--reader", "bob", "--identity", "ann")
    assert cli("store", "put", "photo", "--file", str(photo), *private, node=node).code == 0
    copy = tmp_path / "copy"
    read = cli("store", "get", "photo", "--out", str(copy), "--identity", "bob", node=node)
    assert (read.code, copy.read_bytes() == photo.read_bytes()) == (0, True), read.err
    stranger = cli("store", "get", "photo", "--identity", "anonymous", node=node)
    assert (stranger.code, "nothing that you may read" in stranger.err) == (1, True)
    refused = cli("store", "rm", "photo", "--identity", "bob", node=node)
    assert (refused.code, "somebody else's" in refused.err) == (1, True)
    assert cli("store", "rm", "photo", "--identity", "ann", node=node).out == "deleted: photo\n"
    assert " entries, " in cli("store", "stats", "--identity", "bob", node=node).out


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("put", "k"), 2, "say what to put"),
        (("put", "k", "v", "--note", "n"), 2, "a key of its own"),
        (("put",), 2, "say under which KEY"),
        (("put", "k" * 513, "v"), 1, "1 to 512 bytes"),
        (("put", "new", "v", "--expect", "5"), 1, "there is no entry under this key now: it has revision 0"),
        (("put", "\udcff", "v"), 2, r"b'\xff' is no text in UTF-8; only a value may be any bytes"),
        (("put", "new", "v", "--tag", "\udcff"), 2, "is no text in UTF-8"),
        (("get", "\udcff"), 2, "is no text in UTF-8"),
        (("rm", "\udcff"), 2, "is no text in UTF-8"),
        (("find", "\udcff"), 2, "is no text in UTF-8"),
        (("find", ""), 1, "a tag has 1 to 128 bytes"),
        (("get", "nothing"), 1, "nothing that you may read"),
        (("stats", "--store", "nowhere"), 2, "no canister is named"),
        (("stats", "--store", "user_index"), 1, "is not the index of a store"),
        (("find", "cli", "--store", "user_index"), 1, "is not the index of a store"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    cli: Cli,
    running_node: NodeUnderTest,
    index_id: Principal,
    people: None,
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    done = cli("store", *arguments, "--identity", "ann", node=running_node)
    assert (done.code, complaint in done.error) == (code, True), done.err


def test_a_value_of_the_command_line_is_stored_byte_by_byte(
    cli: Cli, running_node: NodeUnderTest, index_id: Principal, people: None, tmp_path: Path
) -> None:
    node, copy = running_node, tmp_path / "copy"
    put = cli("store", "put", "raw bytes", "\udcff\xe4", "--identity", "ann", node=node)
    assert put.code == 0, put.err
    assert cli("store", "get", "raw bytes", "--out", str(copy), "--identity", "ann", node=node).code == 0
    assert copy.read_bytes() == b"\xff\xc3\xa4"


def test_nobody_writes_without_an_identity_and_hears_what_to_do(
    cli: Cli, running_node: NodeUnderTest, index_id: Principal
) -> None:
    for words in (("put", "k", "v"), ("rm", "k")):
        done = cli("store", *words, "--identity", "anonymous", node=running_node)
        assert (done.code, "cannery identity new NAME" in done.err) == (1, True), done.err
        assert "could not be reached" not in done.err, "nobody waits for what will not change"


def test_a_client_that_meets_a_bucket_which_was_emptied_asks_the_index_again(
    running_node: NodeUnderTest, index_id: Principal
) -> None:
    async def run(operator: TypedCanister) -> None:
        async with AsyncAgent(running_node.url, Ed25519Identity(bytes([7]) * 32)) as agent:
            held = (await (await Store.open(agent, index_id)).put("emptied/1", b"before")).bucket
            store = await Store.open(agent, index_id)
            await store.locate(["emptied/1"])
            operator.call_for_effect("fleet_delete", (held,))
            assert (await store.put("emptied/1", b"after")).bucket != held
            item = await store.get("emptied/1")
            assert item is not None
            assert item.value == b"after"

    with running_node.agent(running_node.operator) as agent:
        asyncio.run(run(TypedCanister(agent, index_id)))


def test_what_the_others_have_is_listed_while_a_bucket_does_not_answer_and_the_bucket_named(
    cli: Cli, running_node: NodeUnderTest, index_id: Principal, people: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, ann = running_node, Ed25519Identity(bytes([8]) * 32)

    async def fill() -> list[str]:
        async with AsyncAgent(node.url, ann) as agent:
            store = await Store.open(agent, index_id)
            keys = [f"partly/{number}" for number in range(40)]
            stored = await store.put_many([Note(key, b"", ("partly",)) for key in keys])
            assert len({one.bucket for one in stored}) > 1
        return keys

    async def is_settled() -> bool:
        async with AsyncAgent(node.url, ann) as agent:
            return not (await (await Store.open(agent, index_id)).stats())["is_changing"]

    async def places(keys: list[str]) -> dict[str, Principal]:
        async with AsyncAgent(node.url, ann) as agent:
            items = await (await Store.open(agent, index_id)).get_many(keys)
            return {item.entry.key: item.bucket for item in items if item is not None}

    async def find() -> list[str]:
        async with AsyncAgent(node.url, ann) as agent:
            store = await Store.open(agent, index_id, patience_s=0.1)
            return [entry.key for entry in await store.find("partly", limit=7)]

    monkeypatch.setattr("cannery.client.store.FIND_PATIENCE_S", 0.1)
    keys = asyncio.run(fill())
    hold = ("fleet", "config", "set", "--index", str(index_id))
    assert cli(*hold, f"hold_ms={10**9}", node=node).code == 0
    wait_until(lambda: asyncio.run(is_settled()), "the store is settled")
    where = asyncio.run(places(keys))
    stopped = where["partly/39"]
    others = {key for key, bucket in where.items() if bucket != stopped}
    assert cli("canister", "stop", str(stopped), node=node).code == 0
    listed = cli("store", "find", "partly", "--json", "--identity", "bob", node=node)
    assert {entry["key"] for entry in listed.json} == others  # type: ignore[index,union-attr]
    assert listed.code == 1
    assert f"entries may be missing: {stopped} does not answer (Canister {stopped} is stopped" in listed.error
    with pytest.raises(StoreIncomplete) as incomplete:
        asyncio.run(find())
    assert set(incomplete.value.missing) == {stopped}
    assert len(incomplete.value.entries) == min(7, len(others))
    told = cli("store", "stats", "--identity", "bob", node=node).out
    assert told.startswith("at least ")
    assert "cannot be asked now" in told
    assert cli("canister", "start", str(stopped), node=node).code == 0
    whole = cli("store", "find", "partly", "--json", "--identity", "bob", node=node)
    assert (whole.code, {entry["key"] for entry in whole.json}) == (0, set(where))  # type: ignore[index,union-attr]
    assert cli(*hold, "hold_ms=1000", node=node).code == 0


def test_many_are_put_and_read_in_parallel_while_buckets_appear(
    running_node: NodeUnderTest, index_id: Principal
) -> None:
    notes = [Note(f"many/{number}", f"note {number}".encode(), ("many",)) for number in range(80)]

    async def run() -> None:
        ann, bob = (Ed25519Identity(bytes([number]) * 32) for number in (1, 2))
        async with (
            AsyncAgent(running_node.url, ann) as agent,
            AsyncAgent(running_node.url, bob) as other,
        ):
            store, door = await Store.open(agent, index_id), await Store.open(other, index_id)
            stored = await store.put_many(notes)
            assert all(one.is_new for one in stored)
            items = await door.get_many([note.key for note in notes])
            assert [item and item.value for item in items] == [note.value for note in notes]
            assert len({item.bucket for item in items if item}) >= 4
            entries = await door.find("many", limit=100)
            assert sorted(entry.key for entry in entries) == sorted(note.key for note in notes)
            revisions = [entry.revision for entry in entries]
            assert revisions == sorted(revisions, reverse=True)
            assert (await door.sum("many", owner=ann.principal)).count == 80
            with pytest.raises(StoreRefused, match="somebody else's"):
                await door.put("many/1", b"")
            with pytest.raises(StoreConflict):
                await store.put("many/1", b"", expect=1)
            large = hashlib.sha256(b"seed").digest() * (3 * MIB // 32)
            await store.put("large", large)
            read = await door.get("large")
            assert read is not None
            assert read.value == large
            assert await store.delete("large")

    asyncio.run(run())
