"""Checks of a whole run: the chain of blocks, the order of requests, and the replay of all blocks."""

from __future__ import annotations

import random
from hashlib import sha256

from cannery.errors import Trap
from cannery.replica.block import GENESIS_HASH, Block, encode_block, state_hash
from cannery.replica.rounds import run_round
from tests.replica.laws import check_laws
from tests.sim.failure import Broken
from tests.sim.programs import SimPrograms
from tests.sim.store import SimStore
from tests.sim.world import World


def check_run(world: World) -> None:
    """Hold every law of a run that has come to rest. Raises `Broken`."""
    blocks = world.blocks()
    check_chain(world, blocks)
    check_order(world)
    try:
        check_laws(world.store)
    except AssertionError as error:
        raise Broken("accounts equal a full count", str(error)) from error
    if world.plan.replays_from_genesis or world.checkpoint is None:
        replay(world, blocks, {})
    else:
        number, values = world.checkpoint
        replay(world, blocks[number:], values)


def check_chain(world: World, blocks: list[Block]) -> None:
    """Blocks are dense, each names the one before, times rise."""
    previous, time_ns = GENESIS_HASH, 0
    for number, block in enumerate(blocks, 1):
        if block.number != number or block.previous_hash != previous or block.time_ns <= time_ns:
            raise Broken("one total order", f"block {block.number} does not follow block {number - 1}")
        previous, time_ns = sha256(encode_block(block)).digest(), block.time_ns
        if world.heads[number].block_hash != previous:
            raise Broken("one total order", f"block {number} is another than the one executed")
    if len(blocks) != world.certain:
        raise Broken("one total order", f"{len(blocks)} blocks are stored, {world.certain} were durable")


def check_order(world: World) -> None:
    """What was answered lies in a block that was durable by then; what came later lies in a later one."""
    order = world.order_of_requests()
    for request in world.requests:
        place = order.get(request.id)
        if request.answer is not None:
            if place is None and request.was_read:
                continue
            if place is None:
                raise Broken("acknowledged implies readable", f"{request} is in no block")
            if place[0] > request.known_at:
                raise Broken("nothing leaves before its sync", f"{request.ingress.method} was answered early")
        if place is not None and place[0] <= request.sent_after:
            raise Broken("one total order", f"{request.ingress.method} was ordered before it was sent")


def replay(world: World, blocks: list[Block], values: dict[bytes, bytes]) -> None:
    """Run blocks again on a second subnet: the same roots after every block, the same state at the end."""
    store = SimStore(random.Random(0))
    store.load(values)
    programs = SimPrograms(_refuse_to_measure, random.Random(0))
    for block in blocks:
        outcome = run_round(store, block, programs, None)
        if outcome.root != world.heads[block.number].root or outcome.block != block:
            raise Broken("equal logs give equal roots", f"block {block.number} has another root in a replay")
        store.write(outcome.batch)
        store.sync()
    if state_hash(store) != state_hash(world.store):
        raise Broken("checkpoint plus blocks equals state", "a replay gives another state")
    world.count("replayed blocks", len(blocks))


def _refuse_to_measure() -> None:
    raise Trap("a replay measured what a verdict decides")
