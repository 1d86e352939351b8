"""Watching in a real node: an alarm of a fleet reaches a webhook in time, and the pages tell of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.testing import Node
from tests.gateway.fleets_under_test import Honest
from tests.node.exposition import read_exposition
from tests.node.process_node import ProcessNode
from tests.node.webhook_server import Hook
from tests.waiting import wait_until

ALARM_S_MAX = 10.0


@pytest.fixture
def hook() -> Iterator[Hook]:
    running = Hook()
    yield running
    running.close()


def wait_until_told(url: str) -> None:
    """Ask until the node has noted that the webhook took the alarm; each turn is a request."""
    noted = 'cannery_alarms_told_total{receiver="webhook-1"} 1'
    wait_until(lambda: noted in httpx.get(f"{url}/metrics").text, "the node never noted it")


def test_an_alarm_reaches_the_webhook_within_ten_seconds_of_its_round(tmp_path: Path, hook: Hook) -> None:
    with Node() as builder:
        module = builder.build(Honest)
    data = tmp_path / "data"
    data.mkdir()
    (data / "cannery.toml").write_text(
        f"[node]\ngateway_count = 2\n[watch]\nwebhook = ['{hook.url}']\ncanary_every_s = 1\n"
    )
    node = ProcessNode(data)
    try:
        index = node.install(module)
        node.agent.call(index, "found", encoder(())(()))
        hints = tuple(map(type_of, (str, str, str, bool)))
        node.agent.call(index, "alarm", encoder(hints)(("battery_low", "i", "3 cycles left", False)))
        assert hook.got.wait(ALARM_S_MAX)
        assert hook.texts == ["3 cycles left"]
        wait_until_told(node.url)
        # Either gateway process shows what the first one watches.
        for _ in range(6):
            families = read_exposition(httpx.get(f"{node.url}/metrics").text)
            assert (
                families["cannery_alarms_told_total"].samples[
                    "cannery_alarms_told_total", (("receiver", "log"),)
                ]
                >= 1
            )
            assert "cannery_canary_seconds" in families
        health = httpx.get(f"{node.url}/health?verbose").json()
        assert health["alarms"]["receivers"]["webhook-1"]["told"] == 1
    finally:
        code, errors = node.stop()
    assert code == 0
    assert f"alarm: battery_low in {index}, i: 3 cycles left (docs/runbooks.md#battery_low)" in errors
