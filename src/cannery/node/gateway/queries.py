"""Queries: ask the subnet, and give its answer with the node's signature.

IC interface specification, section "Request: Query call". Replies and rejects are signed alike.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from cannery.limits import INLINE_SIZE_BYTES_MAX
from cannery.node.answers import query_answer_of
from cannery.node.gateway.composite import CompositeQueries
from cannery.node.gateway.deadlines import Deadlines
from cannery.node.gateway.http import Answer, Refusal, parts_answer
from cannery.node.gateway.icp_tool import answer_for_icp_tool
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.request_tally import RequestTally
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.handover import Answered, QueryDone, QueryMessage, Spooled
from cannery.protocol.envelope import Envelope, QueryContent
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import NodeSignature, query_response_parts, sign_query_answer


class Queries:
    """Answers the query endpoints."""

    def __init__(
        self,
        composite: CompositeQueries,
        node_key: Ed25519Identity,
        subnet_id: Principal,
        large: LargeAnswers,
        settings: GatewaySettings,
        now_ns: Callable[[], int],
        tally: RequestTally,
    ) -> None:
        self._composite = composite
        self._node_key = node_key
        self._subnet_id = subnet_id
        self._large = large
        self._wait_s = settings.query_wait_ms_max / 1000
        self._deadlines = Deadlines(self._wait_s)
        self._now_ns = now_ns
        self._tally = tally

    async def query(self, envelope: Envelope, spooled: Spooled | None, address: str, number: int) -> Answer:
        """Answer an authenticated query for a subnet; with `spooled`, its argument stands in that file."""
        content = envelope.content
        assert isinstance(content, QueryContent), "the path decides the kind of content"
        known = answer_for_icp_tool(content, self._subnet_id)
        if known is None:
            done = await self._ask(envelope, content, spooled, number)
        else:
            done = QueryDone(0, self._now_ns(), Answered(known))
        answer = done.answer
        if answer.reject_code:
            self._tally.note_reject("query")
        if answer.spooled is None and len(answer.reply) <= INLINE_SIZE_BYTES_MAX:
            return parts_answer(self._signed(done, answer.reply, envelope))
        return await self._large.build(answer, address, lambda reply: self._signed(done, reply, envelope))

    async def _ask(
        self, envelope: Envelope, content: QueryContent, spooled: Spooled | None, number: int
    ) -> QueryDone:
        message = QueryMessage(
            envelope.request_id,
            content.sender.raw,
            content.canister_id.raw,
            content.method_name,
            content.arg,
            spooled,
        )
        try:
            with self._deadlines.limit():
                return await self._composite.ask(message, number)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"the query was not answered in {self._wait_s:.0f} s: the node is busy, ask again later",
                ((b"retry-after", b"5"),),
            ) from None

    def _signed(self, done: QueryDone, reply: bytes, envelope: Envelope) -> list[bytes]:
        """Give the response's body, with the signature that came with the answer, or else with our own."""
        answer, key = query_answer_of(done.answer, reply), self._node_key
        made = done.signature
        if made is not None:
            signature = NodeSignature(made.timestamp_ns, made.signature, key.principal)
        else:
            signature = sign_query_answer(key, answer, envelope.request_id, self._now_ns())
        return query_response_parts(answer, signature, tagged=envelope.tagged)
