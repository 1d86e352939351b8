"""One client's HTTP/1.1 connection, with bounds on everything that a client may leave unfinished.

RFC 9112 as `httptools` (llhttp) reads it. One write for each answer; requests on a connection are answered in
order. Bounds: size and time of a request's head, time and rate of its body, what is sent around a body's
bytes, time that a client may leave an answer unread.
"""

from __future__ import annotations

import asyncio
from collections import deque
from http import HTTPStatus
from typing import TYPE_CHECKING, BinaryIO, cast
from urllib.parse import unquote

import httptools

from cannery.limits import (
    GATEWAY_BODY_FRAMING_FACTOR_MAX,
    GATEWAY_BODY_FRAMING_SIZE_BYTES_MAX,
    GATEWAY_FILE_CHUNK_SIZE_BYTES,
    GATEWAY_HEADER_COUNT_MAX,
    GATEWAY_HEADERS_SIZE_BYTES_MAX,
    GATEWAY_LINGER_MS_MAX,
    GATEWAY_SMALL_BODY_SIZE_BYTES,
    GATEWAY_WRITE_IDLE_MS_MAX,
)
from cannery.node.gateway.http import (
    Answer,
    Disconnected,
    FilePart,
    Refusal,
    Request,
    client_address,
    text_answer,
)
from cannery.node.gateway.http_body import StreamedBody, WholeBody
from cannery.node.gateway.push.server import EVENTS_PATH
from cannery.node.gateway.tally_page import OTHER_VERB

if TYPE_CHECKING:
    from cannery.node.gateway.http_server import HttpServer

_NO_CONTENT = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_CLOSE = b"connection: close\r\n"
# How an answer says that the connection stays, by the version of its request.
_KEEPING = {"1.1": b"", "1.0": b"connection: keep-alive\r\n"}
_HOP_HEADERS = (b"connection", b"upgrade", b"http2-settings")
# A body up to this size costs less to join to its head than to send beside it.
_JOINED_SIZE_BYTES_MAX = 16 * 1024
_MS_PER_S = 1000
_NS_PER_S = 1_000_000_000


class HttpConnection(asyncio.Protocol):
    """One client's connection. `asyncio.Protocol` is the interface that the event loop asks for."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._settings = server.settings
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport
        self.address = ""
        # The request that is being read.
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._header_count = 0
        self._head_size = self._head_raw = 0
        self._in_head = self._has_ended_one = False
        self._head_done = False
        self._is_declined = False
        self._raw = 0
        self._whole: list[bytes] | None = None
        self._streamed: StreamedBody | None = None
        self._overfull = False
        # Requests that are answered, in order; the first is under way.
        self._waiting: deque[tuple[Request, bytes | None]] = deque()
        self._task: asyncio.Task[None] | None = None
        self._upgrading: Request | None = None
        self._closing = False
        self._ended = False
        self._lingering = False
        self._reading = True
        self._since_s = self._loop.time()
        self._received = 0
        self._unread_since_s: float | None = None
        self._writable: asyncio.Future[None] | None = None

    # --- the event loop's side --------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A stream socket's transport both reads and writes; uvloop's is no subclass of asyncio's.
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.address = peer[0] if isinstance(peer, tuple) else ""
        reason = self._server.admit(self)
        if reason is not None:
            self._refuse(Refusal(HTTPStatus.SERVICE_UNAVAILABLE, reason, ((b"retry-after", b"5"),)))

    def connection_lost(self, _exc: Exception | None) -> None:
        self._closing = True
        self._server.forget(self)
        if self._streamed is not None:
            self._streamed.fail(Disconnected())
        self._wake_writer()
        self._waiting.clear()

    def data_received(self, data: bytes) -> None:
        if self._closing:
            return
        if not self._in_head and not self._head_done:
            self._since_s = self._loop.time()
        self._has_ended_one = False
        try:
            if not self._parse(data):
                return
        except httptools.HttpParserError as error:
            self._refuse(Refusal(HTTPStatus.BAD_REQUEST, f"this is not an HTTP/1.1 request: {error}"))
            return
        if self._in_head:
            # Behind another request's end it counts from the next read on: most of this one was not its.
            self._head_raw += 0 if self._has_ended_one else len(data)
        elif self._streamed is not None:
            self._check_framing(len(data))
        if self._overfull or (self._in_head and self._head_raw > GATEWAY_HEADERS_SIZE_BYTES_MAX):
            self._refuse(
                Refusal(
                    HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE,
                    f"path and headers may have {GATEWAY_HEADERS_SIZE_BYTES_MAX} bytes "
                    f"in {GATEWAY_HEADER_COUNT_MAX} headers",
                )
            )
        self._pause_if_full()

    def _parse(self, data: bytes) -> bool:
        """Give bytes to the parser; False where the connection is handed over.

        An upgrade to what is not spoken here (Java's client wishes for HTTP/2 with each request) is ignored,
        as RFC 9110, section 7.8, has it. The parser cannot do that: another one reads the request without.
        """
        rest = memoryview(data)
        while rest:
            try:
                self._parser.feed_data(rest)
                break
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
            if not self._is_declined:
                self._upgrade(bytes(rest))
                return False
            head = self._head_without_upgrade()
            self._parser = httptools.HttpRequestParser(self)
            self._parser.feed_data(head)
        return True

    def _head_without_upgrade(self) -> bytes:
        version = self._parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (self._parser.get_method(), self._url, version)]
        if b"close" in self._headers.get(b"connection", b"").lower():
            lines.append(b"connection: close")
        lines += [b"%s: %s" % header for header in self._headers.items() if header[0] not in _HOP_HEADERS]
        return b"\r\n".join((*lines, b"\r\n"))

    def _check_framing(self, size: int) -> None:
        """Bound what is sent around a body's bytes: sizes of chunks, their extensions, trailers."""
        self._raw += size
        if self._raw > GATEWAY_BODY_FRAMING_FACTOR_MAX * self._received + GATEWAY_BODY_FRAMING_SIZE_BYTES_MAX:
            self._refuse(
                Refusal(HTTPStatus.BAD_REQUEST, "the body has more framing than bytes: send larger chunks")
            )

    def eof_received(self) -> bool:
        # The client sends no more, and still reads the answer to what is complete.
        self._closing = True
        self._ended = True
        if self._streamed is not None and not self._streamed.ended:
            self._streamed.fail(Disconnected())
        return self._task is not None

    def pause_writing(self) -> None:
        self._unread_since_s = self._loop.time()

    def resume_writing(self) -> None:
        self._unread_since_s = None
        self._wake_writer()

    # --- the parser's side ------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._url = b""
        self._headers = {}
        self._header_count = 0
        self._head_size = self._head_raw = 0
        self._in_head = True
        self._head_done = False
        self._is_declined = False
        self._received = 0
        self._raw = 0

    def on_url(self, url: bytes) -> None:
        self._url += url
        if len(self._url) > GATEWAY_HEADERS_SIZE_BYTES_MAX:
            self._overfull = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head_done:
            return
        self._header_count += 1
        self._head_size += len(name) + len(value)
        if self._header_count > GATEWAY_HEADER_COUNT_MAX or self._head_size > GATEWAY_HEADERS_SIZE_BYTES_MAX:
            self._overfull = True
            return
        self._headers[name.lower()] = value

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_done = True
        headers = self._headers
        self._whole = self._streamed = None
        if b"upgrade" in headers and self._declines_upgrade():
            self._is_declined = True
            return
        length = headers.get(b"content-length")
        small = length is None or (len(length) < 8 and int(length) <= GATEWAY_SMALL_BODY_SIZE_BYTES)
        if small and b"transfer-encoding" not in headers and b"expect" not in headers:
            self._whole = []
            return
        self._streamed = StreamedBody(self._want_more)
        self._start(self._request(self._streamed))

    def on_body(self, data: bytes) -> None:
        self._received += len(data)
        if self._whole is not None:
            self._whole.append(data)
        elif self._streamed is not None and not self._lingering:
            self._streamed.feed(data)

    def on_message_complete(self) -> None:
        self._head_done = False
        self._has_ended_one = True
        if self._is_declined:
            return
        if self._whole is not None:
            whole, self._whole = self._whole, None
            data = whole[0] if len(whole) == 1 else b"".join(whole)
            request = self._request(WholeBody(data))
            if self._wants_events(request):
                self._upgrading = request
            else:
                self._start(request)
        elif self._streamed is not None:
            self._streamed.end()
            self._streamed = None

    # --- upgrades ---------------------------------------------------------------------------------

    def _declines_upgrade(self) -> bool:
        """Say whether the request whose head was read wishes for an upgrade that is not spoken here."""
        if not self._parser.should_upgrade() or self._parser.get_method() == b"CONNECT":
            return False
        return self._server.events is None or _path_of(self._url) != EVENTS_PATH

    def _wants_events(self, request: Request) -> bool:
        is_free = self._task is None and not self._waiting and not self._closing and not self._overfull
        is_upgrade = self._parser.should_upgrade() and request.method == "GET"
        return is_free and is_upgrade and self._server.events is not None and request.path == EVENTS_PATH

    def _upgrade(self, rest: bytes) -> None:
        """Hand the connection over to the events server; what cannot be handed over ends after its answer."""
        request, self._upgrading = self._upgrading, None
        events = self._server.events
        if request is None or events is None:
            self._close_after_last()
            return
        try:
            self._server.gateway.check_address(request.address)
            connection, answer = events.accept(request)
        except Refusal as refusal:
            self._refuse(refusal)
            return
        self._closing = True
        self._server.forget(self)
        self._transport.write(answer)
        connection.start(self._transport, rest)

    # --- answers ----------------------------------------------------------------------------------

    def _request(self, body: WholeBody | StreamedBody) -> Request:
        method = self._parser.get_method().decode("latin-1")
        address = client_address(self.address, self._headers, self._settings.trusted_proxies)
        query = self._url.partition(b"?")[2].decode("latin-1") if b"?" in self._url else ""
        return Request(method, _path_of(self._url), self._headers, address, body, query)

    def _start(self, request: Request) -> None:
        if self._closing or self._overfull:
            return
        keep = _KEEPING.get(self._parser.get_http_version()) if self._parser.should_keep_alive() else None
        if self._task is not None:
            self._waiting.append((request, keep))
            return
        self._task = self._loop.create_task(self._answer(request, keep))

    async def _answer(self, request: Request, keep: bytes | None) -> None:
        self._since_s = self._loop.time()
        sent = False
        try:
            answer = await self._server.gateway.answer(request)
            body = request.body
            unread = isinstance(body, StreamedBody) and not body.ended
            if answer is None or unread or self._server.closing:
                keep = None
            if answer is not None and not self._transport.is_closing():
                await self._send(answer, request.method, keep)
            if self._unread_since_s is not None:
                await self._drained()
            sent = True
        finally:
            self._task = None
            if not sent:
                self._transport.abort()
        self._next(keep, unread)

    def _next(self, keep: bytes | None, unread: bool) -> None:
        """Go on after an answer: with the next request, with reading, or not at all."""
        self._since_s = self._loop.time()
        if keep is None:
            self._finish(unread)
        elif self._waiting:
            next_request, next_keep = self._waiting.popleft()
            self._task = self._loop.create_task(self._answer(next_request, next_keep))
        elif self._closing:
            self._transport.close()
        else:
            self._want_more()

    async def _send(self, answer: Answer, method: str, keep: bytes | None) -> None:
        if answer.file is not None:
            await self._send_file(answer, answer.file, method, keep)
            return
        size = len(answer.body) + sum(map(len, answer.rest)) if answer.rest else len(answer.body)
        head = self._head(answer, size, keep)
        if method == "HEAD":
            self._transport.write(head)
        elif size < _JOINED_SIZE_BYTES_MAX:
            self._transport.write(b"".join((head, answer.body, *answer.rest)))
        else:
            self._transport.writelines((head, answer.body, *answer.rest))

    def _head(self, answer: Answer, size: int, keep: bytes | None) -> bytes:
        length = b"\r\n" if answer.status in _NO_CONTENT else b"content-length: %d\r\n\r\n" % size
        head = (self._server.head_of(answer), self._server.date, _CLOSE if keep is None else keep, length)
        return b"".join(head)

    async def _send_file(self, answer: Answer, part: FilePart, method: str, keep: bytes | None) -> None:
        try:
            file = open(part.path, "rb")  # noqa: SIM115  # closed below; opening alone may find it gone
        except FileNotFoundError:
            gone = text_answer(HTTPStatus.NOT_FOUND, "this body is no longer kept: make the request again")
            await self._send(gone, method, keep)
            return
        with file:
            self._transport.write(self._head(answer, part.size_bytes, keep))
            if method != "HEAD":
                file.seek(part.offset)
                await self._send_parts(file, part.size_bytes)

    async def _send_parts(self, file: BinaryIO, size: int) -> None:
        while size and not self._transport.is_closing():
            data = file.read(min(size, GATEWAY_FILE_CHUNK_SIZE_BYTES))
            assert data, "a spool file does not shrink while it is open"
            size -= len(data)
            self._transport.write(data)
            if self._unread_since_s is not None:
                await self._drained()

    async def _drained(self) -> None:
        """Wait until the client has read what was sent, or is gone."""
        while self._unread_since_s is not None and not self._transport.is_closing():
            self._writable = self._loop.create_future()
            await self._writable

    def _wake_writer(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # --- reading and closing ----------------------------------------------------------------------

    def _want_more(self) -> None:
        """Read on: a body's reader has room, or the connection waits for its next request."""
        if self._headers.get(b"expect", b"").lower() == b"100-continue" and self._streamed is not None:
            del self._headers[b"expect"]
            self._transport.write(_CONTINUE)
        if not self._reading and not self._transport.is_closing():
            self._reading = True
            self._since_s = self._loop.time()
            self._transport.resume_reading()

    def _pause_if_full(self) -> None:
        full = self._waiting or (self._streamed is not None and self._streamed.is_full)
        if full and self._reading and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what is no request, and close; with answers under way, close after them."""
        if self._task is not None:
            if self._streamed is not None:
                self._streamed.fail(refusal)
            self._close_after_last()
            return
        answer = refusal.answer()
        waited_ns = round((self._loop.time() - self._since_s) * _NS_PER_S)
        self._server.gateway.tally.note(OTHER_VERB, answer.status, max(0, waited_ns))
        self._transport.write(self._head(answer, len(answer.body), keep=None) + answer.body)
        self._finish(True)

    def _close_after_last(self) -> None:
        self._closing = True
        if self._task is None:
            self._transport.close()

    def _finish(self, linger: bool) -> None:
        """Close; where the client may still be sending, read on for a moment, so that it sees the answer."""
        self._closing = True
        if not linger or self._ended or self._transport.is_closing():
            self._transport.close()
            return
        self._lingering = True
        self._since_s = self._loop.time()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def close_when_idle(self) -> None:
        """Close now, or after the answers that are under way."""
        if self._task is None and self._whole is None:
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def check_time(self, now_s: float) -> None:
        """Let go of a client that keeps the connection without using it."""
        settings = self._settings
        waited_ms = (now_s - self._since_s) * _MS_PER_S
        if self._unread_since_s is not None:
            if (now_s - self._unread_since_s) * _MS_PER_S > GATEWAY_WRITE_IDLE_MS_MAX:
                self._transport.abort()
        elif self._lingering:
            if waited_ms > GATEWAY_LINGER_MS_MAX:
                self._transport.abort()
        elif self._in_head:
            if waited_ms > settings.headers_ms_max:
                self._refuse(_too_slow("the head of the request"))
        elif self._streamed is not None:
            if self._streamed.is_awaited and waited_ms > self._body_ms_max():
                self._streamed.fail(_too_slow("the body"))
        elif self._whole is not None:
            if waited_ms > self._body_ms_max():
                self._refuse(_too_slow("the body"))
        elif self._task is None and waited_ms > settings.keep_alive_ms_max:
            self._transport.close()

    def _body_ms_max(self) -> float:
        rate = self._settings.body_rate_bytes_per_s_min
        return self._settings.body_idle_ms_max + self._received * _MS_PER_S / rate


def _too_slow(what: str) -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_TIMEOUT, f"{what} came too slowly: send it again, large bodies in parts"
    )


def _path_of(url: bytes) -> str:
    """Take the path out of a request's target, without its query; whatever is no path names nothing here."""
    if not url.startswith(b"/"):
        try:
            url = httptools.parse_url(url).path or b"/"
        except httptools.HttpParserError:
            return url.decode("latin-1")
    path = url.partition(b"?")[0].decode("latin-1")
    return unquote(path) if "%" in path else path
