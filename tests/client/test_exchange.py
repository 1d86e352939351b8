"""How a conversation meets HTTP: what counts as lost, as sent, as too long; blocking and async alike."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from cannery.client import exchange
from cannery.client.errors import Refused
from cannery.client.exchange import Answer, Exchange, Lost, Pause, Result, Send, hold, hold_async

Handler = Callable[[httpx.Request], httpx.Response]


class Breaking(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that breaks off after its first part."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"first part"
        raise httpx.ReadError("reset")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"first part"
        raise httpx.ReadError("reset")


def ask(steps: list[Send | Pause]) -> Exchange[list[Result]]:
    results = []
    for step in steps:
        results.append((yield step))
    return results


def both(handler: Handler, *steps: Send | Pause) -> tuple[list[Result], list[str]]:
    """Hold the conversation in both ways; they must come to the same."""
    waits: list[str] = []
    with httpx.Client(base_url="http://node", transport=httpx.MockTransport(handler)) as client:
        blocking = hold(ask(list(steps)), client, waits.append)

    async def run() -> list[Result]:
        transport = httpx.MockTransport(handler)
        async with httpx.AsyncClient(base_url="http://node", transport=transport) as client:
            return await hold_async(ask(list(steps)), client, waits.append)

    other = asyncio.run(run())
    assert [plain(result) for result in blocking] == [plain(result) for result in other]
    return blocking, waits


def plain(result: Result) -> object:
    if isinstance(result, Lost):
        return (result.reason, result.sent, plain(result.part))
    return None if result is None else (result.status, result.body)


def test_an_answer_comes_whole() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(
            202, content=request.method.encode() + request.content + request.headers["x-y"].encode()
        )

    results, _ = both(handler, Send("PATCH", "/path", b" body ", {"X-Y": "z"}))
    assert plain(results[0]) == (202, b"PATCH body z")


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (httpx.ConnectError("refused"), False),
        (httpx.ConnectTimeout("slow"), False),
        (httpx.ReadTimeout("silent"), True),
        (httpx.RemoteProtocolError("closed"), True),
        (httpx.WriteError("broken"), True),
    ],
)
def test_a_lost_request_says_whether_it_may_have_arrived(error: httpx.TransportError, sent: bool) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        raise error

    results, _ = both(handler, Send("GET", "/"))
    assert plain(results[0]) == (str(error), sent, None)


def test_what_came_before_a_break_is_kept() -> None:
    results, _ = both(lambda request: httpx.Response(200, stream=Breaking()), Send("GET", "/"))
    assert plain(results[0]) == ("reset", True, (200, b"first part"))


def test_an_answer_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CLIENT_RESPONSE_SIZE_BYTES_MAX", 1000)
    with pytest.raises(Refused, match="longer than 1000"):
        both(lambda request: httpx.Response(200, content=b"x" * 1001), Send("GET", "/"))


def test_pauses_are_heard_and_over() -> None:
    results, waits = both(lambda request: httpx.Response(200), Pause(0.0, "why"), Send("GET", "/"))
    assert waits == ["why", "why"]
    assert results[0] is None
    assert isinstance(results[1], Answer)
