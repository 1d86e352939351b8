"""Queries: ask the subnet, sign its answer with the node's key.

IC interface specification, section "Request: Query call". Replies and rejects are signed alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus

from cannery.limits import INLINE_SIZE_BYTES_MAX
from cannery.node.gateway.http import Answer, Refusal, cbor_answer
from cannery.node.gateway.icp_tool import answer_for_icp_tool
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.handover import Answered, QueryMessage, Spooled
from cannery.node.subnet_port import SubnetPort
from cannery.protocol.envelope import Envelope, QueryContent
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import (
    QueryAnswer,
    QueryRejected,
    QueryReplied,
    encode_query_response,
    sign_query_answer,
)


class Queries:
    """Answers the query endpoints."""

    def __init__(
        self,
        port: SubnetPort,
        node_key: Ed25519Identity,
        subnet_id: Principal,
        large: LargeAnswers,
        settings: GatewaySettings,
        now_ns: Callable[[], int],
    ) -> None:
        self._port = port
        self._node_key = node_key
        self._subnet_id = subnet_id
        self._large = large
        self._wait_s = settings.query_wait_ms_max / 1000
        self._now_ns = now_ns

    async def query(self, envelope: Envelope, spooled: Spooled | None, address: str) -> Answer:
        """Answer an authenticated query; with `spooled`, its argument stands in that file."""
        content = envelope.content
        assert isinstance(content, QueryContent), "the path decides the kind of content"
        known = answer_for_icp_tool(content, self._subnet_id)
        answer = Answered(known) if known is not None else await self._ask(envelope, content, spooled)
        if answer.spooled is None and len(answer.reply) <= INLINE_SIZE_BYTES_MAX:
            return cbor_answer(self._signed(answer, answer.reply, envelope))
        return await self._large.build(answer, address, lambda reply: [self._signed(answer, reply, envelope)])

    async def _ask(self, envelope: Envelope, content: QueryContent, spooled: Spooled | None) -> Answered:
        message = QueryMessage(
            envelope.request_id,
            content.sender.raw,
            content.canister_id.raw,
            content.method_name,
            content.arg,
            spooled,
        )
        try:
            async with asyncio.timeout(self._wait_s):
                return (await self._port.ask(message)).answer
        except TimeoutError:
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"the query was not answered in {self._wait_s:.0f} s: the node is busy, ask again later",
                ((b"retry-after", b"5"),),
            ) from None

    def _signed(self, answer: Answered, reply: bytes, envelope: Envelope) -> bytes:
        result: QueryAnswer
        if answer.reject_code:
            result = QueryRejected(answer.reject_code, answer.reject_message, answer.error_code)
        else:
            result = QueryReplied(reply)
        signature = sign_query_answer(self._node_key, result, envelope.request_id, self._now_ns())
        return encode_query_response(result, (signature,), tagged=envelope.tagged)
