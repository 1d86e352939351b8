"""Bytes of topic logs and content stores that were written before stay readable."""

from __future__ import annotations

import json
from pathlib import Path

from cannery import Canister, LogRule, TopicLog, WhenFull, limits
from cannery.cdk.content_store import ContentStore
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.ports import EntryKind
from tests.cdk.memory_system import MemoryCanister, MemorySystem

FORMATS = Path(__file__).resolve().parents[1] / "formats"
FORMAT = FORMATS / "topic_log.json"
BLOCKS_FORMAT = FORMATS / "topic_blocks.json"


class Shelf(Canister):
    """A topic log and a content store."""

    log = TopicLog()
    files = ContentStore("file", rule=LogRule(10, 10**6, None, WhenFull.prune_oldest()))


PROGRAM = PythonProgram(Shelf)


def opened(state: dict[bytes, bytes], *later: str) -> tuple[Shelf, MemorySystem]:
    """Open a shelf on a state; `later` are the collections that came with an upgrade."""
    canister = MemoryCanister(now_ns=1_000)
    canister.learn(PROGRAM)
    names = sorted(canister.slots, key=lambda name: (name in later, name))
    canister.slots = dict(zip(names, sorted(canister.slots.values()), strict=True))
    canister.state.update(state)
    system = MemorySystem(canister, EntryKind.UPDATE)
    shelf = Shelf()
    shelf.__dict__[SYSTEM_ATTRIBUTE] = system
    return shelf, system


def filled() -> dict[bytes, bytes]:
    """Give the state after a few posts, a prune, an erasure, an acknowledgement and two uploads."""
    shelf, system = opened({}, "log.blocks")
    shelf.log.post_many([(b"a", b"one"), (b"b\x00", b"two"), (b"a", b"three"), (b"b\x00", b"four")])
    shelf.log.prune(before=2)
    shelf.log.erase(3)
    shelf.log.acknowledge(b"ann", through=3)
    shelf.files.begin(b"whole", 3)
    shelf.files.write(b"whole", 0, b"abc")
    shelf.files.finish(b"whole", None)
    shelf.files.begin(b"half", 4)
    shelf.files.write(b"half", 2, b"cd")
    return {key: value for key, value in system.overlay.items() if value is not None}


def test_what_is_written_is_the_format() -> None:
    kept = json.loads(FORMAT.read_text())
    assert {key.hex(): value.hex() for key, value in filled().items()} == kept


def test_what_was_written_is_read() -> None:
    kept = json.loads(FORMAT.read_text())
    shelf, _ = opened({bytes.fromhex(key): bytes.fromhex(value) for key, value in kept.items()}, "log.blocks")
    assert [(key, m.id, m.payload) for key, m in shelf.log.scan_all(0, 99)] == [
        (b"b\x00", 2, b"two"),
        (b"a", 3, b""),
        (b"b\x00", 4, b"four"),
    ]
    found = shelf.log.topic(b"a")
    assert found is not None
    assert (found.count, found.dropped_through) == (1, 1)
    assert shelf.log.acknowledged(b"ann") == 5
    assert shelf.log.post(b"a", b"five").id == 5
    assert shelf.files.read(b"whole", 1, 2) == b"bc"
    shelf.files.write(b"half", 0, b"ab")
    assert shelf.files.finish(b"half", None).size == 4


def blocks() -> dict[bytes, bytes]:
    """Give what blocks there are after as many posts as make one."""
    shelf, system = opened({})
    for i in range(limits.TOPIC_BLOCK_EVERY_COUNT):
        shelf.log.post(b"a", b"message %d" % i)
    slot = system.slot("log.blocks")
    return {
        key.removeprefix(slot): value
        for key, value in system.overlay.items()
        if value and key.startswith(slot)
    }


def test_blocks_are_written_as_before() -> None:
    kept = json.loads(BLOCKS_FORMAT.read_text())
    assert {key.hex(): value.hex() for key, value in blocks().items()} == kept


def test_blocks_that_were_written_are_read() -> None:
    shelf, system = opened({})
    for i in range(limits.TOPIC_BLOCK_EVERY_COUNT):
        shelf.log.post(b"a", b"message %d" % i)
    slot = system.slot("log.blocks")
    kept = json.loads(BLOCKS_FORMAT.read_text())
    system.overlay.update({slot + bytes.fromhex(key): bytes.fromhex(value) for key, value in kept.items()})
    found = [shelf.log.message_of(data).payload for _, data in shelf.log.scan(b"a", 0, 99)]
    assert found == [b"message %d" % i for i in range(limits.TOPIC_BLOCK_EVERY_COUNT)]
