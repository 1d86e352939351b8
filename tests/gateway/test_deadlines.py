"""Limits of waits under one timer: each strikes in its time, none strikes what is over."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cannery.node.gateway.deadlines import Deadlines


class Clock:
    """A loop's time, which stands still until it is told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    async def advance(self, seconds: float) -> None:
        self.now_s += seconds
        for _ in range(4):
            await asyncio.sleep(0)


def drive(test: Callable[[Clock, Deadlines], Awaitable[None]]) -> None:
    loop, clock = asyncio.SelectorEventLoop(), Clock()
    loop.time = lambda: clock.now_s  # type: ignore[method-assign]  # the loop asks itself for the time
    loop.run_until_complete(test(clock, Deadlines(10)))
    loop.close()


async def _limited(deadlines: Deadlines, future: asyncio.Future[str]) -> str:
    with deadlines.limit():
        return await future


def test_each_wait_ends_in_its_time_and_not_before() -> None:
    async def run(clock: Clock, deadlines: Deadlines) -> None:
        loop = asyncio.get_running_loop()
        first = loop.create_task(_limited(deadlines, loop.create_future()))
        await clock.advance(0)
        await clock.advance(4)
        second = loop.create_task(_limited(deadlines, loop.create_future()))
        await clock.advance(0)
        await clock.advance(5.9)
        assert not first.done(), "its 10 s are not over"
        await clock.advance(1)
        with pytest.raises(TimeoutError):
            await first
        await clock.advance(3)
        assert not second.done(), "it began 4 s later"
        await clock.advance(1.1)
        with pytest.raises(TimeoutError):
            await second
        assert not deadlines.waits

    drive(run)


def test_what_is_over_is_forgotten_and_never_struck() -> None:
    async def run(clock: Clock, deadlines: Deadlines) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()

        async def ask_and_go_on() -> str:
            found = await _limited(deadlines, answer)
            await never
            return found

        never: asyncio.Future[None] = loop.create_future()
        task = loop.create_task(ask_and_go_on())
        await clock.advance(1)
        answer.set_result("here")
        await clock.advance(1)
        assert not deadlines.waits
        await clock.advance(20)
        assert not task.done(), "what comes after the limited part has no limit"
        never.set_result(None)
        assert await task == "here"

    drive(run)


def test_an_answer_in_the_moment_of_the_limit_is_late() -> None:
    async def run(clock: Clock, deadlines: Deadlines) -> None:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[str] = loop.create_future()
        task = loop.create_task(_limited(deadlines, answer))
        await clock.advance(1)
        limit = next(iter(deadlines.waits))
        answer.set_result("here")
        limit.strike()
        with pytest.raises(TimeoutError):
            await task

    drive(run)


def test_who_is_cancelled_from_outside_is_not_told_of_a_limit() -> None:
    async def run(clock: Clock, deadlines: Deadlines) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(_limited(deadlines, loop.create_future()))
        both = loop.create_task(_limited(deadlines, loop.create_future()))
        await clock.advance(1)
        task.cancel()
        next(reversed(deadlines.waits)).strike()
        both.cancel()
        for ended in (task, both):
            with pytest.raises(asyncio.CancelledError):
                await ended
        assert not deadlines.waits

    drive(run)
