"""Alarms reach log and webhooks: in order, at least once over crashes, without rounds, whoever fails."""

from __future__ import annotations

import asyncio
import hmac
import re
import ssl
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import get_args

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cannery.errors import StoreError
from cannery.fleet.alarms import AlarmKind
from cannery.limits import ALARM_BATCH_COUNT_MAX, ALARM_QUIET_NS_MAX, WEBHOOK_PAUSE_NS_MAX
from cannery.node.gateway.app import Clocks
from cannery.node.gateway.asking import Questions
from cannery.node.vitals import Machine
from cannery.node.watching.alarm import KINDS, Alarm
from cannery.node.watching.alarm_file import ALARMS, AlarmsRecord, StateFile
from cannery.node.watching.node_alarms import CanaryState
from cannery.node.watching.receivers import LogReceiver, Receiver
from cannery.node.watching.watcher import AlarmWatcher
from cannery.node.watching.webhook import WebhookReceiver, sign_body
from cannery.testing import Node
from tests.gateway.fleets_under_test import HANGS_SOON, Hanging, Honest, NodePort, Silent, fleet_of
from tests.node.webhook_server import Hook

DOCS = Path(__file__).parents[2] / "docs"
GIB = 2**30
SECRET = "0123456789abcdef"


class FullDisk(StateFile[AlarmsRecord]):
    """A file that cannot be written now and then."""

    is_full = False

    def save(self, record: AlarmsRecord) -> None:
        if self.is_full:
            raise StoreError("cannot write: the disk is full")
        super().save(record)


# Made once: reading the authorities takes longer than a look.
TLS = ssl.create_default_context()


@dataclass
class World:
    """A node with a watcher, driven by hand."""

    node: Node
    folder: Path
    urls: tuple[str, ...] = ()
    lines: list[str] = field(default_factory=list)
    monotonic_ns: int = 1
    canary: CanaryState = field(default_factory=CanaryState)

    def __post_init__(self) -> None:
        self.port = NodePort(self.node)
        self.file = FullDisk(self.folder / "watch" / "alarms", ALARMS, AlarmsRecord)
        self.watcher = self.start()

    def start(self) -> AlarmWatcher:
        """Begin as a fresh process does."""
        self.client: httpx.AsyncClient | None = None
        clocks = Clocks(lambda: self.node.now_ns, lambda: self.monotonic_ns)
        self.hooks = [
            WebhookReceiver(
                url, f"webhook-{n}", SECRET, "rb.md", None, self.lines.append, clocks.monotonic_ns
            )  # type: ignore[arg-type]
            for n, url in enumerate(self.urls, 1)
        ]
        receivers: list[Receiver] = [LogReceiver(self.lines.append, "rb.md"), *self.hooks]
        questions = Questions(self.port, 1.0)
        self.watcher = AlarmWatcher(
            self.port, questions, receivers, self.file, GIB, self.lines.append, clocks
        )
        return self.watcher

    def look(self, seconds: float = 2) -> None:
        """Let time pass, and look once."""
        self.monotonic_ns += int(seconds * 1e9)
        asyncio.run(self._look())

    async def _look(self) -> None:
        async with httpx.AsyncClient(trust_env=False, verify=TLS) as client:
            for hook in self.hooks:
                hook._client = client
            await self.watcher.look(self.canary)

    @property
    def told(self) -> list[str]:
        """The alarms' lines of the log, without what the watcher says of itself."""
        return [line for line in self.lines if line.startswith("alarm")]


@pytest.fixture
def node() -> Iterator[Node]:
    with Node(config=HANGS_SOON) as running:
        yield running


@pytest.fixture
def hook() -> Iterator[Hook]:
    running = Hook()
    yield running
    running.close()


def test_an_alarm_is_a_line_of_the_log_and_a_signed_post(node: Node, hook: Hook, tmp_path: Path) -> None:
    index = fleet_of(node, Honest, "user_index")
    world = World(node, tmp_path, (hook.url,))
    index.alarm("low_balance", "abc-cai", "12 cycles left", False)
    world.look()
    assert world.told == ["alarm: low_balance in user_index, abc-cai: 12 cycles left (rb.md#low_balance)"]
    (alarm,) = hook.alarms
    assert alarm["id"] == f"{index.id}/0"
    assert (alarm["kind"], alarm["subject"], alarm["is_over"]) == ("low_balance", "abc-cai", False)
    assert alarm["runbook"] == "rb.md#low_balance"
    signature = hook.headers[0]["cannery-signature"]
    time_s = int(signature.split(",")[0].removeprefix("t="))
    expected = hmac.new(SECRET.encode(), b"%d." % time_s + hook.bodies[0], sha256).hexdigest()
    assert signature == f"t={time_s},v1={expected}" == sign_body(SECRET.encode(), hook.bodies[0], time_s)
    index.alarm("low_balance", "abc-cai", "filled up", True)
    world.look()
    assert hook.texts == ["12 cycles left", "filled up"]
    assert world.told[1].startswith("alarm over: low_balance")


def test_an_idle_node_is_not_asked_and_runs_no_rounds(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    index.alarm("quarantined", "x", "y", False)
    world = World(node, tmp_path)
    world.look()
    block = node.subnet.head.number
    world.port.asked.clear()
    for _ in range(1_000):
        world.look()
    assert world.port.asked == []
    assert node.subnet.head.number == block
    index.alarm("quarantined", "x", "z", False)
    world.look()
    assert len(world.told) == 2


def test_a_webhook_that_fails_is_tried_again_and_holds_up_nobody(node: Node, tmp_path: Path) -> None:
    good, bad = Hook(), Hook(statuses=[500, 302, 404, 429])
    try:
        index = fleet_of(node, Honest, "i")
        world = World(node, tmp_path, (bad.url, good.url))
        index.alarm("quarantined", "x", "one", False)
        world.look()
        assert (good.texts, world.told[0].split(": ")[2]) == (["one"], "one (rb.md#quarantined)")
        index.alarm("quarantined", "x", "two", False)
        world.look(0.5)
        assert len(bad.bodies) == 1, "not again before its pause is over"
        assert good.texts == ["one", "two"]
        for _ in range(3):
            world.look(WEBHOOK_PAUSE_NS_MAX / 1e9)
        assert len(bad.bodies) == 4
        world.look(WEBHOOK_PAUSE_NS_MAX / 1e9)
        assert bad.texts == ["one", "two"]
        assert good.texts == ["one", "two"]
        own = [line for line in world.lines if not line.startswith("alarm")]
        assert len(own) == 2, "a failure is logged once, and its end"
        assert "HTTP status 500" in own[0]
        assert "key=secret" not in "".join(world.lines)
        failed = [record.failures for record in world.watcher.record.receivers.values()]
        assert failed == [0, 4, 0]
    finally:
        good.close()
        bad.close()


def test_pauses_grow_to_a_bound_when_nobody_listens(node: Node, tmp_path: Path) -> None:
    hook = Hook()
    hook.close()
    index = fleet_of(node, Honest)
    world = World(node, tmp_path, (hook.url,))
    index.alarm("quarantined", "x", "one", False)
    pauses = []
    for _ in range(9):
        world.look(WEBHOOK_PAUSE_NS_MAX / 1e9)
        pauses.append(world.hooks[0].next_ns - world.monotonic_ns)
    assert pauses == [10**9 * min(2**n, 60) for n in range(9)]


def test_a_new_webhook_gets_what_comes_and_an_old_one_goes_on_where_it_was(
    node: Node, hook: Hook, tmp_path: Path
) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    index.alarm("quarantined", "x", "before", False)
    world.look()
    world.urls = (hook.url,)
    world.start()
    index.alarm("quarantined", "x", "after", False)
    world.look()
    assert hook.texts == ["after"]
    index.alarm("quarantined", "x", "while it was down", False)
    world.start()
    world.look()
    assert hook.texts == ["after", "while it was down"]
    assert len(world.told) == 3


def test_indexes_that_hang_or_have_no_alarms_hold_up_nobody(node: Node, tmp_path: Path) -> None:
    fleet_of(node, Hanging, "hanging")
    fleet_of(node, Silent, "silent")
    index = fleet_of(node, Honest, "honest")
    world = World(node, tmp_path)
    index.alarm("rollout_stalled", "7", "no progress for an hour", False)
    world.look()
    assert len(world.told) == 1
    world.port.asked.clear()
    index.alarm("rollout_stalled", "7", "it goes on", True)
    world.look(1)
    assert len(world.told) == 2
    assert world.port.asked.count("fleet_alarms") == 1, "those that failed are left alone for a while"
    for _ in range(10):
        world.look(ALARM_QUIET_NS_MAX / 1e9)
    own = [line for line in world.lines if "cannot be read" in line]
    assert len(own) == 2, "each is told of once"


def test_a_log_that_begins_anew_is_noticed(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    for n in range(5):
        index.alarm("quarantined", "x", f"old {n}", False)
    world.look()
    node.advance(seconds=1)
    node.reinstall(index, Honest)
    index.alarm("quarantined", "x", "new 0", False)
    world.look()
    assert len(world.told) == 6
    for n in range(1, 8):
        index.alarm("quarantined", "x", f"new {n}", False)
    world.look()
    assert [line.split(": ")[2].split(" (")[0] for line in world.told[5:]] == [f"new {n}" for n in range(8)]


def test_a_log_that_began_anew_and_grew_past_the_position_is_noticed(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    index.alarm("quarantined", "x", "old 0", False)
    world.look()
    node.advance(seconds=1)
    node.reinstall(index, Honest)
    for n in range(3):
        index.alarm("quarantined", "x", f"new {n}", False)
    world.look()
    assert [line.split(": ")[2].split(" (")[0] for line in world.told[1:]] == ["new 0", "new 1", "new 2"]


def test_alarms_that_were_gone_before_they_were_told_are_counted(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    index.alarm("quarantined", "x", "first", False)
    world.look()
    for n in range(10):
        index.alarm("quarantined", "x", str(n), False)
    index.prune(8)
    world.look()
    assert len(world.told) == 4
    assert world.watcher.record.receivers["log"].missed == 7


def test_many_alarms_go_out_in_batches_in_one_look(node: Node, hook: Hook, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path, (hook.url,))
    for n in range(ALARM_BATCH_COUNT_MAX * 2 + 5):
        index.alarm("quarantined", "x", str(n), False)
    world.look()
    assert hook.texts == [str(n) for n in range(ALARM_BATCH_COUNT_MAX * 2 + 5)]
    assert len(hook.bodies) == 3


def test_a_disk_that_is_full_stops_no_alarm(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    world.file.is_full = True
    for n in range(3):
        index.alarm("quarantined", "x", str(n), False)
        world.look()
    assert len(world.told) == 3
    assert len([line for line in world.lines if "may be told again" in line]) == 1
    world.file.is_full = False
    world.look()
    index.alarm("quarantined", "x", "3", False)
    world.look()
    world.start()
    world.look()
    assert len(world.told) == 4


def test_a_damaged_file_is_put_aside(node: Node, tmp_path: Path) -> None:
    index = fleet_of(node, Honest)
    world = World(node, tmp_path)
    index.alarm("quarantined", "x", "one", False)
    world.look()
    path = tmp_path / "watch" / "alarms"
    path.write_bytes(b"\x07rubbish")
    world.start()
    assert "begins anew" in world.lines[-1]
    assert path.with_name("alarms.damaged").exists()
    world.look()
    assert len(world.told) == 2, "at least once"


def test_the_node_has_alarms_of_its_own(node: Node, tmp_path: Path) -> None:
    world = World(node, tmp_path)
    usual = node.subnet.vitals()

    def look(free_bytes: int, refusing: str | None = None) -> list[str]:
        before = len(world.told)
        world.port.vitals = replace(usual, machine=Machine(0, free_bytes, 0), refusing=refusing)
        world.look()
        return [" ".join(line.split()[:3]) for line in world.told[before:]]

    assert look(2 * GIB) == []
    assert look(GIB - 1) == ["alarm: disk_low in"]
    assert look(GIB) == [], "hovering at the line is told once"
    world.start()
    assert look(GIB - 1) == [], "also over a restart"
    assert look(2 * GIB) == ["alarm over: disk_low"]
    assert look(2 * GIB, "no updates for now: Input/output error") == ["alarm: store_failing in"]
    assert look(2 * GIB) == ["alarm over: store_failing"]
    world.canary = CanaryState(1, "no answer")
    assert look(2 * GIB) == [], "one failure is no alarm"
    world.canary = CanaryState(2, "no answer")
    assert look(2 * GIB) == ["alarm: canary_failing in"]
    assert "rb.md#canary_failing" in world.told[-1]
    world.canary = CanaryState()
    assert look(2 * GIB) == ["alarm over: canary_failing"]


def test_foreign_text_cannot_forge_lines_of_the_log() -> None:
    alarm = Alarm("a-cai", "index", 0, 10**18, "own\nkind", "s" * 500, "x\n\x1b[31malarm: fake", False)
    line = alarm.line("rb.md")
    assert line.isprintable()
    assert len(line) < 1_300
    assert line.endswith("(rb.md)"), "a kind without a runbook links to all of them"


def test_each_kind_has_its_runbook() -> None:
    text = (DOCS / "runbooks.md").read_text()
    for kind in KINDS:
        assert f"\n## {kind}\n" in text, f"docs/runbooks.md has no section for {kind}"
    assert set(get_args(AlarmKind)) <= set(KINDS), "an alarm of an index has no runbook"


def test_each_kind_that_an_index_raises_is_known() -> None:
    for path in (DOCS.parent / "src" / "cannery" / "fleet").glob("*.py"):
        for kind in re.findall(r'alarms\.begin\(\s*ctx,\s*"(\w+)"', path.read_text()):
            assert kind in KINDS, f"{path.name} raises {kind}: give it a runbook and a place in KINDS"


STEPS = st.lists(
    st.sampled_from(["raise", "look", "look", "down", "restart", "unsaved", "saved"]), max_size=25
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_whatever_fails_each_alarm_is_told_at_least_once_and_in_order(steps: list[str]) -> None:
    hook = Hook()
    try:
        with Node() as node, tempfile.TemporaryDirectory() as folder:
            index = fleet_of(node, Honest)
            world = World(node, Path(folder), (hook.url,))
            count = 0
            for step in steps:
                if step == "raise":
                    index.alarm("quarantined", "x", str(count), False)
                    count += 1
                elif step == "look":
                    world.look(70)
                elif step == "down":
                    hook.statuses.append(503)
                elif step == "restart":
                    world.start()
                else:
                    world.file.is_full = step == "unsaved"
            hook.statuses.clear()
            world.look(70)
            wanted = [str(n) for n in range(count)]
            assert list(dict.fromkeys(hook.texts)) == wanted
            told = [line.split(": ")[2].split(" (")[0] for line in world.told]
            assert list(dict.fromkeys(told)) == wanted
    finally:
        hook.close()
