"""Checks of a whole run: the chain of blocks, the order of requests, and the replay of all blocks."""

from __future__ import annotations

import random
from hashlib import sha256

from cannery.errors import Trap
from cannery.node.links import find_stream_head
from cannery.replica import keys, records
from cannery.replica.block import GENESIS_HASH, Block, encode_block, state_hash
from cannery.replica.fleets_away import home_of
from cannery.replica.rounds import run_round
from tests.replica.laws import check_laws
from tests.sim.failure import Broken
from tests.sim.machine import Machine
from tests.sim.programs import SimPrograms
from tests.sim.store import SimStore
from tests.sim.world import World


def check_run(world: World) -> None:
    """Hold every law of a run that has come to rest. Raises `Broken`."""
    check_order(world)
    for machine in world.machines:
        check_machine(world, machine)
    check_streams(world)
    check_members(world)


def check_machine(world: World, machine: Machine) -> None:
    """Hold every law of one subnet, and replay its blocks."""
    blocks = machine.blocks()
    check_chain(machine, blocks)
    try:
        check_laws(machine.store, machine.number)
    except AssertionError as error:
        raise Broken("accounts equal a full count", str(error)) from error
    if world.plan.replays_from_genesis or machine.checkpoint is None:
        replay(world, machine, blocks, {})
    else:
        number, values = machine.checkpoint
        replay(world, machine, blocks[number:], values)


def check_streams(world: World) -> None:
    """Nothing is left between subnets, and what one has sent the other has received: messages and cycles."""
    subnets = [records.SUBNET.decode(machine.store.values[keys.SUBNET_KEY]) for machine in world.machines]
    went, came = (sum(getattr(each, name) for each in subnets) for name in ("cycles_out", "cycles_in"))
    if went != came:
        raise Broken("cycles are conserved", f"{went} cycles left a subnet, {came} arrived at one")
    for sender in world.machines:
        for receiver in world.machines:
            if sender is receiver:
                continue
            out = find_stream_head(sender.store, receiver.number)
            received = find_stream_head(receiver.store, sender.number).received
            if not out.first == out.next == received:
                raise Broken("streams: exactly once", f"{out} was sent, {received} messages were received")


def check_members(world: World) -> None:
    """Each subnet has the members of a fleet that are its own; the index's subnet has those of all."""
    there: dict[bytes, set[bytes]] = {}
    at_home: dict[bytes, set[bytes]] = {}
    for machine in world.machines:
        for key, _ in machine.store.pairs(*keys.space_range(keys.FLEET_MEMBERS)):
            fleet = keys.owner_of(key)
            member = key[2 + len(fleet) :]
            if home_of(member) == machine.number:
                there.setdefault(fleet, set()).add(member)
            if home_of(fleet) == machine.number:
                at_home.setdefault(fleet, set()).add(member)
    if there != at_home:
        raise Broken("subnets agree on the members of fleets", f"{there} are members, home has {at_home}")


def check_chain(machine: Machine, blocks: list[Block]) -> None:
    """Blocks are dense, each names the one before, times rise."""
    previous, time_ns = GENESIS_HASH, 0
    for number, block in enumerate(blocks, 1):
        if block.number != number or block.previous_hash != previous or block.time_ns <= time_ns:
            raise Broken("one total order", f"block {block.number} does not follow block {number - 1}")
        previous, time_ns = sha256(encode_block(block)).digest(), block.time_ns
        if machine.heads[number].block_hash != previous:
            raise Broken("one total order", f"block {number} is another than the one executed")
    if len(blocks) != machine.certain:
        raise Broken("one total order", f"{len(blocks)} blocks are stored, {machine.certain} were durable")


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


def replay(world: World, machine: Machine, blocks: list[Block], values: dict[bytes, bytes]) -> None:
    """Run blocks again on a second subnet: the same roots after every block, the same state at the end."""
    store = SimStore(random.Random(0))
    store.load(values)
    programs = SimPrograms(_refuse_to_measure, random.Random(0))
    for block in blocks:
        outcome = run_round(store, block, programs, None)
        if outcome.root != machine.heads[block.number].root or outcome.block != block:
            raise Broken("equal logs give equal roots", f"block {block.number} has another root in a replay")
        store.write(outcome.batch)
        store.sync()
    if state_hash(store) != state_hash(machine.store):
        raise Broken("checkpoint plus blocks equals state", "a replay gives another state")
    world.count("replayed blocks", len(blocks))


def _refuse_to_measure() -> None:
    raise Trap("a replay measured what a verdict decides")
