"""Status, metrics, metadata, logs, chance, lists, names, operators."""

from __future__ import annotations

import pytest

from cannery import Principal
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.module_file import parse_module
from cannery.limits import CANISTER_LIST_COUNT_MAX, OPERATOR_COUNT_MAX
from cannery.replica import keys
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from tests.replica.management_world import (
    ANONYMOUS,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    World,
    encode_argument,
    int_argument,
    make_puppet,
    order_argument,
    order_result,
    puppet_call,
    puppet_manage,
)

GIB = 1 << 30


def id_of(counter: int) -> Principal:
    return Principal(keys.canister_id(counter))


# --- status -------------------------------------------------------------------------------------------------


def test_status_is_the_same_by_update_and_by_query() -> None:
    world = World()
    canister = make_puppet(world, cycles=55)
    world.call(OWNER, canister, "set", int_argument(5))
    by_query = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister))
    by_update = world.manage(OWNER, "canister_status", t.CanisterIdRecord(canister))
    assert by_query == by_update
    assert by_query.cycles == 55
    assert by_query.memory_size == by_query.memory_metrics.stable_memory_size > 8
    assert by_query.memory_metrics.canister_history_size > 0
    assert by_query.memory_metrics.log_memory_store_size == len("set to 5")
    assert by_query.memory_metrics.wasm_binary_size == len(world.programs.module_of(Puppet))


def test_idle_burn_follows_the_price_of_storage() -> None:
    world = World(prices=PriceSchedule(storage_per_gib_second=GIB))
    canister = make_puppet(world)
    chunk = bytes(1_000)
    world.manage(OWNER, "upload_chunk", t.UploadChunkArgs(canister, chunk))
    status = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister))
    assert status.idle_cycles_burned_per_day == 1_000 * 86_400
    world.wait(10)
    later = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister))
    assert status.cycles - later.cycles == 10 * 1_000
    metrics = world.ask(OWNER, "canister_metrics", t.CanisterIdRecord(canister)).cycles_consumed
    assert metrics.memory + metrics.instructions == 10 * 1_000
    world.manage(OWNER, "clear_chunk_store", t.CanisterIdRecord(canister))
    metrics = world.ask(OWNER, "canister_metrics", t.CanisterIdRecord(canister)).cycles_consumed
    assert (metrics.memory, metrics.instructions) == (0, 11 * 1_000)
    world.manage(OWNER, "upload_chunk", t.UploadChunkArgs(canister, chunk))
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    status = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister))
    assert (status.memory_size, status.cycles) == (0, 10**12 - 12 * 1_000)


def test_state_that_goes_is_charged_before() -> None:
    world = World(prices=PriceSchedule(storage_per_gib_second=GIB))
    canister = make_puppet(world)
    world.call(OWNER, canister, "set", int_argument(5))
    size_bytes = world.ask(OWNER, "canister_status", t.CanisterIdRecord(canister)).memory_size
    world.wait(9)
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    assert world.account(canister).cycles == 10**12 - 10 * size_bytes


def test_a_lower_freezing_threshold_wakes_timers() -> None:
    world = World(prices=PriceSchedule(storage_per_gib_second=GIB))
    canister = make_puppet(world, cycles=10**9)
    world.manage(OWNER, "upload_chunk", t.UploadChunkArgs(canister, bytes(100)))
    world.call(OWNER, canister, "tick_after", int_argument(10))
    settings = t.CanisterSettings(freezing_threshold=2**64 - 1)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    world.wait(20)
    assert world.account(canister).timers_parked == 1
    with pytest.raises(Rejected, match="out of cycles"):
        world.call(OWNER, canister, "set", int_argument(1))
    settings = t.CanisterSettings(freezing_threshold=1)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    world.wait(1)
    assert (world.account(canister).timers_parked, world.account(canister).timers_open) == (0, 0)


def test_calls_with_too_few_cycles_are_refused() -> None:
    world = World()
    canister, other = make_puppet(world), make_puppet(world)
    settings = t.CanisterSettings(minimum_incoming_canister_call_cycles=100)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    with pytest.raises(Rejected, match="wants 100 cycles"):
        puppet_call(world, other, canister, "set", int_argument(1), 99)
    assert world.account(other).cycles == 10**12
    puppet_call(world, other, canister, "set", int_argument(1), 100)
    puppet_call(world, canister, canister, "set", int_argument(1), 0)
    world.call(OWNER, canister, "set", int_argument(1))


def test_an_installation_that_would_freeze_a_canister_is_refused() -> None:
    world = World(prices=PriceSchedule(storage_per_gib_second=GIB))
    canister = make_puppet(world, cycles=10**6)
    world.manage(OWNER, "upload_chunk", t.UploadChunkArgs(canister, bytes(1_000)))
    before = world.account(canister).version
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Puppet, "b"))
    args = t.InstallChunkedCodeArgs(t.InstallMode.upgrade(None), canister, None, [], module_hash, b"")
    with pytest.raises(Rejected, match="top it up") as caught:
        world.manage(OWNER, "install_chunked_code", args)
    assert (caught.value.code, caught.value.error_code) == (2, "IC0207")
    assert world.account(canister).version == before
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(canister, 10**12))
    world.manage(OWNER, "install_chunked_code", args)


def test_metadata_is_public_or_for_controllers() -> None:
    world = World()
    canister, stranger = make_puppet(world), make_puppet(world)
    module = parse_module(world.programs.module_of(Puppet))
    found = puppet_manage(
        world, stranger, "canister_metadata", t.CanisterMetadataArgs(canister, "candid:service")
    )
    assert found.value.decode() == module.did
    for name in ("cannery:archive", "no such name"):
        with pytest.raises(Rejected, match="no metadata"):
            puppet_manage(world, stranger, "canister_metadata", t.CanisterMetadataArgs(canister, name))
    settings = t.CanisterSettings(controllers=[OWNER, stranger])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    found = puppet_manage(
        world, stranger, "canister_metadata", t.CanisterMetadataArgs(canister, "cannery:archive")
    )
    assert found.value == module.archive
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    with pytest.raises(Rejected, match="no metadata"):
        puppet_manage(
            world, stranger, "canister_metadata", t.CanisterMetadataArgs(canister, "candid:service")
        )


def test_chance_is_other_for_each_call_and_equal_in_a_replay() -> None:
    def draw() -> list[bytes]:
        world = World()
        first, second = make_puppet(world), make_puppet(world)
        orders = [
            world.ingress(OWNER, who, "order", order_argument(MANAGEMENT, "raw_rand", b"DIDL\x00\x00"))
            for who in (first, second, first)
        ]
        world.block(*orders)
        return [order_result(world.answer(order.request_id)).reply for order in orders]

    drawn = draw()
    assert len(set(drawn)) == 3
    assert all(len(reply) == 32 + len(b"DIDL\x01\x6d\x7b\x01\x00") + 1 for reply in drawn)
    assert draw() == drawn


def test_composite_queries_ask_the_management_canister() -> None:
    world = World()
    canister = make_puppet(world)

    def ask(method: str, value: object) -> t.CanisterStatusResult | str:
        order = order_argument(MANAGEMENT, method, encode_argument(method, value))
        result = order_result(world.query(OWNER, canister, "ask", order))
        if result.reject_code:
            return result.reject_message
        (status,) = decoder((type_of(t.CanisterStatusResult),))(result.reply)
        assert isinstance(status, t.CanisterStatusResult)
        return status

    status = ask("canister_status", t.CanisterIdRecord(canister))
    assert isinstance(status, t.CanisterStatusResult)
    assert status.settings.controllers == [OWNER]
    assert "operator" in str(ask("list_canisters", None))
    assert "cannot be called as a query" in str(ask("raw_rand", None))


# --- logs ---------------------------------------------------------------------------------------------------


def test_logs_have_numbers_and_times_and_are_bounded() -> None:
    world = World()
    canister = make_puppet(world)
    settings = t.CanisterSettings(log_memory_limit=40)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, settings))
    for number in range(10):
        world.call(OWNER, canister, "set", int_argument(number))

    def fetch(wanted: t.LogFilter | None = None) -> list[t.LogRecord]:
        found = world.ask(OWNER, "fetch_canister_logs", t.FetchLogsArgs(canister, wanted))
        assert isinstance(found, t.FetchLogsResult)
        return found.canister_log_records

    lines = fetch()
    assert [(line.idx, line.content) for line in lines] == [(n, b"set to %d" % n) for n in range(5, 10)]
    times = [line.timestamp_nanos for line in lines]
    assert times == sorted(set(times))
    assert [r.idx for r in fetch(t.LogFilter.by_idx(t.LogRange(6, 8)))] == [6, 7]
    by_time = t.LogFilter.by_timestamp_nanos(t.LogRange(times[1], times[3]))
    assert [r.idx for r in fetch(by_time)] == [6, 7]


def test_traps_are_logged_and_survive_an_upgrade_not_a_reinstallation() -> None:
    world = World()
    canister = make_puppet(world)
    with pytest.raises(Rejected, match="told to fail"):
        world.call(OWNER, canister, "fail")

    def lines() -> list[bytes]:
        found = world.ask(OWNER, "fetch_canister_logs", t.FetchLogsArgs(canister))
        return [r.content for r in found.canister_log_records]

    assert "told to fail" in lines()[-1].decode()
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Puppet, "b"))
    for mode, count in ((t.InstallMode.upgrade(None), 1), (t.InstallMode.reinstall(), 0)):
        args = t.InstallChunkedCodeArgs(mode, canister, None, [], module_hash, b"")
        world.manage(OWNER, "install_chunked_code", args)
        assert len(lines()) == count


# --- lists --------------------------------------------------------------------------------------------------


def test_canisters_are_listed_as_ranges_and_in_pages() -> None:
    world = World()
    made = [make_puppet(world) for _ in range(5)]
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(made[2]))
    world.manage(OWNER, "delete_canister", t.CanisterIdRecord(made[2]))
    found = world.ask(OPERATOR, "list_canisters")
    assert found.canisters == [t.CanisterIdRange(made[0], made[1]), t.CanisterIdRange(made[3], made[4])]
    seen: list[Principal] = []
    after: Principal | None = None
    while True:
        page = world.ask(OPERATOR, "cannery_canister_list", t.CanisterListArgs(after, 3))
        seen += [c.canister_id for c in page.canisters]
        after = page.next
        if after is None:
            break
    assert seen == [made[0], made[1], made[3], made[4]]
    page = world.ask(OPERATOR, "cannery_canister_list", t.CanisterListArgs(None, 2**32 - 1))
    assert len(page.canisters) == 4 <= CANISTER_LIST_COUNT_MAX
    assert page.canisters[0].controllers == [OWNER]


def test_names_are_set_listed_and_removed() -> None:
    world = World()
    first, second = make_puppet(world), make_puppet(world)
    world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("user_index", first))
    world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("board", first))
    world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("board", second))
    named = world.ask(ANONYMOUS, "cannery_name_list")
    assert named == [t.NamedCanister("board", second), t.NamedCanister("user_index", first)]
    world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("board", None))
    assert world.ask(ANONYMOUS, "cannery_name_list") == [t.NamedCanister("user_index", first)]
    for name in ("", "a b", "x" * 65, "käse", "a\n"):
        with pytest.raises(Rejected, match="is no name"):
            world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs(name, first))
    with pytest.raises(Rejected, match="not found"):
        world.manage(OPERATOR, "cannery_name_set", t.NameSetArgs("gone", id_of(5)))


def test_operators_come_and_go_and_one_stays() -> None:
    world = World()
    world.manage(OPERATOR, "cannery_operator_add", STRANGER)
    assert set(world.ask(STRANGER, "cannery_operator_list")) == {OPERATOR, STRANGER}
    world.manage(STRANGER, "cannery_operator_remove", OPERATOR)
    assert world.ask(STRANGER, "cannery_operator_list") == [STRANGER]
    with pytest.raises(Rejected, match="is no operator"):
        world.manage(OPERATOR, "cannery_operator_add", OPERATOR)
    with pytest.raises(Rejected, match="last operator"):
        world.manage(STRANGER, "cannery_operator_remove", STRANGER)
    with pytest.raises(Rejected, match="is no operator"):
        world.manage(STRANGER, "cannery_operator_remove", OWNER)
    with pytest.raises(Rejected, match="everybody"):
        world.manage(STRANGER, "cannery_operator_add", ANONYMOUS)


def test_operators_are_bounded() -> None:
    world = World()
    for number in range(OPERATOR_COUNT_MAX - 1):
        added = Principal.self_authenticating(b"%d" % number)
        world.manage(OPERATOR, "cannery_operator_add", added)
    with pytest.raises(Rejected, match="at most"):
        world.manage(OPERATOR, "cannery_operator_add", OWNER)


def test_adding_a_module_again_changes_nothing() -> None:
    world = World()
    module = world.programs.module_of(Puppet)
    module_hash = world.manage(OPERATOR, "cannery_module_add", module)
    before = world.traces()
    assert world.manage(OPERATOR, "cannery_module_add", module) == module_hash
    assert world.traces() == before
    (info,) = world.ask(ANONYMOUS, "cannery_module_list")
    assert (info.hash, info.size, info.name, info.canisters) == (
        module_hash,
        len(module),
        "tests.Puppet:Puppet",
        0,
    )
