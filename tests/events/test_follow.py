"""Following events with the Python client, over kills of the node: each event once, in order, gaps told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.client import AsyncAgent, Event, EventsEnded, Gap, Refused, Unreachable
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.events.test_events_socket import club_module
from tests.node.process_node import ProcessNode
from tests.waiting import NEVER_S

ANN = Ed25519Identity(bytes(31) + b"\x0a")
KILLS = 3
EVENTS_BETWEEN = 40
_texts = encoder((type_of(str), type_of(str)))
_principal = encoder((type_of(Principal),))


def _cut_power(node: ProcessNode) -> None:
    """Kill all processes of the node with SIGKILL."""
    node.agent.close()
    processes = [node.supervisor, *node.supervisor.children(recursive=True)]
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    node.process.communicate(timeout=NEVER_S)
    _, alive = psutil.wait_procs(processes, timeout=NEVER_S)
    assert not alive


async def _say(agent: AsyncAgent, club: Principal, start: int, count: int) -> None:
    calls = (agent.call(club, "say", _texts(("chat", str(n)))) for n in range(start, start + count))
    await asyncio.gather(*calls)


async def _next(events: AsyncIterator[Event | Gap], count: int) -> list[Event]:
    found: list[Event] = []
    async with asyncio.timeout(NEVER_S):
        while len(found) < count:
            item = await anext(events)
            assert isinstance(item, Event)
            found.append(item)
    return found


@pytest.mark.parametrize("begins_late", [False, True])
def test_kills_in_the_middle_lose_and_repeat_nothing(tmp_path: Path, begins_late: bool) -> None:
    asyncio.run(_follow_over_kills(tmp_path / "data", begins_late))


async def _follow_over_kills(data: Path, begins_late: bool) -> None:
    node = ProcessNode(data)
    try:
        club = node.install(club_module())
        port, operator = int(node.url.rpartition(":")[2]), node.agent.identity
        node.agent.call(club, "join", _principal((ANN.principal,)))
        node.agent.call(club, "join", _principal((operator.principal,)))
        waits: list[str] = []
        async with (
            AsyncAgent(node.url, operator, patience_s=60) as speaker,
            AsyncAgent(node.url, ANN, patience_s=60, on_wait=waits.append) as listener,
        ):
            if begins_late:
                await _say(speaker, club, -1, 1)
            events = listener.events(club, ["chat"], since=None if begins_late else 0)
            first = asyncio.ensure_future(_next(events, 1))
            if begins_late:
                # It hears of what comes after it began: say something until it does.
                while not first.done():
                    await _say(speaker, club, -1, 1)
            heard: list[Event] = []
            for round_number in range(KILLS):
                speaking = asyncio.ensure_future(
                    _say(speaker, club, round_number * EVENTS_BETWEEN, EVENTS_BETWEEN)
                )
                heard += await first if not heard else await _next(events, EVENTS_BETWEEN // 2)
                await asyncio.to_thread(_cut_power, node)
                node = await asyncio.to_thread(ProcessNode, data, port)
                await speaking
            total = KILLS * EVENTS_BETWEEN
            while len({e.payload for e in heard} - {b"-1"}) < total:
                heard += await _next(events, 1)
            assert [e.number for e in heard] == list(range(heard[0].number, heard[0].number + len(heard)))
            said = sorted(int(e.payload) for e in heard if e.payload != b"-1")
            assert said == list(range(total))
            assert waits
            await events.aclose()  # type: ignore[attr-defined]
    finally:
        node.stop()


def test_what_cannot_be_followed_raises_with_the_reason(tmp_path: Path) -> None:
    asyncio.run(_refusals(tmp_path / "data"))


async def _refusals(data: Path) -> None:
    node = ProcessNode(data)
    try:
        club = node.install(club_module())
        async with AsyncAgent(node.url, ANN, patience_s=5) as agent:
            with pytest.raises(EventsEnded, match="none of these topics") as denied:
                await anext(agent.events(club, ["chat"]))
            assert denied.value.reason == "denied"
            with pytest.raises(EventsEnded, match="the next event is 0"):
                await anext(agent.events(club, ["open"], since=7))
        async with AsyncAgent(node.url + "/nowhere", ANN) as agent:
            with pytest.raises(Refused, match="nothing is served"):
                await anext(agent.events(club, ["open"]))
    finally:
        node.stop()
    async with AsyncAgent(node.url, ANN, patience_s=0.3) as agent:
        with pytest.raises(Unreachable):
            await anext(agent.events(club, ["open"]))
