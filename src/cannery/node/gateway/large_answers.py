"""Large answers: read from a file, built off the event loop, kept on disk for some minutes.

A bounded number of them is in memory at a time. An answer above `GATEWAY_KEPT_ANSWER_SIZE_BYTES_MIN`
leaves from disk and can be read again, in parts, at /cannery/body/SHA256 (docs/http.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from cannery.limits import GATEWAY_KEPT_ANSWER_SIZE_BYTES_MIN
from cannery.node.answers import discard_spooled
from cannery.node.gateway.bodies import LargeWork
from cannery.node.gateway.http import CBOR_HEADERS, Answer, cbor_answer, parts_answer
from cannery.node.gateway.spool import Spool
from cannery.node.handover import Answered, Spooled


class LargeAnswers:
    """Builds answers that are too large to build beside everybody else's."""

    def __init__(self, spool: Spool, work: LargeWork) -> None:
        self._spool = spool
        self._work = work

    async def build(self, answer: Answered, address: str, encode: Callable[[bytes], list[bytes]]) -> Answer:
        """Encode the reply of a subnet's answer, on a thread, into a body; its spool file is deleted."""
        try:
            async with self._work.slot():
                return await asyncio.to_thread(self._build, answer, address, encode)
        finally:
            discard_spooled(answer.spooled)

    async def keep_if_large(self, body: bytes, address: str) -> Answer:
        """Make an answer of a body in memory."""
        if len(body) < GATEWAY_KEPT_ANSWER_SIZE_BYTES_MIN:
            return cbor_answer(body)
        return await asyncio.to_thread(self._keep, [body], address)

    def _build(self, answer: Answered, address: str, encode: Callable[[bytes], list[bytes]]) -> Answer:
        parts = encode(answer.reply if answer.spooled is None else read_spooled(answer.spooled))
        if sum(len(part) for part in parts) < GATEWAY_KEPT_ANSWER_SIZE_BYTES_MIN:
            return parts_answer(parts)
        return self._keep(parts, address)

    def _keep(self, parts: list[bytes], address: str) -> Answer:
        digest, file = self._spool.keep(parts, address)
        return Answer(200, (*CBOR_HEADERS, (b"cannery-body", digest.hex().encode())), file=file)


def read_spooled(spooled: Spooled) -> bytes:
    """Read the bytes that stand in a spool file."""
    with open(spooled.path, "rb") as file:
        file.seek(spooled.offset)
        return file.read(spooled.size_bytes)
