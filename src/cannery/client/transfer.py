"""Requests on their way: large bodies go ahead in parts, broken answers are read on from where they broke.

docs/http.md, section "Large bodies and answers". A large body is named by its SHA-256: HEAD says how much
of it is there, PATCH adds a part, then the request is sent with the name in its place. A large answer
carries such a name too, and the rest of it is asked for by Range. What was transferred once is not
transferred again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import TypeAlias

from cannery.client.errors import Refused, Unreachable
from cannery.client.exchange import Answer, Exchange, Lost, Result, Send
from cannery.client.retry import Backoff, describe, is_transient
from cannery.limits import (
    CLIENT_RESPONSE_SIZE_BYTES_MAX,
    CLIENT_UPLOAD_PART_SIZE_BYTES,
    CLIENT_UPLOAD_SIZE_BYTES_MIN,
)

ProgressReport: TypeAlias = Callable[[int, int], None]
"""Called with (bytes there, bytes in all) as a large body goes over."""

_NAME_HEADER = "cannery-body"
_UPLOADS_COUNT_MAX = 3
_SIZE_DIGITS_MAX = 18


def ask(request: Send, backoff: Backoff, report: ProgressReport | None = None) -> Exchange[Answer]:
    """Send a request that changes nothing until it is answered; raise `Unreachable` or `Refused`."""
    while True:
        result = yield from deliver(request, backoff, report)
        if isinstance(result, Answer) and not is_transient(result):
            if result.status >= 400:
                raise Refused(result.status, result.text or f"HTTP status {result.status}")
            return result
        pause = backoff.pause(result, describe(result))
        if pause is None:
            if isinstance(result, Answer):
                raise Refused(result.status, result.text or describe(result))
            raise Unreachable(describe(result))
        yield pause


def deliver(request: Send, backoff: Backoff, report: ProgressReport | None) -> Exchange[Result]:
    """Send a request once, whatever the size of its body and of its answer."""
    if len(request.body) < CLIENT_UPLOAD_SIZE_BYTES_MIN:
        result = yield request
        return (yield from _read_on(result, backoff))
    for _attempt in range(_UPLOADS_COUNT_MAX):
        named = yield from _upload(request, backoff, report)
        result = yield named
        # The node forgets uploaded bodies when it restarts.
        if not (isinstance(result, Answer) and result.status == 404):
            break
    return (yield from _read_on(result, backoff))


def _upload(request: Send, backoff: Backoff, report: ProgressReport | None) -> Exchange[Send]:
    """Bring a request's body to the node; return the request that names it."""
    digest = sha256(request.body).hexdigest()
    path = f"/cannery/body/{digest}"
    size = len(request.body)
    offset = yield from _offset_there(path, backoff)
    while offset < size:
        if report is not None:
            report(offset, size)
        part = request.body[offset : offset + CLIENT_UPLOAD_PART_SIZE_BYTES]
        headers = {"upload-offset": str(offset), "upload-length": str(size)}
        result = yield Send("PATCH", path, part, headers)
        if isinstance(result, Answer) and result.status < 300:
            offset += len(part)
            continue
        if isinstance(result, Answer) and not is_transient(result) and result.status not in (404, 409):
            raise Refused(result.status, result.text or f"HTTP status {result.status}")
        pause = backoff.pause(result, describe(result))
        if pause is None:
            raise Unreachable(f"{describe(result)}; {offset} of {size} bytes had arrived")
        yield pause
        offset = yield from _offset_there(path, backoff)
    if report is not None:
        report(size, size)
    return replace(request, body=b"", headers={**request.headers, _NAME_HEADER: digest})


def _offset_there(path: str, backoff: Backoff) -> Exchange[int]:
    """Ask how many bytes of a body the node holds."""
    while True:
        result = yield Send("HEAD", path)
        if isinstance(result, Answer) and not is_transient(result):
            if result.status == 404:
                return 0
            text = result.headers.get("upload-offset", "")
            if result.status >= 400 or not text.isdecimal() or len(text) > _SIZE_DIGITS_MAX:
                raise Refused(result.status, f"the node takes no large bodies (HTTP {result.status})")
            return int(text)
        pause = backoff.pause(result, describe(result))
        if pause is None:
            raise Unreachable(describe(result))
        yield pause


def _read_on(result: Result, backoff: Backoff) -> Exchange[Result]:
    """Complete an answer that broke off, where the node keeps it by name."""
    if not isinstance(result, Lost) or result.part is None:
        return result
    digest = result.part.headers.get(_NAME_HEADER, "")
    if len(digest) != 64 or result.part.status != 200:
        return result
    broken, have = result, bytearray(result.part.body)
    while True:
        rest = yield Send("GET", f"/cannery/body/{digest}", headers={"range": f"bytes={len(have)}-"})
        more = rest.part if isinstance(rest, Lost) else rest
        if isinstance(more, Answer) and more.status == 206:
            have += more.body
        elif not is_transient(rest):
            return broken
        if sha256(have).hexdigest() == digest:
            return Answer(200, result.part.headers, bytes(have))
        if isinstance(rest, Answer) and rest.status == 206:
            return broken
        pause = backoff.pause(rest, describe(rest))
        if pause is None or len(have) > CLIENT_RESPONSE_SIZE_BYTES_MAX:
            return broken
        yield pause
