"""Pages about the node: /api/v2/status, /cannery.json, /health, /metrics.

The status follows the IC interface specification, section "Status endpoint"; the rest is Cannery's own
(docs/http.md).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import sha256
from http import HTTPStatus

from cannery.limits import GATEWAY_NAME_COUNT_MAX
from cannery.node.gateway.http import CORS_HEADERS, Answer, Refusal, cbor_answer, json_answer, text_answer
from cannery.node.gateway.names import NAME_LIST_ARG, NAME_LIST_METHOD, NameListError, decode_name_list
from cannery.node.gateway.state_paths import SubnetFacts
from cannery.node.handover import QueryMessage, StateRead
from cannery.node.subnet_port import SubnetPort
from cannery.protocol.cbor import CborSource, encode
from cannery.protocol.principal import ANONYMOUS, MANAGEMENT

_ASK_S = 5.0
_METRICS_HEADERS = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"), *CORS_HEADERS)


class NodePages:
    """Answers the pages about the node."""

    def __init__(
        self, port: SubnetPort, facts: SubnetFacts, own_metrics: Callable[[], str], version: str
    ) -> None:
        self._port = port
        self._facts = facts
        self._own_metrics = own_metrics
        self._version = version
        fields: dict[str, CborSource] = {
            "ic_api_version": "0.66.0",
            "impl_source": "cannery",
            "impl_version": version,
            "replica_health_status": "healthy",
            "root_key": facts.root_key_der,
        }
        self._status = cbor_answer(encode(fields, self_describe=True))

    def status(self) -> Answer:
        """Give root key and version; agents fetch this before all else."""
        return self._status

    async def node(self) -> Answer:
        """Give what a client needs to begin with: version, keys, and the ids of the canisters that have
        names.
        """
        return json_answer(
            {
                "version": self._version,
                "root_key": self._facts.root_key_der.hex(),
                "subnet_id": str(self._facts.subnet_id),
                "node_id": str(self._facts.node_id),
                "canisters": await self._names(),
            }
        )

    async def health(self) -> Answer:
        """Say whether the subnet answers."""
        try:
            async with asyncio.timeout(_ASK_S):
                await self._port.read(StateRead(ANONYMOUS.raw, b"", ()))
        except TimeoutError:
            return text_answer(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"the subnet has not answered for {_ASK_S:.0f} s: it may be restarting",
            )
        return text_answer(HTTPStatus.OK, "healthy")

    async def metrics(self) -> Answer:
        """Give the metrics of this process and of its subnet in Prometheus' text format."""
        try:
            async with asyncio.timeout(_ASK_S):
                subnet_metrics = await self._port.measure()
        except TimeoutError:
            subnet_metrics = "# the subnet has not answered\n"
        return Answer(HTTPStatus.OK, _METRICS_HEADERS, (self._own_metrics() + subnet_metrics).encode())

    async def _names(self) -> dict[str, str]:
        request_id = sha256(NAME_LIST_METHOD.encode()).digest()
        query = QueryMessage(request_id, ANONYMOUS.raw, MANAGEMENT.raw, NAME_LIST_METHOD, NAME_LIST_ARG)
        try:
            async with asyncio.timeout(_ASK_S):
                answer = (await self._port.ask(query)).answer
        except TimeoutError:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "the subnet has not answered: it may be restarting, try again",
                ((b"retry-after", b"2"),),
            ) from None
        if answer.reject_code or answer.spooled is not None:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the subnet gives no canister names: {answer.reject_message}"
            )
        try:
            names = decode_name_list(answer.reply)
        except NameListError as error:
            raise Refusal(
                HTTPStatus.SERVICE_UNAVAILABLE, f"the list of canister names does not decode: {error}"
            ) from error
        return {name: str(canister_id) for name, canister_id in names[:GATEWAY_NAME_COUNT_MAX]}
