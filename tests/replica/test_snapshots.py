"""Snapshots are taken and loaded: what comes back, what goes, what stays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st_

from cannery import Canister, Context, Outcome, Pending, Principal, StableCell, continuation, nat64, update
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.management import CanisterIdArg, Management, Snapshot, SnapshotArgs, TakeSnapshotArgs
from cannery.replica import keys
from cannery.replica.block import PriceSchedule
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import snapshots
from cannery.replica.management import types as t
from cannery.replica.management.snapshot_store import SnapshotRecord
from cannery.replica.records import memory_size_bytes
from tests.replica.management_world import (
    EMPTY_ARG,
    FAR,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    World,
    encode_argument,
    int_result,
    make_puppet,
    order_argument,
    order_result,
    puppet_manage,
)
from tests.replica.snapshot_world import Keeper, load, snapshots_of, state_of, take, tell

STEP = st_.tuples(
    st_.sampled_from(["put", "remove", "certify", "wake", "time"]),
    st_.integers(0, 30),
    st_.sampled_from(["", "a", "b", "\x00", "longer " * 50]),
)
STEPS = st_.lists(STEP, max_size=8)


def walk(world: World, keeper: Principal, steps: list[tuple[str, int, str]]) -> None:
    for method, key, text in steps:
        if method == "time":
            world.wait(key + 1)
        else:
            # Timers are due later than all these steps take.
            tell(world, keeper, method, key + 1_000 if method == "wake" else key, text)


@settings(max_examples=60, deadline=None)
@given(
    STEPS,
    STEPS,
    st_.booleans(),
    st_.booleans(),
    st_.sampled_from(["nothing", "reinstall", "uninstall", "upgrade"]),
)
def test_what_was_taken_comes_back_exactly(
    before: list[tuple[str, int, str]],
    after: list[tuple[str, int, str]],
    stopped: bool,
    leaps: bool,
    change: str,
) -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    walk(world, keeper, before)
    if stopped:
        world.manage(OWNER, "stop_canister", t.CanisterIdRecord(keeper))
    wanted = state_of(world, keeper)
    snapshot = take(world, keeper)
    assert state_of(world, keeper) == wanted
    if stopped:
        world.manage(OWNER, "start_canister", t.CanisterIdRecord(keeper))
    walk(world, keeper, after)
    change_code(world, keeper, change)
    if leaps:
        world.wait(5_000)
        # What is due by now would fire after the load, and not in a canister that is stopped.
        world.manage(OWNER, "stop_canister", t.CanisterIdRecord(keeper))
    account = world.account(keeper)
    load(world, keeper, snapshot.id)
    assert state_of(world, keeper) == wanted
    assert world.account(keeper).cycles == account.cycles
    assert world.account(keeper).version == account.version + 1
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(keeper))
    tell(world, keeper, "put", 3, "goes on")


def change_code(world: World, keeper: Principal, change: str) -> None:
    if change == "uninstall":
        world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(keeper))
    elif change != "nothing":
        mode = t.InstallMode.reinstall() if change == "reinstall" else t.InstallMode.upgrade(None)
        cls = Puppet if change == "reinstall" else Keeper
        module = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls, "later"))
        args = t.InstallChunkedCodeArgs(mode, keeper, None, [], module, b"")
        world.manage(OWNER, "install_chunked_code", args)


def test_a_snapshot_of_a_large_state_has_many_pages() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    for key in range(30):
        tell(world, keeper, "note", key, "x" * 100_000)
    wanted, snapshot = state_of(world, keeper), take(world, keeper)
    pages = list(world.store.scan(*keys.owned_range(keys.SNAPSHOT_DATA, keeper.raw)))
    assert len(pages) > 10
    tell(world, keeper, "remove", 7, "")
    load(world, keeper, snapshot.id)
    assert state_of(world, keeper) == wanted


def test_a_snapshot_says_what_it_is() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    tell(world, keeper, "wake", 5, "x")
    tell(world, keeper, "certify", 5, "proof")
    snapshot = take(world, keeper)
    assert list(snapshots_of(world, keeper)) == [snapshot]
    assert snapshot.taken_at_timestamp == world.time_ns - 10**9
    args = st.SnapshotArgs(keeper, snapshot.id)
    metadata = world.manage(OWNER, "read_canister_snapshot_metadata", args)
    assert metadata.source.tag == "taken_from_canister"
    assert metadata.certified_data == b"proof"
    assert metadata.global_timer.active == snapshot.taken_at_timestamp + 13 * 10**9
    assert metadata.canister_version == world.account(keeper).version
    assert metadata.stable_memory_size + len(b"proof") == snapshot.total_size
    assert (metadata.globals, metadata.wasm_memory_size, metadata.wasm_chunk_store) == ([], 0, [])


def test_snapshots_count_in_the_memory_of_their_canister() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    before = memory_size_bytes(world.account(keeper))
    one, two = take(world, keeper), take(world, keeper)
    status = world.manage(OWNER, "canister_status", t.CanisterIdRecord(keeper))
    assert status.memory_size == before + one.total_size + two.total_size
    assert status.memory_metrics.snapshots_size == one.total_size + two.total_size
    world.manage(OWNER, "delete_canister_snapshot", st.SnapshotArgs(keeper, one.id))
    assert list(snapshots_of(world, keeper)) == [two]
    with pytest.raises(Rejected, match="has no snapshot") as caught:
        load(world, keeper, one.id)
    assert (caught.value.code, caught.value.error_code) == (3, "IC0305")


def test_a_snapshot_may_replace_another() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    taken = [take(world, keeper) for _ in range(10)]
    with pytest.raises(Rejected, match="has 10 snapshots, as many as it may"):
        take(world, keeper)
    new = take(world, keeper, replace_snapshot=taken[3].id)
    assert [found.id for found in snapshots_of(world, keeper)] == [
        *(found.id for found in taken if found != taken[3]),
        new.id,
    ]
    with pytest.raises(Rejected, match="has no snapshot"):
        take(world, keeper, replace_snapshot=taken[3].id)


def test_code_may_be_uninstalled_after_the_copy() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    tell(world, keeper, "put", 5, "x")
    wanted = state_of(world, keeper)
    snapshot = take(world, keeper, uninstall_code=True)
    assert world.account(keeper).memory_bytes == 0
    with pytest.raises(Rejected, match="is empty"):
        take(world, keeper)
    load(world, keeper, snapshot.id)
    assert state_of(world, keeper) == wanted


def test_a_deleted_canister_takes_its_snapshots_along() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    snapshot, other = take(world, keeper), make_puppet(world, Keeper)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(keeper))
    world.manage(OWNER, "delete_canister", t.CanisterIdRecord(keeper))
    assert not list(world.store.scan(*keys.space_range(keys.SNAPSHOTS)))
    assert not list(world.store.scan(*keys.space_range(keys.SNAPSHOT_DATA)))
    with pytest.raises(Rejected, match="has no snapshot"):
        load(world, other, snapshot.id)


def test_a_snapshot_is_loaded_into_another_canister_of_the_caller() -> None:
    world = World()
    one, two = make_puppet(world, Keeper), make_puppet(world, Puppet)
    tell(world, one, "put", 5, "x")
    tell(world, one, "wake", 900, "x")
    wanted, snapshot = state_of(world, one), take(world, one)
    load(world, two, snapshot.id)
    assert state_of(world, two) == wanted
    tell(world, two, "wake", 901, "another timer")
    assert len(state_of(world, two)["timers"]) == 2  # type: ignore[arg-type]  # a dict
    foreign = make_puppet(world, Keeper, owner=STRANGER)
    for target, sender in ((foreign, OWNER), (foreign, STRANGER), (one, STRANGER)):
        with pytest.raises(Rejected, match="Only controllers"):
            load(world, target, snapshot.id, sender)


@pytest.mark.parametrize("wanted", [b"", b"\x00", bytes(8), bytes(40), bytes(300), b"\xff" * 18])
def test_an_id_that_is_none_is_told_so(wanted: bytes) -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    for method in ("load_canister_snapshot", "delete_canister_snapshot", "read_canister_snapshot_metadata"):
        cls = st.LoadSnapshotArgs if method.startswith("load") else st.SnapshotArgs
        with pytest.raises(Rejected, match="has no snapshot"):
            world.manage(OWNER, method, cls(keeper, wanted))


def test_the_history_names_the_snapshot() -> None:
    world = World()
    one, two = make_puppet(world, Keeper), make_puppet(world, Keeper)
    version = world.account(one).version
    snapshot = take(world, one)
    load(world, one, snapshot.id)
    load(world, two, snapshot.id)
    for canister, source in ((one, None), (two, one)):
        info = puppet_manage(
            world, make_puppet(world), "canister_info", t.CanisterInfoArgs(canister, num_requested_changes=1)
        )
        (change,) = info.recent_changes
        loaded = change.details.load_snapshot
        assert change.origin.from_user.user_id == OWNER
        assert (loaded.from_canister_id, loaded.snapshot_id) == (source, snapshot.id)
        assert (loaded.canister_version, loaded.taken_at_timestamp) == (version, snapshot.taken_at_timestamp)
        assert loaded.source.tag == "taken_from_canister"
        assert change.canister_version == world.account(canister).version


class Saver(Canister):
    """Saves a canister that it controls and brings it back, as an author writes it."""

    saved = StableCell(bytes, b"")

    @update
    def save(self, ctx: Context, child: Principal) -> Pending[None]:
        """Take a snapshot."""
        return ctx.call(Management().take_canister_snapshot(TakeSnapshotArgs(child)), then=self.taken)

    @continuation
    def taken(self, ctx: Context, outcome: Outcome[Snapshot]) -> None:
        """Keep its id."""
        self.saved.set(outcome.unwrap().id)

    @update
    def go_back(self, ctx: Context, child: Principal) -> Pending[None]:
        """Load the snapshot."""
        args = SnapshotArgs(child, self.saved.get())
        return ctx.call(Management().load_canister_snapshot(args), then=self.done)

    @update
    def forget(self, ctx: Context, child: Principal) -> Pending[None]:
        """Delete the snapshot."""
        args = SnapshotArgs(child, self.saved.get())
        return ctx.call(Management().delete_canister_snapshot(args), then=self.done)

    @continuation
    def done(self, ctx: Context, outcome: Outcome[None]) -> None:
        """Pass a reject on."""
        outcome.unwrap()

    @update
    def count(self, ctx: Context, child: Principal) -> Pending[nat64]:
        """Count the snapshots."""
        return ctx.call(Management().list_canister_snapshots(CanisterIdArg(child)), then=self.counted)

    @continuation
    def counted(self, ctx: Context, outcome: Outcome[list[Snapshot]]) -> nat64:
        """Answer."""
        return len(outcome.unwrap())


def test_a_canister_saves_another_that_it_controls() -> None:
    world = World()
    saver, keeper = make_puppet(world, Saver), make_puppet(world, Keeper)
    arg = encoder((type_of(Principal),))((keeper,))
    for method in ("save", "go_back", "forget", "count"):
        with pytest.raises(Rejected):
            world.call(OWNER, saver, method, arg)
    holders = t.CanisterSettings(controllers=[saver, OWNER])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(keeper, holders))
    wanted = state_of(world, keeper)
    world.call(OWNER, saver, "save", arg)
    tell(world, keeper, "put", 1, "x")
    assert int_result(world.call(OWNER, saver, "count", arg)) == 1
    world.call(OWNER, saver, "go_back", arg)
    assert state_of(world, keeper) == wanted
    world.call(OWNER, saver, "forget", arg)
    assert int_result(world.call(OWNER, saver, "count", arg)) == 0


# --- calls and timers --------------------------------------------------------------------------------------


def wait_argument(callee: Principal, method: str, arg: bytes) -> bytes:
    return encoder((type_of(Principal), type_of(str), type_of(bytes)))((callee, method, arg))


def test_open_calls_are_rejected_and_their_cycles_returned() -> None:
    world = World(far=True)
    keeper, caller = make_puppet(world, Keeper), make_puppet(world)
    snapshot = take(world, keeper)
    arg = wait_argument(FAR, "never", EMPTY_ARG)
    by_user = world.submit(OWNER, keeper, "wait", arg)
    by_canister = world.submit(OWNER, caller, "order", order_argument(keeper, "wait", arg, cycles=5_000))
    assert world.account(keeper).contexts_open == 2
    load(world, keeper, snapshot.id)
    with pytest.raises(Rejected, match="went back to a snapshot before it answered"):
        world.answer(by_user)
    result = order_result(world.answer(by_canister))
    assert (result.reject_code, result.refunded) == (4, 5_000)
    assert world.account(keeper).contexts_open == world.account(keeper).calls_open == 0


def test_a_late_response_is_dropped_and_its_refund_credited() -> None:
    world = World(far=True)
    keeper, caller, callee = make_puppet(world, Keeper), make_puppet(world), make_puppet(world)
    snapshot, balance = take(world, keeper), world.account(keeper).cycles
    never = order_argument(FAR, "never", EMPTY_ARG)
    arg = wait_argument(callee, "order", never)
    world.submit(OWNER, caller, "order", order_argument(keeper, "wait", arg, cycles=5_000))
    assert world.account(keeper).cycles == balance - 5_000
    load(world, keeper, snapshot.id)
    wanted = state_of(world, keeper)
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(callee))
    assert world.account(keeper).cycles == balance
    assert state_of(world, keeper) == wanted, "no continuation ran"


def test_a_canister_loads_its_own_snapshot() -> None:
    world = World()
    puppet = make_puppet(world)
    holders = t.CanisterSettings(controllers=[puppet, OWNER])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(puppet, holders))
    snapshot = take(world, puppet)
    world.call(OWNER, puppet, "set", encoder((type_of(nat64),))((8,)))
    arg = encode_argument("load_canister_snapshot", st.LoadSnapshotArgs(puppet, snapshot.id))
    request = world.submit(OWNER, puppet, "order", order_argument(MANAGEMENT, "load_canister_snapshot", arg))
    with pytest.raises(Rejected, match="went back to a snapshot"):
        world.answer(request)
    assert state_of(world, puppet)["stable"] == {}


def test_a_stopping_canister_is_stopped_by_going_back() -> None:
    world = World(far=True)
    keeper = make_puppet(world, Keeper)
    snapshot = take(world, keeper)
    world.submit(OWNER, keeper, "wait", wait_argument(FAR, "never", EMPTY_ARG))
    stop = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(keeper))
    load(world, keeper, snapshot.id)
    world.answer(stop)


@pytest.mark.parametrize("key", [9, 10], ids=["once", "repeating"])
def test_timers_that_are_due_fire_after_going_back(key: int) -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    tell(world, keeper, "wake", key, "x")
    wanted, snapshot = state_of(world, keeper), take(world, keeper)
    world.wait(100)
    rung = state_of(world, keeper)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(keeper))
    load(world, keeper, snapshot.id)
    world.wait(1)
    assert state_of(world, keeper) == wanted
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(keeper))
    world.wait(1)
    assert state_of(world, keeper)["stable"] == rung["stable"]
    assert world.account(keeper).timers_parked == 0


def test_a_waiting_timer_of_before_does_not_fire_one_that_came_back() -> None:
    world = World()
    near, late = make_puppet(world, Keeper), make_puppet(world, Keeper)
    tell(world, late, "wake", 901, "late")
    wanted, snapshot = state_of(world, late), take(world, late)
    tell(world, near, "wake", 1, "near")
    assert list(state_of(world, near)["timers"]) == list(wanted["timers"])  # type: ignore[call-overload]
    arg = encode_argument("load_canister_snapshot", st.LoadSnapshotArgs(near, snapshot.id))
    world.block(world.ingress(OWNER, MANAGEMENT, "load_canister_snapshot", arg), seconds=20)
    world.wait(1)
    assert state_of(world, near)["timers"] == wanted["timers"]
    assert state_of(world, near)["stable"] == wanted["stable"]


# --- bounds ------------------------------------------------------------------------------------------------


def test_too_much_for_one_message_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    for key in range(5):
        tell(world, keeper, "put", key, str(key))
    before = world.traces()
    for name, bound in (
        ("SNAPSHOT_KEY_COUNT_MAX", 20),
        ("SNAPSHOT_SIZE_BYTES_MAX", world.account(keeper).memory_bytes - 1),
        ("SNAPSHOT_SIZE_BYTES_MAX", world.account(keeper).memory_bytes + 1),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(snapshots, name, bound)
            with pytest.raises(Rejected, match="a snapshot has at most"):
                take(world, keeper)
    assert world.traces() == before


def test_a_snapshot_that_would_freeze_its_canister_is_refused() -> None:
    world = World(PriceSchedule(storage_per_gib_second=1_000))
    keeper = make_puppet(world, Keeper, cycles=40_000)
    tell(world, keeper, "note", 1, "x" * 10_000)
    for method, args in (
        ("take_canister_snapshot", st.TakeSnapshotArgs(keeper)),
        ("upload_canister_snapshot_metadata", st.UploadSnapshotMetadataArgs(keeper, 0, [], 0, 50_000, b"")),
    ):
        with pytest.raises(Rejected, match="would be out of cycles") as caught:
            world.manage(OWNER, method, args)
        assert caught.value.error_code == "IC0207"
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(keeper, 10**9))
    take(world, keeper)


def test_the_record_counts_what_it_holds() -> None:
    assert SnapshotRecord(0, 0, True, b"", 10, 5, b"abc").size_bytes == 18
