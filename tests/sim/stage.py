"""What several casts do with a canister of theirs: make it, install it, and operate on it meanwhile."""

from __future__ import annotations

from cannery import encode_args
from cannery.protocol.principal import Principal
from cannery.replica.management import types as t
from tests.sim.world import World


def create(world: World, cycles: int, place: int) -> Principal:
    """Make a canister on a subnet (by any number), while nothing is broken."""
    wanted = t.ProvisionalCreateArgs(amount=cycles, subnet=world.subnet_choice(place))
    made = world.manage_now("provisional_create_canister_with_cycles", wanted)
    assert isinstance(made, t.CanisterIdRecord)
    return made.canister_id


def install(world: World, canister: Principal, module: bytes, arg: bytes | None = None) -> None:
    """Install a module, while nothing is broken."""
    mode = t.InstallMode.install()
    world.manage_now(*world.installing(mode, canister, module, encode_args() if arg is None else arg))


def operate(
    world: World, canister: Principal, module: bytes, *, stop: float = 0.25, start: float = 0.35
) -> None:
    """Stop a canister, start it, or upgrade it to its own module: by these chances, and the rest."""
    named = t.CanisterIdRecord(canister)
    draw = world.chance.random()
    if draw < stop:
        world.manage("stop_canister", named)
    elif draw < stop + start:
        world.manage("start_canister", named)
    else:
        world.manage(*world.installing(t.InstallMode.upgrade(None), canister, module, encode_args()))
