"""/cannery/body/SHA256: upload a large body in parts, go on where it broke off, read a large answer again.

Cannery's own routes (docs/http.md). Whoever knows the SHA-256 of a body may read it: it is as secret as
the body.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from pathlib import Path

from cannery.node.gateway.bodies import declared_size, parse_size
from cannery.node.gateway.http import BYTES_HEADERS, CORS_HEADERS, Answer, FilePart, Refusal, Request
from cannery.node.gateway.routes import Route
from cannery.node.gateway.spool import Spool

_RANGE = re.compile(rb"bytes=(\d{0,16})-(\d{0,16})")


class SpoolPages:
    """Answers the routes of spooled bodies."""

    def __init__(self, spool: Spool) -> None:
        self._spool = spool

    async def answer(self, request: Request, route: Route) -> Answer:
        match request.method:
            case "PATCH":
                return await self._append(request, route.sha256)
            case "HEAD":
                return self._describe(request, route.sha256)
            case _:
                return self._read(request, route.sha256)

    async def _append(self, request: Request, digest: bytes) -> Answer:
        offset = _required_size(request, b"upload-offset")
        total = _required_size(request, b"upload-length")
        present = self._spool.body(digest)
        if present is not None:
            return _offset_answer(HTTPStatus.NO_CONTENT, present.size_bytes)
        size = declared_size(request)
        if size is not None and offset + size > total:
            raise Refusal(
                HTTPStatus.BAD_REQUEST, f"Upload-Offset {offset} and {size} bytes pass Upload-Length {total}"
            )
        upload = self._spool.open_upload(digest, request.address, offset, total)
        try:
            while (part := await request.body.next_chunk()) is not None:
                upload.write(part)
            if upload.complete:
                await asyncio.to_thread(self._spool.complete_upload, upload)
        finally:
            upload.close()
        return _offset_answer(HTTPStatus.NO_CONTENT, upload.offset)

    def _describe(self, request: Request, digest: bytes) -> Answer:
        offset = self._spool.upload_offset(digest, request.address)
        if offset is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "nothing of this body is here: upload it from Upload-Offset: 0"
            )
        return _offset_answer(HTTPStatus.OK, offset)

    def _read(self, request: Request, digest: bytes) -> Answer:
        file = self._spool.use_body(digest)
        if file is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND, "this body is not here, or not any more: make the request again"
            )
        self._spool.spend(Path(file.path))
        headers = (*BYTES_HEADERS, (b"accept-ranges", b"bytes"), (b"etag", b'"%s"' % digest.hex().encode()))
        wanted = request.headers.get(b"range")
        part = None if wanted is None else _parse_range(wanted, file)
        if part is None:
            return Answer(HTTPStatus.OK, headers, file=file)
        last = part.offset + part.size_bytes - 1
        content_range = b"bytes %d-%d/%d" % (part.offset, last, file.size_bytes)
        return Answer(HTTPStatus.PARTIAL_CONTENT, (*headers, (b"content-range", content_range)), file=part)


def _parse_range(text: bytes, file: FilePart) -> FilePart | None:
    """Read one byte range; None for what may be ignored, `Refusal` (416) for what lies outside."""
    match = _RANGE.fullmatch(text.strip())
    if match is None or match[1] == match[2] == b"":
        return None
    size = file.size_bytes
    if match[1] == b"":
        first, last = max(size - int(match[2]), 0), size - 1
    else:
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
    if first > last:
        raise Refusal(
            HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            f"the body has {size} bytes: ask for a range within them",
            ((b"content-range", b"bytes */%d" % size),),
        )
    return FilePart(file.path, first, last - first + 1)


def _required_size(request: Request, name: bytes) -> int:
    text = request.headers.get(name)
    if text is None:
        raise Refusal(
            HTTPStatus.BAD_REQUEST, "send the headers Upload-Offset and Upload-Length, both in bytes"
        )
    return parse_size(text, name.decode())


def _offset_answer(status: HTTPStatus, offset: int) -> Answer:
    return Answer(
        status, (*CORS_HEADERS, (b"upload-offset", b"%d" % offset), (b"cache-control", b"no-store"))
    )
