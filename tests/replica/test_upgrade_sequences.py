"""Random batches of upgrades among everything else that happens to canisters.

One test knows what each target must get and compares byte for byte; the other lets everything run into each
other over rounds of any size, and holds what is always so: one result for each target, in order, an answer
once, and in the end nothing left of any batch. `World` checks the laws and a replay after every round.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Canister, Principal
from cannery.replica import keys
from cannery.replica.block import Ingress
from cannery.replica.management import types as t
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    Rejected,
    encode_argument,
    int_argument,
    order_result,
)
from tests.replica.upgrade_world import (
    CANNOT_END,
    CORRUPTS,
    HANGS,
    HANGS_AT_END,
    STORAGE,
    TRAPS,
    Mute,
    New,
    Old,
    UpgradeWorld,
    results_of,
    tags,
)

COUNT = 4
_FROZEN = 10**12


@dataclass
class Model:
    """What a target is believed to be."""

    cls: type[Canister] | None = Old
    number: int = 9
    frozen: bool = False
    controlled: bool = True
    holds: bool = False
    stopped: bool = False
    gone: bool = False


@dataclass(frozen=True)
class Act:
    name: str
    which: int
    value: int


@dataclass(frozen=True)
class Batch:
    cls: type[Canister]
    which: tuple[int, ...]
    force: bool
    only_from: type[Canister] | None


acts = st.builds(
    Act,
    st.sampled_from(
        [
            "set",
            "set",
            "set",
            "hold",
            "freeze",
            "thaw",
            "take",
            "give",
            "stop",
            "start",
            "uninstall",
            "delete",
        ]
    ),
    st.integers(0, COUNT - 1),
    st.integers(0, 6),
)
batches = st.builds(
    Batch,
    st.sampled_from([New, New, Old, Mute]),
    st.permutations(range(COUNT + 1)).flatmap(
        lambda order: st.integers(1, COUNT + 1).map(lambda count: tuple(order[:count]))
    ),
    st.booleans(),
    st.sampled_from([None, None, Old, New]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(acts, batches), max_size=14))
def test_each_target_gets_what_it_must_and_a_failed_one_is_as_before(steps: list[Act | Batch]) -> None:
    world = UpgradeWorld(STORAGE)
    targets = [world.make(9) for _ in range(COUNT)] + [Principal(keys.canister_id(0x200000))]
    models = [Model() for _ in range(COUNT)] + [Model(gone=True)]
    for step in steps:
        if isinstance(step, Act):
            run_act(world, targets[step.which], step, models[step.which])
            continue
        chosen = [targets[which] for which in step.which]
        before = [world.keys_of(target) for target in chosen]
        only_from = None if step.only_from is None else world.hashes[step.only_from]
        results = world.upgrade(chosen, step.cls, force=step.force, only_from=only_from)
        assert [result.canister_id for result in results] == chosen
        assert tags(results) == [expect(models[which], step) for which in step.which]
        for target, result, was in zip(chosen, results, before, strict=True):
            if result.outcome.tag == "upgraded":
                assert world.module_of(target) == world.hashes[step.cls]
            else:
                assert world.keys_of(target) == was
        assert world.leftovers() == []


def run_act(world: UpgradeWorld, target: Principal, act: Act, model: Model) -> None:
    """Do something to a target, where it can be done, and change the model."""
    try:
        answer = _begin(world, target, act)
    except Rejected:
        return
    if act.name == "set" and answer:
        model.number = act.value
    elif act.name == "hold":
        model.holds = model.holds or (model.cls in (Old, New) and not (model.stopped or model.frozen))
    elif act.name in ("freeze", "thaw"):
        model.frozen = act.name == "freeze"
    elif act.name in ("take", "give"):
        model.controlled = act.name == "give"
    elif act.name in ("stop", "start"):
        model.stopped = act.name == "stop"
        model.holds = model.holds and not model.stopped
    elif act.name == "uninstall":
        model.cls, model.number, model.holds = None, 0, False
    elif act.name == "delete":
        model.gone = True


def _begin(world: UpgradeWorld, target: Principal, act: Act) -> bool:
    if act.name == "hold":
        world.submit(OWNER, target, "hold")
    elif act.name == "set":
        world.call(OWNER, target, "set", int_argument(act.value))
    else:
        method, value = management_of(world, target, act)
        world.manage(OPERATOR if act.name in ("stop", "start") else OWNER, method, value)
    return True


def management_of(world: UpgradeWorld, target: Principal, act: Act) -> tuple[str, Any]:
    """Give the management call that an act is."""
    if act.name in ("freeze", "thaw"):
        threshold = _FROZEN if act.name == "freeze" else 0
        wanted = t.CanisterSettings(freezing_threshold=threshold)
        return "update_settings", t.UpdateSettingsArgs(target, wanted)
    if act.name in ("take", "give"):
        holders = [OWNER] if act.name == "take" else [world.index, OWNER]
        return "update_settings", t.UpdateSettingsArgs(target, t.CanisterSettings(controllers=holders))
    if act.name == "stop":
        return "cannery_stop_canister", t.StopArgs(target, True)
    if act.name == "uninstall":
        return "uninstall_code", t.VersionedCanisterId(target)
    return f"{act.name}_canister", t.CanisterIdRecord(target)


def expect(model: Model, batch: Batch) -> str:
    """Say what a target gets, and change the model."""
    if model.gone or not model.controlled or model.cls is None:
        return "failed"
    if model.cls is batch.cls:
        return "unchanged"
    if batch.only_from is not None and model.cls is not batch.only_from:
        return "skipped"
    fails = batch.cls is Mute and (not batch.force or model.holds)
    fails = fails or (model.cls is Old and model.number in (CANNOT_END, HANGS_AT_END))
    fails = fails or (batch.cls is New and model.number in (TRAPS, HANGS, CORRUPTS))
    if fails or model.frozen:
        return "failed"
    model.cls = batch.cls
    return "upgraded"


# --- into each other -----------------------------------------------------------------------------------

inputs = st.one_of(
    batches,
    acts,
    st.builds(Act, st.sampled_from(["index stop", "index start", "index empty"]), st.just(0), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(inputs, max_size=6), max_size=5), st.integers(1, 4_000), st.booleans())
def test_whatever_runs_into_each_other_each_target_gets_one_result(
    blocks: list[list[Act | Batch]], work_count_max: int, is_dense: bool
) -> None:
    world = UpgradeWorld()
    targets = [world.make(9) for _ in range(COUNT)] + [Principal(keys.canister_id(0x200000))]
    world.few_per_round(work_count_max)
    asked: dict[bytes, list[Principal]] = {}
    for block in blocks:
        made = [_input(world, targets, step, asked) for step in block]
        if is_dense:
            world._round(made, 1)
        else:
            world.block(*made)
    world.block()
    assert world.leftovers() == []
    for request_id, chosen in asked.items():
        if request_id not in world.answers:
            # The index is stopped and never started again: the answer waits there for ever, or it went.
            continue
        answer = world.answers[request_id]
        if answer.reply is None or order_result(answer.reply).reject_code:
            continue
        assert [result.canister_id for result in results_of(answer.reply)] == chosen


def _input(
    world: UpgradeWorld, targets: list[Principal], step: Act | Batch, asked: dict[bytes, list[Principal]]
) -> Ingress:
    if isinstance(step, Batch):
        chosen = [targets[which] for which in step.which]
        only_from = None if step.only_from is None else world.hashes[step.only_from]
        args = world.args(chosen, step.cls, force=step.force, only_from=only_from)
        ingress = world.ingress(OWNER, world.index, "order", world.order(args))
        asked[ingress.request_id] = chosen
        return ingress
    if step.name.startswith("index"):
        method, value = {
            "index stop": ("cannery_stop_canister", t.StopArgs(world.index, True)),
            "index start": ("start_canister", t.CanisterIdRecord(world.index)),
            "index empty": ("uninstall_code", t.VersionedCanisterId(world.index)),
        }[step.name]
        return world.ingress(OPERATOR, MANAGEMENT, method, encode_argument(method, value))
    target = targets[step.which]
    if step.name in ("set", "hold"):
        arg = int_argument(step.value) if step.name == "set" else b"DIDL\x00\x00"
        return world.ingress(OWNER, target, step.name, arg)
    method, value = management_of(world, target, step)
    return world.ingress(
        OPERATOR if step.name in ("stop", "start") else OWNER,
        MANAGEMENT,
        method,
        encode_argument(method, value),
    )
