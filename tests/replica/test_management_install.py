"""Code: install, reinstall, upgrade, chunks, modules. An upgrade commits whole or leaves no trace."""

from __future__ import annotations

import gzip
from hashlib import sha256

import pytest

from cannery import (
    Call,
    Canister,
    Context,
    Pending,
    Principal,
    RawOutcome,
    StableCell,
    StableMap,
    continuation,
    health,
    init,
    nat64,
    post_upgrade,
    pre_upgrade,
    query,
    timer,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.types import Nat64
from cannery.limits import CHUNK_COUNT_MAX, CHUNK_SIZE_BYTES_MAX, HOOK_CPU_NS_MAX
from cannery.ports import Stopped
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from cannery.replica.rounds import run_round
from cannery.testing.store import MemoryStore
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    Rejected,
    World,
    encode_argument,
    int_result,
    make_puppet,
    order_argument,
    order_result,
    puppet_manage,
)

MODES = {
    "install": t.InstallMode.install(),
    "reinstall": t.InstallMode.reinstall(),
    "upgrade": t.InstallMode.upgrade(None),
}


class Tally(Canister):
    """Version 1: a count and some names, a hook at its end, calls and timers that stay open."""

    count = StableCell(nat64, 0)
    names = StableMap(str, nat64)
    ended = StableCell(nat64, 0)

    @init
    def begin(self, ctx: Context, start: nat64) -> None:
        """Begin at a number; 13 is refused."""
        if start == 13:
            ctx.trap("unlucky")
        self.count.set(start)
        ctx.log(f"begun at {start}")

    @pre_upgrade
    def end(self, ctx: Context) -> None:
        """Note that the old version ended."""
        self.ended.set(ctx.version)
        if self.count.get() == 99:
            ctx.trap("cannot end")

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()

    @query
    def ended_at(self, ctx: Context) -> nat64:
        """Give the version in which the old code ended."""
        return self.ended.get()

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Set the count."""
        self.count.set(value)

    @update
    def hold(self, ctx: Context, callee: Principal) -> Pending[nat64]:
        """Stop another canister, which may take long."""
        arg = encode_argument("stop_canister", t.CanisterIdRecord(callee))
        return ctx.call(Call.raw(MANAGEMENT, "stop_canister", arg), then=self.held, saved=nat64(7))

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number."""
        return saved

    @update
    def tick_after(self, ctx: Context, seconds: nat64) -> None:
        """Set a timer."""
        ctx.timer_set(self.tick, after_s=seconds)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""
        self.count.set(self.count.get() + 1)


class TallyNext(Canister):
    """Version 2: keeps everything, adds a collection, starts with an argument, has a health query."""

    count = StableCell(nat64, 0)
    names = StableMap(str, nat64)
    ended = StableCell(nat64, 0)
    added = StableMap(nat64, str)

    @post_upgrade
    def resume(self, ctx: Context, step: nat64) -> None:
        """Add to the count; 13 is refused."""
        if step == 13:
            ctx.trap("unlucky")
        self.count.set(self.count.get() + step)
        self.added.put(nat64(ctx.version), "resumed")
        ctx.log("resumed")

    @health
    def is_well(self, ctx: Context) -> bool:
        """Say whether the count is below a thousand."""
        return self.count.get() < 1_000

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()

    @query
    def ended_at(self, ctx: Context) -> nat64:
        """Give the version in which the old code ended."""
        return self.ended.get()

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number and a thousand."""
        return nat64(saved + 1_000)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count by ten."""
        self.count.set(self.count.get() + 10)


class TallyWithoutContinuation(Canister):
    """Lacks the continuation."""

    count = StableCell(nat64, 0)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""


class TallyWithoutTimer(Canister):
    """Lacks the timer's method."""

    count = StableCell(nat64, 0)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number."""
        return saved


class TallyWithOtherSaved(Canister):
    """Wants another saved value."""

    count = StableCell(nat64, 0)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: str) -> nat64:
        """Answer."""
        return nat64(len(saved))

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""


class TallyWithOtherTypes(Canister):
    """Has another idea of what is stored."""

    count = StableCell(str, "")
    names = StableMap(nat64, nat64)


class Plain(Canister):
    """No hooks at all."""

    @query
    def hello(self, ctx: Context) -> str:
        """Greet."""
        return "hello"


def number(value: int) -> bytes:
    return encoder((Nat64(),))((value,))


def tally(world: World, start: int = 5) -> Principal:
    """Create a canister of the owner's with version 1."""
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    args = t.CreateInstalledArgs(module_hash, number(start), [OWNER])
    made = world.manage(OPERATOR, "cannery_create_installed", args)
    assert isinstance(made, t.CanisterIdRecord)
    return made.canister_id


def deploy(
    world: World,
    canister: Principal,
    cls: type[Canister],
    mode: str = "upgrade",
    arg: bytes = b"",
    tag: str = "",
) -> None:
    """Install a class by its hash, as the owner; an operator has brought it before."""
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls, tag))
    args = t.InstallChunkedCodeArgs(MODES[mode], canister, None, [], module_hash, arg)
    world.manage(OWNER, "install_chunked_code", args)


def status_of(world: World, canister: Principal) -> t.CanisterStatusResult:
    status: t.CanisterStatusResult = world.ask(OPERATOR, "canister_status", t.CanisterIdRecord(canister))
    return status


def logs_of(world: World, canister: Principal) -> list[str]:
    found = world.ask(OWNER, "fetch_canister_logs", t.FetchLogsArgs(canister))
    return [line.content.decode() for line in found.canister_log_records]


def get(world: World, canister: Principal, method: str = "get") -> int:
    return int_result(world.query(OWNER, canister, method))


def stopping(world: World, controllers: list[Principal]) -> Principal:
    """Create a canister that stops and cannot come to an end, as it waits for its own stop."""
    puppet = make_puppet(world)
    settings = t.CanisterSettings(controllers=[OWNER, puppet, *controllers])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(puppet, settings))
    arg = encode_argument("stop_canister", t.CanisterIdRecord(puppet))
    world.submit(OWNER, puppet, "order", order_argument(MANAGEMENT, "stop_canister", arg))
    return puppet


def hold_a_call(world: World, canister: Principal) -> tuple[bytes, Principal]:
    """Leave a call of the canister open; starting the second canister again ends it."""
    other = stopping(world, [canister])
    request_id = world.submit(OWNER, canister, "hold", encode_argument_principal(other))
    assert request_id not in world.answers
    return request_id, other


def encode_argument_principal(principal: Principal) -> bytes:
    return encode_argument("cannery_operator_add", principal)


# --- install ------------------------------------------------------------------------------------------------


def test_install_runs_init_with_its_argument() -> None:
    world = World()
    canister = tally(world, 8)
    assert get(world, canister) == 8
    assert logs_of(world, canister) == ["begun at 8"]
    assert status_of(world, canister).version == 1


@pytest.mark.parametrize("arg", [number(13), b"DIDL\x00\x00", b"garbage"])
def test_a_failed_init_leaves_an_empty_canister(arg: bytes) -> None:
    world = World()
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    before = world.traces()
    with pytest.raises(Rejected, match=r"trapped.*in init"):
        deploy(world, made, Tally, "install", arg)
    assert world.traces() == before
    module_hash = sha256(world.programs.module_of(Tally)).digest()
    with pytest.raises(Rejected, match="in init"):
        world.manage(OPERATOR, "cannery_create_installed", t.CreateInstalledArgs(module_hash, arg, [OWNER]))
    assert world.traces() == before


def test_installing_on_a_canister_that_is_not_empty_is_refused() -> None:
    world = World()
    canister = tally(world)
    before = world.traces()
    with pytest.raises(Rejected, match="is not empty"):
        deploy(world, canister, Tally, "install", number(1))
    assert world.traces() == before


def test_upgrading_an_empty_canister_is_refused() -> None:
    world = World()
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    with pytest.raises(Rejected, match="is empty: use mode install"):
        deploy(world, made, TallyNext, "upgrade")


def test_a_hash_that_nobody_brought_is_refused() -> None:
    world = World()
    canister = tally(world)
    args = t.InstallChunkedCodeArgs(MODES["upgrade"], canister, None, [], bytes(32), b"")
    with pytest.raises(Rejected, match="no chunks are named"):
        world.manage(OWNER, "install_chunked_code", args)
    with pytest.raises(Rejected, match="not on this node"):
        world.manage(OPERATOR, "cannery_create_installed", t.CreateInstalledArgs(bytes(32), b"", []))


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (b"", "not a Wasm file"),
        (b"\x00asm\x01\x00\x00\x00", "Wasm programs are not supported yet"),
        (b"\x00asm\x01\x00\x00\x00\x01\x04\x01\x60\x00\x00", "Wasm programs are not supported yet"),
        (b"\x1f\x8b\x08 not gzip", "gzip"),
    ],
)
def test_what_is_no_module_is_refused_with_the_reason(module: bytes, text: str) -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    with pytest.raises(Rejected, match=text):
        world.manage(OPERATOR, "install_code", t.InstallCodeArgs(MODES["install"], made, module, b""))
    with pytest.raises(Rejected, match=text):
        world.manage(OPERATOR, "cannery_module_add", module)


def test_a_module_that_does_not_load_is_refused_and_not_kept() -> None:
    world = World()
    module = World().programs.module_of(Tally)
    before = world.traces()
    with pytest.raises(Rejected, match="cannot be imported"):
        world.manage(OPERATOR, "cannery_module_add", module)
    assert world.traces() == before


# --- who brings modules ------------------------------------------------------------------------------------


def test_only_operators_bring_modules_and_any_controller_installs_them() -> None:
    world = World()
    canister = tally(world)
    module = world.programs.module_of(TallyNext)
    by_content = t.InstallCodeArgs(MODES["upgrade"], canister, module, number(1))
    with pytest.raises(Rejected, match="only operators bring modules"):
        world.manage(OWNER, "install_code", by_content)
    module_hash = world.manage(OPERATOR, "cannery_module_add", module)
    assert module_hash == sha256(module).digest()
    world.manage(OWNER, "install_code", by_content)
    assert get(world, canister) == 6


def test_a_canister_installs_what_is_known_and_brings_nothing() -> None:
    world = World()
    index = make_puppet(world)
    made = puppet_manage(world, index, "create_canister", t.CreateCanisterArgs()).canister_id
    module = world.programs.module_of(Tally)
    with pytest.raises(Rejected, match="only operators bring modules"):
        puppet_manage(
            world, index, "install_code", t.InstallCodeArgs(MODES["install"], made, module, number(2))
        )
    module_hash = world.manage(OPERATOR, "cannery_module_add", module)
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, [], module_hash, number(2))
    puppet_manage(world, index, "install_chunked_code", args)
    assert get(world, made) == 2


def test_a_gzipped_module_is_known_by_the_hash_of_the_file_as_given() -> None:
    world = World()
    module = gzip.compress(world.programs.module_of(Tally), mtime=0)
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    world.manage(OPERATOR, "install_code", t.InstallCodeArgs(MODES["install"], made, module, number(3)))
    status = status_of(world, made)
    assert status.module_hash == sha256(module).digest()
    assert status.memory_metrics.wasm_binary_size == len(module)
    assert get(world, made) == 3


def test_a_module_is_stored_once_and_its_canisters_are_counted() -> None:
    world = World()
    first, second = tally(world), tally(world)
    deploy(world, second, TallyNext, arg=number(0))
    deploy(world, second, TallyNext, arg=number(0))
    uses = {m.name: m.canisters for m in world.ask(OWNER, "cannery_module_list")}
    assert uses == {"tests.Tally:Tally": 1, "tests.TallyNext:TallyNext": 1}
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(first))
    deploy(world, second, Plain, "reinstall")
    uses = {m.name: m.canisters for m in world.ask(OWNER, "cannery_module_list")}
    assert uses == {"tests.Tally:Tally": 0, "tests.TallyNext:TallyNext": 0, "tests.Plain:Plain": 1}


# --- chunks -------------------------------------------------------------------------------------------------


def test_a_module_comes_in_chunks() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    module = world.programs.module_of(Tally)
    third = len(module) // 3
    parts = [module[:third], module[third : 2 * third], module[2 * third :]]
    chunks = [world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, part)) for part in parts]
    assert [c.hash for c in chunks] == [sha256(part).digest() for part in parts]
    assert {c.hash for c in world.manage(OPERATOR, "stored_chunks", t.CanisterIdRecord(made))} == {
        c.hash for c in chunks
    }
    assert status_of(world, made).memory_metrics.wasm_chunk_store_size == len(module)
    wrong = t.InstallChunkedCodeArgs(
        MODES["install"], made, None, chunks[:2], sha256(module).digest(), number(4)
    )
    with pytest.raises(Rejected, match="together have the hash"):
        world.manage(OPERATOR, "install_chunked_code", wrong)
    right = t.InstallChunkedCodeArgs(MODES["install"], made, made, chunks, sha256(module).digest(), number(4))
    world.manage(OPERATOR, "install_chunked_code", right)
    world.manage(OPERATOR, "clear_chunk_store", t.CanisterIdRecord(made))
    assert world.manage(OPERATOR, "stored_chunks", t.CanisterIdRecord(made)) == []
    assert get(world, made) == 4
    missing = t.InstallChunkedCodeArgs(MODES["upgrade"], made, None, chunks, bytes(32), b"")
    with pytest.raises(Rejected, match="not in the chunk store"):
        world.manage(OPERATOR, "install_chunked_code", missing)


def test_chunks_are_bounded() -> None:
    world = World()
    made = world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    with pytest.raises(Rejected, match="at most"):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, bytes(CHUNK_SIZE_BYTES_MAX + 1)))
    for number_ in range(CHUNK_COUNT_MAX):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"%d" % number_))
    world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"0"))
    with pytest.raises(Rejected, match="clear it first"):
        world.manage(OPERATOR, "upload_chunk", t.UploadChunkArgs(made, b"one more"))
    many = [t.ChunkHash(bytes(32))] * (CHUNK_COUNT_MAX + 1)
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, many, bytes(32), b"")
    with pytest.raises(Rejected, match="at most"):
        world.manage(OPERATOR, "install_chunked_code", args)


def test_the_store_of_another_canister_needs_its_controller() -> None:
    world = World()
    mine, other = tally(world), world.manage(OPERATOR, "create_canister", t.CreateCanisterArgs()).canister_id
    args = t.InstallChunkedCodeArgs(MODES["upgrade"], mine, other, [], bytes(32), b"")
    with pytest.raises(Rejected, match=f"Only controllers of canister {other}"):
        world.manage(OWNER, "install_chunked_code", args)


# --- upgrade ------------------------------------------------------------------------------------------------


def test_an_upgrade_keeps_the_state_and_runs_both_hooks() -> None:
    world = World()
    canister = tally(world, 5)
    deploy(world, canister, TallyNext, arg=number(2))
    assert get(world, canister) == 7
    assert get(world, canister, "ended_at") == 1
    assert status_of(world, canister).version == 2
    assert logs_of(world, canister) == ["begun at 5", "resumed"]
    info = puppet_manage(world, make_puppet(world), "canister_info", t.CanisterInfoArgs(canister, 1))
    assert info.recent_changes[0].details.code_deployment.mode == t.DeploymentMode.upgrade()


def test_the_old_hook_may_be_skipped() -> None:
    world = World()
    canister = tally(world, 99)
    with pytest.raises(Rejected, match=r"cannot end.*in pre_upgrade"):
        deploy(world, canister, TallyNext, arg=number(0))
    module_hash = sha256(world.programs.module_of(TallyNext)).digest()
    flags = t.UpgradeFlags(True, t.WasmMemoryPersistence.keep())
    args = t.InstallChunkedCodeArgs(t.InstallMode.upgrade(flags), canister, None, [], module_hash, number(0))
    world.manage(OWNER, "install_chunked_code", args)
    assert (get(world, canister), get(world, canister, "ended_at")) == (99, 0)


@pytest.mark.parametrize(
    ("start", "arg", "text"),
    [(99, 0, "in pre_upgrade"), (5, 13, "in post_upgrade"), (5, 5_000, "in health")],
)
def test_a_failed_upgrade_leaves_no_trace(start: int, arg: int, text: str) -> None:
    world = World()
    canister = tally(world, start)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(TallyNext))
    before = world.traces()
    with pytest.raises(Rejected, match=text):
        deploy(world, canister, TallyNext, arg=number(arg))
    assert world.traces() == before
    world.call(OWNER, canister, "set", number(1))
    deploy(world, canister, TallyNext, arg=number(1))
    assert get(world, canister) == 2


def test_an_upgrade_that_cannot_read_the_state_is_refused_with_the_paths() -> None:
    world = World()
    canister = tally(world)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(TallyWithOtherTypes))
    before = world.traces()
    with pytest.raises(Rejected, match=r"count.*names|names.*count"):
        deploy(world, canister, TallyWithOtherTypes)
    assert world.traces() == before
    deploy(world, canister, TallyWithOtherTypes, "reinstall")


def test_calls_in_flight_go_on_in_the_new_version() -> None:
    world = World()
    canister = tally(world)
    request_id, other = hold_a_call(world, canister)
    deploy(world, canister, TallyNext, arg=number(0))
    assert request_id not in world.answers
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert int_result(world.answer(request_id)) == 1_007


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (TallyWithoutContinuation, "'held'.*lacks it"),
        (TallyWithOtherSaved, "'held'.*cannot be read"),
        (Plain, "'held'.*lacks it"),
    ],
)
def test_an_upgrade_without_a_continuation_in_flight_is_refused_with_its_name(
    cls: type[Canister], text: str
) -> None:
    world = World()
    canister = tally(world)
    request_id, other = hold_a_call(world, canister)
    world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls))
    before = world.traces()
    with pytest.raises(Rejected, match=text):
        deploy(world, canister, cls)
    assert world.traces() == before
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert int_result(world.answer(request_id)) == 7
    deploy(world, canister, cls)


def test_an_upgrade_without_a_timer_s_method_is_refused_with_its_name() -> None:
    world = World()
    canister = tally(world)
    world.call(OWNER, canister, "tick_after", number(60))
    with pytest.raises(Rejected, match="timer 'tick' is in flight"):
        deploy(world, canister, TallyWithoutTimer)
    deploy(world, canister, TallyNext, arg=number(0))
    world.wait(61)
    assert get(world, canister) == 15
    deploy(world, canister, TallyWithoutTimer)


def test_two_versions_run_side_by_side() -> None:
    world = World()
    old, new = tally(world), tally(world)
    deploy(world, new, TallyNext, arg=number(1))
    world.call(OWNER, old, "set", number(3))
    assert (get(world, old), get(world, new)) == (3, 6)


# --- reinstall, uninstall -----------------------------------------------------------------------------------


@pytest.mark.parametrize("act", ["reinstall", "uninstall"])
def test_code_that_goes_answers_its_callers_and_drops_late_responses(act: str) -> None:
    world = World()
    canister, caller = tally(world), make_puppet(world)
    request_id, other = hold_a_call(world, canister)
    calling = world.submit(
        OWNER, caller, "order", order_argument(canister, "hold", encode_argument_principal(other), 500)
    )
    world.call(OWNER, canister, "tick_after", number(60))
    if act == "reinstall":
        deploy(world, canister, Tally, "reinstall", number(40))
    else:
        world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    with pytest.raises(Rejected, match=f"was {act}ed before it answered") as caught:
        world.answer(request_id)
    assert caught.value.code == 4
    result = order_result(world.answer(calling))
    assert (result.reject_code, result.refunded) == (4, 500)
    account = world.account(canister)
    assert (account.contexts_open, account.calls_open, account.timers_open, account.queued_bytes) == (
        0,
        0,
        0,
        0,
    )
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    world.wait(61)
    if act == "reinstall":
        assert get(world, canister) == 40
        assert logs_of(world, canister) == ["begun at 40"]
    else:
        assert logs_of(world, canister) == []
        status = status_of(world, canister)
        assert (status.module_hash, status.memory_size) == (None, 0)
        with pytest.raises(Rejected, match="no wasm module"):
            world.call(OWNER, canister, "set", number(1))


def test_refunds_of_late_responses_are_credited() -> None:
    world = World()
    puppet = make_puppet(world)
    other = stopping(world, [puppet])
    arg = encode_argument("stop_canister", t.CanisterIdRecord(other))
    request_id = world.submit(OWNER, puppet, "order", order_argument(MANAGEMENT, "stop_canister", arg, 600))
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(puppet))
    assert world.account(puppet).cycles == 10**12 - 600
    with pytest.raises(Rejected, match="was uninstalled"):
        world.answer(request_id)
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(other))
    assert world.account(puppet).cycles == 10**12


def test_hooks_are_charged_and_cannot_be_run_on_credit() -> None:
    world = World(prices=PriceSchedule(per_message=100))
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    made = world.manage(
        OPERATOR, "create_canister", t.CreateCanisterArgs(t.CanisterSettings([OWNER]))
    ).canister_id
    args = t.InstallChunkedCodeArgs(MODES["install"], made, None, [], module_hash, number(1))
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(made, 99))
    with pytest.raises(Rejected, match="its init costs 100"):
        world.manage(OWNER, "install_chunked_code", args)
    assert world.account(made).cycles == 99
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(made, 901))
    world.manage(OWNER, "install_chunked_code", args)
    assert world.account(made).cycles == 900
    deploy(world, made, TallyNext, arg=number(1))
    assert world.account(made).cycles == 600


# --- limits -------------------------------------------------------------------------------------------------


class StoppingWatch:
    """A watch that stops what it is told to stop."""

    def __init__(self) -> None:
        self.limits_ns: list[int] = []
        self.stops = False

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        self.limits_ns.append(cpu_ns_max)
        if self.stops and cpu_ns_max == HOOK_CPU_NS_MAX:
            raise Stopped

    def end(self) -> None:
        pass


def test_a_hook_that_runs_too_long_is_stopped_and_a_replay_obeys() -> None:
    watch = StoppingWatch()
    world = World(watch=watch)
    canister = tally(world)
    assert watch.limits_ns == [HOOK_CPU_NS_MAX]
    watch.stops = True
    with pytest.raises(Rejected, match=r"was stopped.*0\.2 s.*in pre_upgrade"):
        deploy(world, canister, TallyNext, arg=number(0))
    assert get(world, canister) == 5
    assert world.blocks[-1].verdicts
    replayed = MemoryStore()
    for block in world.blocks:
        replayed.write(run_round(replayed.snapshot(), block, world.programs, None).batch)
    assert dict(replayed.scan(b"", b"\xff")) == dict(world.store.scan(b"", b"\xff"))
