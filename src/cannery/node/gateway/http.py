"""HTTP in this room's shapes: a request, an answer, a refusal; and the headers that answers share.

Independent of the server that carries them. CORS is here because every answer of the API carries it
(Fetch standard, section "HTTP CORS protocol"): all origins may call, no credentials are involved.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Protocol

import msgspec

from cannery.errors import CanneryError
from cannery.limits import GATEWAY_ADDRESS_SIZE_CHARS_MAX, GATEWAY_ERROR_TEXT_SIZE_CHARS_MAX

Headers = tuple[tuple[bytes, bytes], ...]
_NS_PER_S = 1_000_000_000

CORS_HEADERS: Headers = (
    (b"access-control-allow-origin", b"*"),
    (
        b"access-control-expose-headers",
        b"cannery-body, upload-offset, retry-after, content-range, x-request-id",
    ),
)
PREFLIGHT_HEADERS: Headers = (
    (b"access-control-allow-origin", b"*"),
    (b"access-control-allow-methods", b"GET, HEAD, POST, PATCH, OPTIONS"),
    (
        b"access-control-allow-headers",
        b"accept, authorization, cache-control, cannery-body, content-type, cookie, dnt, if-modified-since, "
        b"keep-alive, range, upload-length, upload-offset, user-agent, x-requested-with",
    ),
    (b"access-control-max-age", b"86400"),
    (b"vary", b"origin, access-control-request-method, access-control-request-headers"),
)
CBOR_HEADERS: Headers = (
    (b"content-type", b"application/cbor"),
    (b"x-content-type-options", b"nosniff"),
    *CORS_HEADERS,
)
JSON_HEADERS: Headers = ((b"content-type", b"application/json"), *CORS_HEADERS)
TEXT_HEADERS: Headers = (
    (b"content-type", b"text/plain; charset=utf-8"),
    (b"x-content-type-options", b"nosniff"),
    *CORS_HEADERS,
)
BYTES_HEADERS: Headers = (
    (b"content-type", b"application/octet-stream"),
    (b"x-content-type-options", b"nosniff"),
    *CORS_HEADERS,
)


class Body(Protocol):
    """A request's body as it arrives."""

    async def next_chunk(self) -> bytes | None:
        """Give the next part, None at the end. Raises `Disconnected` where the client went away."""
        ...


class Request(msgspec.Struct, frozen=True):
    """One request; header names are in lower case, `address` is the client's IP address, `query` stands
    behind the path, as it was sent.
    """

    method: str
    path: str
    headers: Mapping[bytes, bytes]
    address: str
    body: Body
    query: str = ""


class FilePart(msgspec.Struct, frozen=True):
    """Bytes of a file, as the body of an answer."""

    path: str
    offset: int
    size_bytes: int


class Answer(msgspec.Struct, frozen=True):
    """What goes back. The server adds `content-length`; `file` stands in place of `body`, `rest` behind."""

    status: int
    headers: Headers = ()
    body: bytes = b""
    file: FilePart | None = None
    rest: tuple[bytes, ...] = ()


class Refusal(CanneryError):
    """A request that gets an HTTP error: a status, a text that says what to do, further headers."""

    def __init__(self, status: int, text: str, headers: Headers = ()) -> None:
        super().__init__(text)
        self.status = status
        self.text = text
        self.headers = headers

    def answer(self) -> Answer:
        return text_answer(self.status, self.text, self.headers)


def too_many(what: str, wait_ns: int, then: str) -> Refusal:
    """Refuse for a while (429): what there was too much of, how long to wait, what to do then."""
    seconds = -(-wait_ns // _NS_PER_S)
    retry_after = ((b"retry-after", b"%d" % seconds),)
    return Refusal(HTTPStatus.TOO_MANY_REQUESTS, f"{what}: wait {seconds} s, {then}", retry_after)


class Disconnected(CanneryError):
    """The client went away before its request was complete: nobody is left to answer."""


def client_address(peer: str, headers: Mapping[bytes, bytes], trusted_proxies: tuple[str, ...]) -> str:
    """Give the address that a request counts for: what a trusted proxy says of its client, else the peer."""
    if peer not in trusted_proxies:
        return peer
    last = headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip()
    return last.decode("latin-1")[:GATEWAY_ADDRESS_SIZE_CHARS_MAX] or peer


def text_answer(status: int, text: str, headers: Headers = ()) -> Answer:
    """Build a plain text answer that ends with a newline."""
    if len(text) > GATEWAY_ERROR_TEXT_SIZE_CHARS_MAX:
        text = text[:GATEWAY_ERROR_TEXT_SIZE_CHARS_MAX] + "..."
    body = text.encode("utf-8", "backslashreplace")
    return Answer(status, TEXT_HEADERS + headers, body + b"\n")


def cbor_answer(body: bytes, headers: Headers = ()) -> Answer:
    """Build a 200 answer around a CBOR body."""
    return Answer(HTTPStatus.OK, CBOR_HEADERS + headers if headers else CBOR_HEADERS, body)


def parts_answer(parts: Sequence[bytes]) -> Answer:
    """Build a 200 answer around a CBOR body that lies in parts, which are not copied together."""
    return Answer(HTTPStatus.OK, CBOR_HEADERS, parts[0], None, tuple(parts[1:]))


def json_answer(value: Mapping[str, object]) -> Answer:
    """Build a 200 answer around a JSON object."""
    return Answer(HTTPStatus.OK, JSON_HEADERS, json.dumps(value, indent=1, sort_keys=True).encode() + b"\n")


ACCEPTED = Answer(HTTPStatus.ACCEPTED, TEXT_HEADERS)
PREFLIGHT = Answer(HTTPStatus.NO_CONTENT, PREFLIGHT_HEADERS)
