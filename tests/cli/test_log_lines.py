"""Which lines of a log are read: since a time, from a number, traps alone, and new ones as they come."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.cli.log_lines import INDEX_MAX, Wanted, follow_lines, read_lines, read_since
from cannery.cli.problem import Problem
from cannery.replica.management import types as mt
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

NS = 10**9
NOW = 1_800_000_000 * NS
LOUD = '''"""It logs and traps."""
from cannery import Canister, Context, update

class Loud(Canister):
    @update
    def say(self, ctx: Context, text: str) -> None:
        ctx.log(text)
        if text == "boom":
            ctx.trap("it went boom")
'''


class Log:
    """A log as the node filters it."""

    def __init__(self, lines: list[mt.LogRecord]) -> None:
        self.lines = lines
        self.asked: list[str] = []

    def fetch(self, wanted: mt.LogFilter) -> list[mt.LogRecord]:
        self.asked.append(wanted.tag)
        if wanted.tag == "by_idx":
            return [line for line in self.lines if wanted.by_idx.start <= line.idx < wanted.by_idx.end]
        start = wanted.by_timestamp_nanos.start
        return [line for line in self.lines if line.timestamp_nanos >= start]


def line(index: int, *, is_trap: bool = False) -> mt.LogRecord:
    return mt.LogRecord(index, NOW + index, b"text", is_trap)


def test_times_are_read() -> None:
    assert read_since("90s", NOW) == NOW - 90 * NS
    assert read_since("2h", NOW) == NOW - 7_200 * NS
    assert read_since("3d", NOW) == NOW - 259_200 * NS
    assert read_since("1970-01-01T00:01:00Z", NOW) == 60 * NS
    assert read_since("1970-01-01 00:01:00", NOW) == 60 * NS
    assert read_since("1970-01-01T01:01:00+01:00", NOW) == 60 * NS
    for wrong in ("", "yesterday", "10", "1 m", "-5m", "2026-13-01"):
        with pytest.raises(Problem, match="is no time"):
            read_since(wrong, NOW)


@given(st.lists(st.booleans(), max_size=20), st.integers(0, 25), st.integers(0, 25), st.booleans())
def test_exactly_the_wanted_lines_are_read(
    traps: list[bool], first: int, since: int, traps_only: bool
) -> None:
    log = Log([line(index, is_trap=is_trap) for index, is_trap in enumerate(traps)])
    found = read_lines(log.fetch, Wanted(NOW + since, first, traps_only))
    assert [each.idx for each in found] == [
        index
        for index, is_trap in enumerate(traps)
        if index >= first and index >= since and (is_trap or not traps_only)
    ]


def test_following_gives_each_line_once_also_when_older_ones_are_dropped() -> None:
    log = Log([line(0), line(1)])
    pauses: list[int] = []

    def pause() -> None:
        pauses.append(len(log.lines))
        log.lines = [line(index) for index in range(1 + len(pauses), 3 + len(pauses))]

    found = [each.idx for each in islice(follow_lines(log.fetch, Wanted(), pause), 6)]
    assert found == [0, 1, 2, 3, 4, 5]
    assert Wanted().filter().by_idx.end == INDEX_MAX


def test_traps_are_told_apart_on_the_command_line(
    cli: Cli, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    source = tmp_path / "loud.py"
    source.write_text(LOUD)
    assert cli("deploy", str(source), "--name", "test_loud", node=running_node).code == 0
    cli("canister", "call", "test_loud", "say", '("TRAP not really")', node=running_node)
    assert cli("canister", "call", "test_loud", "say", '("boom")', node=running_node).code == 1
    entries = json.loads(cli("canister", "logs", "test_loud", "--json", node=running_node).out)
    assert [(entry["index"], entry["is_trap"]) for entry in entries] == [(0, False), (1, False), (2, True)]
    assert "it went boom" in entries[2]["text"]
    failures = cli("canister", "logs", "test_loud", "--traps", node=running_node).out
    assert failures.splitlines()[0].split()[3] == "TRAP"
    assert len(failures.splitlines()) == 1
    recent = cli("canister", "logs", "test_loud", "--since", "1h", "--from", "1", node=running_node)
    assert len(recent.out.splitlines()) == 2
    assert cli("canister", "logs", "test_loud", "--since", "soon", node=running_node).code == 2
    future = cli("canister", "logs", "test_loud", "--since", "2999-01-01", node=running_node)
    assert (future.code, future.out) == (0, "")


def test_the_metrics_of_a_canister_are_shown(cli: Cli, running_node: NodeUnderTest, tmp_path: Path) -> None:
    source = tmp_path / "loud.py"
    source.write_text(LOUD)
    assert cli("deploy", str(source), "--name", "test_metrics", node=running_node).code == 0
    quiet = cli("canister", "metrics", "test_metrics", node=running_node)
    assert "no update was answered lately" in quiet.out
    cli("canister", "call", "test_metrics", "say", '("hello")', node=running_node)
    assert "1 updates" in cli("canister", "metrics", "test_metrics", node=running_node).out
    report = json.loads(cli("canister", "metrics", "test_metrics", "--json", node=running_node).out)
    assert report["latency"]["count"] == 1
    assert report["uptime_ns"] > 0
    refused = cli("canister", "metrics", "test_metrics", "--identity", "anonymous", node=running_node)
    assert refused.code == 1
    assert "status_visibility" in refused.err
