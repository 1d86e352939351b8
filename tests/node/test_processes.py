"""A node's real processes: runaway programs, kills, stops, and starts that cannot be."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery import Canister, Context, StableCell, nat64, post_upgrade, query, update
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.build import build_module
from cannery.client.errors import Rejected
from cannery.node.python_runtime import SourceLoader
from cannery.protocol.principal import Principal
from cannery.replica.management.upgrade_types import UpgradeManyArgs, UpgradeOutcome
from cannery.testing.class_source import source_of
from tests.node.process_node import ProcessNode, wait_until_gone

EMPTY = b"DIDL\x00\x00"
NAT64_0 = encoder((type_of(nat64),))((0,))

CONFIG = """
[node]
no_progress_ms_max = 3000
memory_mib_max = 400
[limits]
message_cpu_ms_max = 300
"""


class Wild(Canister):
    count = StableCell(nat64, 0)

    @query
    def order(self, ctx: Context) -> str:
        return str({f"name {number}" for number in (1, 2, 3, 4, 5, 6, 7, 8)})

    @update
    def add(self, ctx: Context) -> nat64:
        self.count.set(self.count.get() + 1)
        return self.count.get()

    @query
    def value(self, ctx: Context) -> nat64:
        return self.count.get()

    @update
    def loop(self, ctx: Context) -> None:
        while True:
            pass

    @update
    def long_call(self, ctx: Context) -> None:
        sum(range(10**12))

    @query
    def long_query(self, ctx: Context) -> None:
        sum(range(10**12))

    @update
    def grow(self, ctx: Context) -> None:
        kept: list[bytes] = []
        while True:
            kept.append(bytes(10_000_000))

    @update
    def grow_small(self, ctx: Context) -> None:
        kept: list[list[int]] = []
        while True:
            kept.append(list(range(1000)))

    @update
    def leave(self, ctx: Context) -> None:
        raise SystemExit(0)

    @update
    def recurse(self, ctx: Context) -> None:
        self.recurse(ctx)


class Patched(Canister):
    count = StableCell(nat64, 0)

    @post_upgrade
    def ponder(self, ctx: Context) -> None:
        if self.count.get():
            sum(range(10**12))

    @update
    def add(self, ctx: Context) -> nat64:
        return 0

    @query
    def value(self, ctx: Context) -> nat64:
        return self.count.get()


class Mended(Canister):
    count = StableCell(nat64, 0)

    @post_upgrade
    def ponder(self, ctx: Context) -> None:
        self.count.set(self.count.get() + 100)

    @update
    def add(self, ctx: Context) -> nat64:
        return 0

    @query
    def value(self, ctx: Context) -> nat64:
        return self.count.get()


def module_of(cls: type[Canister]) -> bytes:
    source = source_of(cls)
    loader = SourceLoader()
    try:
        return build_module(source.files, source.entry, loader.load).module
    finally:
        loader.discard()


@pytest.fixture(scope="module")
def wild(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ProcessNode, Principal]]:
    data = tmp_path_factory.mktemp("node") / "data"
    data.mkdir()
    (data / "cannery.toml").write_text(CONFIG)
    node = ProcessNode(data)
    yield node, node.install(module_of(Wild))
    code, errors = node.stop()
    assert code == 0, errors


@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("loop", "CPU time"),
        ("grow", "too much memory"),
        ("grow_small", "CPU time|memory"),
        ("leave", "SystemExit"),
        ("recurse", "recursed too deeply"),
        ("long_call", "too much time or memory"),
    ],
)
def test_a_runaway_update_is_rejected_and_others_only_wait(
    wild: tuple[ProcessNode, Principal], method: str, text: str
) -> None:
    node, canister_id = wild
    results: list[bytes] = []
    others = threading.Thread(target=lambda: results.append(node.agent.call(canister_id, "add", EMPTY)))
    before = node.agent.query(canister_id, "value", EMPTY)
    starter = threading.Timer(0.05, others.start)
    starter.start()
    with pytest.raises(Rejected, match=text):
        node.agent.call(canister_id, method, EMPTY)
    starter.join()
    others.join()
    assert len(results) == 1
    assert node.agent.query(canister_id, "value", EMPTY) == results[0] != before


def test_a_runaway_query_is_refused_and_others_only_wait(wild: tuple[ProcessNode, Principal]) -> None:
    node, canister_id = wild
    with pytest.raises(Rejected, match="brought the node's process down"):
        node.agent.query(canister_id, "long_query", EMPTY)
    assert node.agent.call(canister_id, "add", EMPTY)


def test_a_hook_that_ends_the_process_fails_alone_and_a_mended_one_may_try_at_once(
    wild: tuple[ProcessNode, Principal],
) -> None:
    node, _ = wild
    targets = [node.install(module_of(Mended)) for _ in range(3)]
    used = node.install(module_of(Wild))
    node.agent.call(used, "add", EMPTY)
    targets[1] = used

    def upgrade(cls: type[Canister]) -> list[UpgradeOutcome]:
        module_hash = node.manage("cannery_module_add", module_of(cls))
        args = UpgradeManyArgs(module_hash, b"", targets, True, None, None)  # type: ignore[arg-type]
        return [each.outcome for each in node.manage("cannery_upgrade_many", args)]  # type: ignore[attr-defined]

    first, bad, last = upgrade(Patched)
    assert (first.tag, last.tag) == ("upgraded", "upgraded")
    assert "too much time or memory" in bad.failed.text
    assert node.agent.query(used, "value", EMPTY) == encoder((type_of(nat64),))((1,))
    assert [outcome.tag for outcome in upgrade(Mended)] == ["upgraded"] * 3
    assert node.agent.query(used, "value", EMPTY) == encoder((type_of(nat64),))((101,))


def test_a_killed_node_goes_on_with_everything_it_answered(tmp_path: Path) -> None:
    node = ProcessNode(tmp_path / "data")
    canister_id = node.install(module_of(Wild))
    for _ in range(3):
        last = node.agent.call(canister_id, "add", EMPTY)
    order = node.agent.query(canister_id, "order", EMPTY)
    subnet = node.child("subnet_process")
    subnet.send_signal(signal.SIGKILL)
    assert node.agent.call(canister_id, "add", EMPTY) != last
    node.kill()
    node = ProcessNode(tmp_path / "data")
    value = node.agent.query(canister_id, "value", EMPTY)
    assert value == encoder((type_of(nat64),))((4,))
    assert node.agent.query(canister_id, "order", EMPTY) == order, "each process orders a set alike"
    gateway = node.child("node.gateway")
    gateway.send_signal(signal.SIGKILL)
    wait_until_gone(gateway)
    assert "gateway 0 ended unexpectedly" in node.report()
    assert node.agent.query(canister_id, "value", EMPTY) == value
    code, errors = node.stop(signal.SIGINT)
    assert code == 0, errors
    assert "Traceback" not in errors, errors


def test_what_cannot_start_says_why_in_one_line(tmp_path: Path) -> None:
    node = ProcessNode(tmp_path / "data")
    port = int(node.url.rpartition(":")[2])
    try:
        with pytest.raises(AssertionError, match=r"error: .* is in use by another node \(pid \d+\)"):
            ProcessNode(tmp_path / "data")
        with pytest.raises(AssertionError, match=f"error: port {port} on 127.0.0.1 is taken"):
            ProcessNode(tmp_path / "other", port)
    finally:
        node.stop()
    (tmp_path / "data" / "format").write_text("cannery 9\n")
    with pytest.raises(AssertionError, match="'cannery 9', and this version reads 'cannery 1'"):
        ProcessNode(tmp_path / "data")
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "thesis.tex").write_text("mine")
    with pytest.raises(AssertionError, match=r"holds 'thesis\.tex'"):
        ProcessNode(tmp_path / "strange")
