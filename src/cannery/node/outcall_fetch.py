"""Performs the HTTP requests of canisters: one connection each, bounded in time and bytes, within the rules.

Names are looked up here, the addresses checked, and the connection made to the checked address itself: there
is no second look-up that could give another one. Redirects are given to the canister as they are and never
followed; bodies are not unpacked; no proxy, cookie or credential of this machine is used. RFC 9110. What was
asked, and whether the host may be called, `replica.management.outcalls` has decided; the host is asked for
again here, since the rules may have changed.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

import httpcore

from cannery.errors import CanneryError, RejectCode
from cannery.limits import (
    OUTCALL_ADDRESS_COUNT_MAX,
    OUTCALL_CONNECT_MS_MAX,
    OUTCALL_HEADER_COUNT_MAX,
    OUTCALL_HEADERS_SIZE_BYTES_MAX,
    OUTCALL_RUNNING_COUNT_MAX,
    OUTCALL_WAIT_MS_MAX,
)
from cannery.node.outcall_rules import OutcallRules
from cannery.node.outcall_tls import certificate_fault, make_context
from cannery.node.outcalls import Outcall
from cannery.replica.block import OutcallAnswer
from cannery.replica.outcall_url import Url, is_allowed

_AGENT: Final = (b"user-agent", b"cannery")

Resolve = Callable[[str, int], Awaitable[list[str]]]
SocketOptions = Iterable[
    tuple[int, int, int] | tuple[int, int, bytes | bytearray] | tuple[int, int, None, int]
]


class OutcallRefused(CanneryError):
    """The request may not be made, or its response not be taken; the text says why."""


async def resolve_name(host: str, port: int) -> list[str]:
    """Look a name up as the machine does; give its addresses."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Connects to what the rules let it connect to."""

    def __init__(
        self, rules: OutcallRules, resolve: Resolve, inner: httpcore.AsyncNetworkBackend | None = None
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._inner = inner if inner is not None else httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: SocketOptions | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address of a name that may be connected to and answers."""
        name = host.strip("[]")
        addresses = await self._resolve(name, port)
        allowed = [address for address in addresses if self._rules.may_connect(address)]
        if not allowed:
            shown = ", ".join(addresses[:OUTCALL_ADDRESS_COUNT_MAX]) or "nothing"
            raise OutcallRefused(
                f"{name} leads to {shown}, which is not a public address: the node's operator adds it to "
                "private_networks under [outcalls] in cannery.toml, if canisters may call it"
            )
        failure: Exception | None = None
        for address in allowed[:OUTCALL_ADDRESS_COUNT_MAX]:
            try:
                stream = await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
                continue
            await self._check_peer(stream, name)
            return stream
        raise httpcore.ConnectError(f"{name} does not answer at {', '.join(allowed)}: {failure}")

    async def sleep(self, seconds: float) -> None:
        """Wait, as the pool asks."""
        await asyncio.sleep(seconds)

    async def _check_peer(self, stream: httpcore.AsyncNetworkStream, name: str) -> None:
        """Look at the other end of the connection itself, whatever led there."""
        peer = stream.get_extra_info("server_addr")
        if not peer or not self._rules.may_connect(str(peer[0])):
            await stream.aclose()
            raise OutcallRefused(f"{name} led to an address that may not be called")


class Fetcher:
    """Performs outcalls under rules. Make it anywhere; `fetch` runs on one loop."""

    def __init__(
        self,
        rules: OutcallRules,
        *,
        resolve: Resolve = resolve_name,
        wait_ms_max: int = OUTCALL_WAIT_MS_MAX,
    ) -> None:
        self._rules = rules
        self._resolve = resolve
        self._wait_s = wait_ms_max / 1000
        self._pool: httpcore.AsyncConnectionPool | None = None

    async def fetch(self, outcall: Outcall) -> OutcallAnswer:
        """Perform a request; whatever goes wrong is an answer too."""
        try:
            async with asyncio.timeout(self._wait_s):
                return await self._perform(outcall)
        except OutcallRefused as error:
            return outcall.refused(RejectCode.SYS_FATAL, str(error))
        except TimeoutError:
            text = f"{outcall.record.host} gave no whole answer within {self._wait_s:g} s"
            return outcall.refused(RejectCode.SYS_TRANSIENT, text)
        except Exception as error:  # noqa: BLE001  (around a request: what a stranger's server sets off ends it)
            fault = certificate_fault(error)
            if fault is not None:
                text = f"{outcall.record.host} shows a TLS certificate that cannot be trusted: {fault}"
                return outcall.refused(RejectCode.SYS_FATAL, text)
            text = f"{outcall.record.host} gave no answer: {type(error).__name__} {str(error)[:300]}".rstrip()
            return outcall.refused(RejectCode.SYS_TRANSIENT, text)

    async def _perform(self, outcall: Outcall) -> OutcallAnswer:
        asked = outcall.record
        url = Url(asked.scheme, asked.host, asked.port, asked.target)
        if not is_allowed(self._rules.hosts, url):
            raise OutcallRefused(f"this node does not call {url.origin} any more")
        place = httpcore.URL(
            scheme=asked.scheme.encode(),
            host=asked.host.strip("[]").encode(),
            port=asked.port,
            target=asked.target.encode(),
        )
        pool = self._open_pool()
        async with pool.stream(
            asked.method,
            place,
            headers=_headers_of(outcall, url),
            content=asked.body or None,
            extensions={"timeout": {"connect": OUTCALL_CONNECT_MS_MAX / 1000}},
        ) as response:
            return await _read(outcall, response)

    def _open_pool(self) -> httpcore.AsyncConnectionPool:
        if self._pool is None:
            self._pool = httpcore.AsyncConnectionPool(
                ssl_context=make_context(self._rules.authorities),
                max_connections=OUTCALL_RUNNING_COUNT_MAX,
                max_keepalive_connections=0,
                network_backend=CheckedBackend(self._rules, self._resolve),
            )
        return self._pool


def _headers_of(outcall: Outcall, url: Url) -> list[tuple[bytes, bytes]]:
    asked = outcall.record
    headers = [(b"host", url.origin.removeprefix("http://").encode())]
    headers += [(name.encode(), value.encode()) for name, value in asked.headers]
    if not any(name.lower() == _AGENT[0] for name, _ in headers):
        headers.append(_AGENT)
    if asked.method == "POST":
        headers.append((b"content-length", str(len(asked.body)).encode()))
    headers.append((b"connection", b"close"))
    return headers


async def _read(outcall: Outcall, response: httpcore.Response) -> OutcallAnswer:
    """Read a response within its bounds; raises `OutcallRefused`."""
    limit = outcall.record.response_size_bytes_max
    headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers)
    size_bytes = sum(len(name) + len(value) for name, value in headers)
    if len(headers) > OUTCALL_HEADER_COUNT_MAX or size_bytes > OUTCALL_HEADERS_SIZE_BYTES_MAX:
        raise OutcallRefused(
            f"the response has {len(headers)} headers of {size_bytes} bytes: at most "
            f"{OUTCALL_HEADER_COUNT_MAX} of {OUTCALL_HEADERS_SIZE_BYTES_MAX} bytes are taken"
        )
    parts: list[bytes] = []
    if size_bytes > limit:
        raise _too_large(limit)
    async for part in response.aiter_stream():
        size_bytes += len(part)
        if size_bytes > limit:
            raise _too_large(limit)
        parts.append(part)
    return OutcallAnswer(outcall.canister_id, outcall.callback, response.status, headers, b"".join(parts))


def _too_large(limit: int) -> OutcallRefused:
    return OutcallRefused(f"the response is larger than max_response_bytes: {limit} bytes, headers included")
