"""Update calls: hand over, wait, answer with a certificate.

IC interface specification, sections "Request: Call" and "Request: Asynchronous Call". Nothing is
acknowledged, by 202 or by a certificate, before the subnet has said that it is durable.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TypeVar

from cannery.limits import INLINE_SIZE_BYTES_MAX
from cannery.node.answers import discard_spooled
from cannery.node.gateway.certifier import Certifier
from cannery.node.gateway.http import ACCEPTED, Answer, Refusal, cbor_answer
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.refused_calls import Door, RefusedCalls
from cannery.node.gateway.request_tally import RequestTally
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.handover import IngressMessage, Refused
from cannery.node.subnet_port import SettledAnswer, Submission, SubnetPort
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX, CborSource, encode
from cannery.protocol.hash_tree import encode_blob

_Result = TypeVar("_Result")

# A map of two fields; the certificate's bytes end it.
_REPLIED_HEAD = b"\xa2\x66status\x67replied\x6bcertificate"


class Calls:
    """Answers the call endpoints, with the certificates of one subnet."""

    def __init__(
        self,
        certifier: Certifier,
        large: LargeAnswers,
        settings: GatewaySettings,
        refused: RefusedCalls,
        tally: RequestTally,
    ) -> None:
        self._refused = refused
        self._certifier = certifier
        self._large = large
        self._answer_wait_s = settings.answer_wait_ms_max / 1000
        self._accept_wait_s = settings.accept_wait_ms_max / 1000
        self._tally = tally

    async def call_async(self, ingress: IngressMessage, tagged: bool, door: Door, port: SubnetPort) -> Answer:
        """Answer a v2 call: 202 once it is durable, or 200 with the reason why it was not let in."""
        submission = port.submit(ingress)
        self._refused.follow(door, submission.settled)
        submission.settled.add_done_callback(_discard_reply)
        accepted = await self._accepted(submission)
        return ACCEPTED if accepted is None else self._rejection(accepted, {}, tagged)

    async def call_sync(self, ingress: IngressMessage, tagged: bool, door: Door, port: SubnetPort) -> Answer:
        """Answer a v3 or v4 call: with its certificate, or with 202 where that takes too long."""
        submission = port.submit(ingress)
        settled = await _result_within(submission.settled, self._answer_wait_s)
        if settled is None:
            self._tally.note_timeout("call")
            submission.settled.add_done_callback(_discard_reply)
            refused = await self._accepted(submission)
            if refused is None:
                self._refused.follow(door, submission.settled)
                return ACCEPTED
            settled = refused
        self._refused.note(door, settled)
        if isinstance(settled, Refused):
            return self._rejection(settled, {"status": "non_replicated_rejection"}, tagged)
        if settled.answer.reject_code:
            self._tally.note_reject("call")
        return await self._certified(settled, tagged, door.address)

    async def _accepted(self, submission: Submission) -> Refused | None:
        """Wait until a call is durable; give the refusal if there is one."""
        accepted = await _result_within(submission.accepted, self._accept_wait_s)
        if accepted is None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the subnet has not taken the call yet, and may still: send the very same request again, "
                "it will not run twice",
                ((b"retry-after", b"5"),),
            )
        return accepted if isinstance(accepted, Refused) else None

    async def _certified(self, settled: SettledAnswer, tagged: bool, address: str) -> Answer:
        answer = settled.answer
        if answer.spooled is None and len(answer.reply) <= INLINE_SIZE_BYTES_MAX:
            certificate = self._certifier.certify(settled)
            return cbor_answer(b"".join(_certified_parts(certificate, tagged)))
        return await self._large.build(
            answer,
            address,
            lambda reply: _certified_parts(self._certifier.certify_large(settled, reply), tagged),
        )

    def _rejection(self, refused: Refused, fields: dict[str, CborSource], tagged: bool) -> Answer:
        self._tally.note_reject("call")
        fields["reject_code"] = refused.reject_code
        fields["reject_message"] = refused.reject_message
        if refused.error_code is not None:
            fields["error_code"] = refused.error_code
        return cbor_answer(encode(fields, self_describe=tagged))


def _certified_parts(certificate: bytes, tagged: bool) -> list[bytes]:
    head = SELF_DESCRIBE_PREFIX + _REPLIED_HEAD if tagged else _REPLIED_HEAD
    return [head, encode_blob(certificate)]


def _discard_reply(settled: asyncio.Future[SettledAnswer | Refused]) -> None:
    """Delete the file of a reply that its client asks for by its request status, if at all."""
    if not settled.cancelled() and settled.exception() is None:
        end = settled.result()
        if isinstance(end, SettledAnswer):
            discard_spooled(end.answer.spooled)


async def _result_within(future: asyncio.Future[_Result], seconds: float) -> _Result | None:
    """Wait for a future that others own: None after the time is up, and the future goes on."""
    if not future.done():
        if seconds <= 0:
            return None
        loop = asyncio.get_running_loop()
        waiter = loop.create_future()
        wake = _Wake(waiter)
        timer = loop.call_later(seconds, wake)
        future.add_done_callback(wake)
        try:
            await waiter
        finally:
            timer.cancel()
            future.remove_done_callback(wake)
        if not future.done():
            return None
    return future.result()


class _Wake:
    """Ends a wait, once."""

    __slots__ = ("_waiter",)

    def __init__(self, waiter: asyncio.Future[None]) -> None:
        self._waiter = waiter

    def __call__(self, _future: object = None) -> None:
        if not self._waiter.done():
            self._waiter.set_result(None)
