"""The canary: a message the whole way to a certificate, counted over 30 days and restarts."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.node.gateway.app import Clocks
from cannery.node.subnet_port import SubnetPort
from cannery.node.watching.alarm_file import StateFile
from cannery.node.watching.canary import CANARY, CanaryRecord, Service
from cannery.node.watching.canary_probe import CanaryProbe
from cannery.node.watching.pages import WatchPages, render_canary
from cannery.node.watching.settings import WatchSettings
from cannery.node.watching.task import Watching, WatchParts
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.testing import Node
from tests.gateway.fleets_under_test import NodePort
from tests.node.exposition import read_exposition
from tests.node.webhook_server import Hook
from tests.node_under_test import NodeUnderTest

HOUR_NS = 3_600 * 10**9
MS = 10**6
STRANGER = Ed25519Identity(bytes(31) + b"\x09")


def probe(url: str, who: Identity, root_key: bytes) -> str:
    async def send() -> str:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await CanaryProbe(url, who, root_key, client).send(time.time_ns())

    return asyncio.run(send())


def test_a_probe_goes_the_whole_way(running_node: NodeUnderTest) -> None:
    assert probe(running_node.url, running_node.operator, running_node.root_key) == ""


def test_a_probe_says_why_it_failed(running_node: NodeUnderTest) -> None:
    url, operator, key = running_node.url, running_node.operator, running_node.root_key
    assert "no operator" in probe(url, STRANGER, key)
    from cannery.protocol.bls import BlsKey

    other = BlsKey.from_seed(bytes(32)).public_key_der
    assert "the answer does not hold" in probe(url, operator, other)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert "the gateway does not answer" in probe(f"http://127.0.0.1:{port}", operator, key)
    for statuses, text in (
        ([503], "HTTP status 503"),
        ([202], "no answer in time"),
        ([200], "does not hold"),
    ):
        hook = Hook(statuses=statuses)
        try:
            assert text in probe(hook.url.partition("/hook")[0], operator, key)
        finally:
            hook.close()


def test_hours_are_counted_for_thirty_days() -> None:
    record = CanaryRecord()
    for hour in range(1_000):
        record.note(hour * HOUR_NS, 3 * MS, "down" if hour in (100, 990) else "")
    assert len(record.hours) == 720
    service = record.service(999 * HOUR_NS, 99.9)
    assert (service.succeeded, service.failed) == (719, 1), "what is older than 30 days counts no more"
    assert service.availability == pytest.approx(719 / 720)
    assert service.budget_left == pytest.approx(1 - 1 / 0.72)
    assert (record.succeeded, record.failed, record.failures_in_a_row) == (998, 2, 0)
    late = record.service(2_000 * HOUR_NS, 99.9)
    assert (late.succeeded, late.availability, late.budget_left) == (0, 1.0, 1.0)


def test_the_budget_is_what_the_goal_allows() -> None:
    assert Service(999, 1, 0.999).budget_left == pytest.approx(0)
    assert Service(9_999, 1, 0.999).budget_left == pytest.approx(0.9)
    assert Service(998, 2, 0.999).budget_left == pytest.approx(-1)


@given(st.lists(st.tuples(st.integers(0, 2_000), st.booleans()), max_size=60))
def test_whatever_the_clock_does_each_probe_counts_and_the_record_is_bounded(
    probes: list[tuple[int, bool]],
) -> None:
    record = CanaryRecord()
    for hour, failed in probes:
        record.note(hour * HOUR_NS, MS, "x" if failed else "")
    assert record.succeeded + record.failed == len(probes)
    assert len(record.hours) <= 720
    hours = [each.hour for each in record.hours]
    assert hours == sorted(set(hours))
    read_exposition(render_canary(record, 99.9, 2_000 * HOUR_NS))


def watching(folder: Path, port: SubnetPort, url: str, lines: list[str], times: list[int]) -> Watching:
    def monotonic_ns() -> int:
        times[0] += 7 * MS
        return times[0]

    parts = WatchParts(
        port=port,
        operator=STRANGER,
        url=url,
        root_key_der=b"",
        alarms=folder / "watch" / "alarms",
        canary=folder / "watch" / "canary",
        report=lines.append,
        clocks=Clocks(lambda: 5 * HOUR_NS, monotonic_ns),
    )
    return Watching(parts, WatchSettings(canary_every_s=60))


def test_failures_raise_an_alarm_and_stay_known_over_a_restart(tmp_path: Path) -> None:
    lines: list[str] = []
    hook = Hook(statuses=[500, 500, 500])
    try:
        with Node() as node:

            async def run(count: int) -> None:
                watch = watching(tmp_path, NodePort(node), hook.url, lines, [1])
                for _ in range(count):
                    await watch.probe()
                    await watch.look()
                await watch.close()

            asyncio.run(run(1))
            assert [line for line in lines if "canary_failing" in line] == []
            asyncio.run(run(2))
            (line,) = [line for line in lines if "canary_failing" in line]
            assert "HTTP status 500" in line
            pages = WatchPages(
                tmp_path / "watch" / "alarms",
                tmp_path / "watch" / "canary",
                WatchSettings(canary_every_s=60),
                lambda: 5 * HOUR_NS,
            )
            families = read_exposition(pages.metrics())
            assert (
                families["cannery_canary_probes_failed_total"].samples[
                    "cannery_canary_probes_failed_total", ()
                ]
                == 3
            )
            assert (
                families["cannery_canary_availability_ratio"].samples["cannery_canary_availability_ratio", ()]
                == 0
            )
            kind = (("kind", "canary_failing"),)
            assert families["cannery_node_alarms"].samples["cannery_node_alarms", kind] == 1
            health = pages.health()
            assert health["canary"]["failures_in_a_row"] == 3  # type: ignore[index]
            assert health["alarms"]["open_on_node"] == ["canary_failing"]  # type: ignore[index]
    finally:
        hook.close()


def test_the_record_is_kept(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "watch" / "canary", CANARY, CanaryRecord)
    record = file.read(lambda text: pytest.fail(text))
    record.note(HOUR_NS, MS, "")
    file.save(record)
    assert file.peek() == record
    assert [path.name for path in (tmp_path / "watch").iterdir()] == ["canary"]
