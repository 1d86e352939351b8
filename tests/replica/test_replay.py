"""The same blocks give the same roots and the same state, in other processes and under other hash seeds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from cannery.replica.block import decode_block, encode_block, state_hash
from cannery.replica.rounds import run_round
from tests.replica.memory import MemoryReader
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import World

ROOT = Path(__file__).parents[2]


def play() -> World:
    """Let ten canisters call each other, trap, set timers, keep logs, over bounded rounds."""
    world = World()
    ids = [world.add(puppet(), cycles=1000) for _ in range(10)]
    for step in range(12):
        inputs = []
        for number, canister in enumerate(ids):
            other = ids[(number * 7 + step) % 10]
            inner: list[Act] = [
                ["count", b"n"],
                ["accept", number],
                ["random", b"r"],
                ["reply", b"%d" % step],
            ]
            acts: list[Act] = [
                ["put", b"k%d" % step, b"v"],
                ["call", other, "run", inner, 10, [["note", b"note"], ["pass"]]],
                ["timer", 1_000_000 * number, 0, [["log", "tick"], ["range", b"k0", b"k3"]]],
                ["trap", "now and then"] if (number + step) % 7 == 0 else ["later", 0],
            ]
            inputs.append(world.ingress(canister, "run", pack(acts)))
        world.round(*inputs)
    world.settle()
    return world


def test_the_same_blocks_give_the_same_roots_under_two_hash_seeds() -> None:
    code = (
        "from tests.replica.test_replay import play; from cannery.replica.block import state_hash;"
        "w = play(); print(w.roots[-1].hex(), state_hash(w.store).hex(), hash('x'))"
    )
    found = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        found.append(done.stdout.split())
    assert found[0][2] != found[1][2], "the seeds differ"
    assert found[0][:2] == found[1][:2]


def test_replaying_all_blocks_on_a_copy_gives_the_same_state() -> None:
    world = World()
    copy = MemoryReader()
    copy.write(_whole(world))
    canister = world.add(puppet())
    copy.write(_whole(world))
    first = len(world.blocks)
    for step in range(5):
        world.call(canister, "run", pack([["put", b"%d" % step, b"v"], ["random", b"r"], ["reply", b""]]))
    for block in world.blocks[first:]:
        outcome = run_round(copy, decode_block(encode_block(block)), world.shelf, None)
        copy.write(outcome.batch)
    assert state_hash(copy) == state_hash(world.store)
    assert outcome.root == world.roots[-1]


def test_a_root_depends_on_every_write_and_on_the_history() -> None:
    from cannery.ports import WriteBatch
    from cannery.replica.block import round_root

    base = WriteBatch({b"a": b"1", b"b": None}, [(b"x", b"y")])
    others = [
        WriteBatch({b"a": b"2", b"b": None}, [(b"x", b"y")]),
        WriteBatch({b"a": b"1", b"b": b""}, [(b"x", b"y")]),
        WriteBatch({b"a": b"1"}, [(b"x", b"y")]),
        WriteBatch({b"a": b"1", b"b": None}, [(b"x", b"z")]),
        WriteBatch({b"a": b"1", b"b": None}),
        WriteBatch({b"a1": b"", b"b": None}, [(b"x", b"y")]),
    ]
    roots = {round_root(bytes(32), bytes(32), batch) for batch in [base, *others]}
    roots.add(round_root(b"1" * 32, bytes(32), base))
    roots.add(round_root(bytes(32), b"1" * 32, base))
    assert len(roots) == 9
    shuffled = WriteBatch({b"b": None, b"a": b"1"}, [(b"x", b"y")])
    assert round_root(bytes(32), bytes(32), shuffled) == round_root(bytes(32), bytes(32), base)


def _whole(world: World):
    from cannery.ports import WriteBatch

    return WriteBatch(dict(world.store.scan(b"", b"\xff")))
