"""Random lives of canisters: whatever is done in whatever order, the laws hold and the numbers are kept.

`World` checks cycles, memory, counters, uses of modules and replays after every block. Here a model says what
each canister holds: an act that is refused changes nothing, an upgrade keeps the number, a reinstallation
drops it, the latest snapshot brings its own back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Canister, Context, Principal, StableCell, StableMap, health, init, nat64, query, update
from cannery.limits import SNAPSHOT_COUNT_MAX
from cannery.replica.management import types as t
from cannery.replica.management.snapshot_types import LoadSnapshotArgs, TakeSnapshotArgs
from tests.replica.management_world import (
    OPERATOR,
    OWNER,
    Rejected,
    World,
    int_argument,
    int_result,
)


class First(Canister):
    """A number."""

    number = StableCell(nat64, 0)

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()


class Second(Canister):
    """The number and more."""

    number = StableCell(nat64, 0)
    more = StableMap(str, nat64)

    @init
    def begin(self, ctx: Context) -> None:
        """Keep something."""
        self.more.put("begun", nat64(1))

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)
        self.more.put(str(value), value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()


class Choosy(Canister):
    """The number, which must be even at an upgrade."""

    number = StableCell(nat64, 0)

    @health
    def is_well(self, ctx: Context) -> bool:
        """Say whether the number is even."""
        return self.number.get() % 2 == 0

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()


class Other(Canister):
    """Another kind of number: no upgrade from the others."""

    number = StableCell(str, "")

    @init
    def begin(self, ctx: Context) -> None:
        """Keep nothing yet."""
        self.number.set("0")

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return nat64(int(self.number.get()))


CLASSES: tuple[type[Canister], ...] = (First, Second, Choosy, Other)
MODES = (t.InstallMode.install(), t.InstallMode.reinstall(), t.InstallMode.upgrade(None))


@dataclass
class Model:
    """What a canister is believed to be."""

    cls: type[Canister] | None = None
    number: int = 0
    stopped: bool = False
    saved: list[tuple[type[Canister], int]] = field(default_factory=list)


@dataclass(frozen=True)
class Deploy:
    which: int
    mode: t.InstallMode
    cls: type[Canister]


@dataclass(frozen=True)
class Act:
    which: int
    name: str
    value: int


which = st.integers(0, 2)
acts = st.one_of(
    st.builds(Deploy, which, st.sampled_from(MODES), st.sampled_from(CLASSES)),
    st.builds(
        Act,
        which,
        st.sampled_from(["set", "set", "take", "load", "uninstall", "stop", "start", "delete"]),
        st.integers(0, 9),
    ),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(acts, max_size=20))
def test_any_sequence_keeps_the_laws_and_the_numbers(sequence: list[Deploy | Act]) -> None:
    world = World()
    hashes = {c: world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(c)) for c in CLASSES}
    models: dict[Principal, Model] = {}
    canisters: list[Principal] = []
    for _ in range(3):
        args = t.CreateCanisterArgs(t.CanisterSettings(controllers=[OWNER]))
        canisters.append(world.manage(OPERATOR, "create_canister", args).canister_id)
        models[canisters[-1]] = Model()
    for act in sequence:
        canister = canisters[act.which]
        if canister in models:
            done = run_act(world, canister, act, hashes)
            assert done == expect(models, canister, act)
            check_model(world, canister, models.get(canister))


def run_act(
    world: World, canister: Principal, act: Deploy | Act, hashes: dict[type[Canister], bytes]
) -> bool:
    before = world.traces()
    try:
        if isinstance(act, Deploy):
            args = t.InstallChunkedCodeArgs(act.mode, canister, None, [], hashes[act.cls], b"")
            world.manage(OWNER, "install_chunked_code", args)
        elif act.name == "set":
            world.call(OWNER, canister, "set", int_argument(act.value))
        elif act.name == "take":
            world.manage(OWNER, "take_canister_snapshot", TakeSnapshotArgs(canister))
        elif act.name == "load":
            found = world.manage(OWNER, "list_canister_snapshots", t.CanisterIdRecord(canister))
            before = world.traces()
            latest = found[-1].id if found else bytes(8) + canister.raw
            world.manage(OWNER, "load_canister_snapshot", LoadSnapshotArgs(canister, latest))
        elif act.name == "uninstall":
            world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
        else:
            world.manage(OWNER, f"{act.name}_canister", t.CanisterIdRecord(canister))
    except Rejected:
        assert world.traces() == before
        return False
    return True


def expect(models: dict[Principal, Model], canister: Principal, act: Deploy | Act) -> bool:
    """Say whether an act succeeds, and change the model."""
    model = models[canister]
    if isinstance(act, Deploy):
        return expect_deploy(model, act)
    if act.name == "set":
        if model.stopped or model.cls in (None, Other):
            return False
        model.number = act.value
    elif act.name == "take":
        if model.cls is None or len(model.saved) >= SNAPSHOT_COUNT_MAX:
            return False
        model.saved.append((model.cls, model.number))
    elif act.name == "load":
        if not model.saved:
            return False
        model.cls, model.number = model.saved[-1]
    elif act.name == "uninstall":
        model.cls, model.number = None, 0
    elif act.name == "delete":
        if not model.stopped:
            return False
        del models[canister]
    else:
        model.stopped = act.name == "stop"
    return True


def expect_deploy(model: Model, act: Deploy) -> bool:
    if act.mode.tag == "upgrade":
        if model.cls is None or (model.cls is Other) != (act.cls is Other):
            return False
        if act.cls is Choosy and model.number % 2:
            return False
    elif act.mode.tag == "install" and model.cls is not None:
        return False
    else:
        model.number = 0
    model.cls = act.cls
    return True


def check_model(world: World, canister: Principal, model: Model | None) -> None:
    if model is None:
        assert not [key for key in world.traces() if canister.raw in key]
        return
    status = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister))
    assert (status.module_hash is None) == (model.cls is None)
    assert status.status.tag == ("stopped" if model.stopped else "running")
    if model.cls is not None and not model.stopped:
        assert int_result(world.query(OWNER, canister, "get")) == model.number
