"""Reads of certified state: the node's own facts and the subnet's values, in one small signed tree.

IC interface specification, section "Request: Read state". What may be read where is in `state_paths`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus

from cannery.node.gateway.http import Answer, Refusal
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.routes import Route
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.gateway.state_paths import SubnetFacts, plan_read
from cannery.node.handover import StateRead
from cannery.node.subnet_port import SubnetPort
from cannery.protocol.authentication import Authority
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX
from cannery.protocol.certificate import build_certificate, encode_certificate
from cannery.protocol.envelope import Envelope, ReadStateContent
from cannery.protocol.hash_tree import build_tree, encode_blob
from cannery.protocol.principal import MANAGEMENT

_CERTIFICATE_HEAD = b"\xa1\x6bcertificate"


class StateReads:
    """Answers the read_state endpoints."""

    def __init__(
        self,
        port: SubnetPort,
        others: Sequence[SubnetPort],
        facts: SubnetFacts,
        large: LargeAnswers,
        settings: GatewaySettings,
        now_ns: Callable[[], int],
    ) -> None:
        self._port = port
        self._others = others
        self._facts = facts
        self._large = large
        self._wait_s = settings.query_wait_ms_max / 1000
        self._now_ns = now_ns

    async def read_state(
        self, envelope: Envelope, authority: Authority, route: Route, address: str
    ) -> Answer:
        """Answer an authenticated read."""
        content = envelope.content
        assert isinstance(content, ReadStateContent), "the path decides the kind of content"
        plan = plan_read(content.paths, route.effective, subnet=route.subnet)
        if plan.request_ids:
            _check_targets(authority, route)
        time_ns = self._now_ns()
        values: tuple[bytes | None, ...] = ()
        if plan.leaves:
            read = StateRead(content.sender.raw, b"" if route.subnet else route.effective.raw, plan.leaves)
            time_ns, values = await self._read(read, self._port)
            if plan.request_ids and not any(values):
                # The call may have been for another subnet than the canister in its URL: a creation, say.
                for port in self._others:
                    found_ns, found = await self._read(read, port)
                    if any(found):
                        time_ns, values = max(time_ns, found_ns), found
                        break
        tree = build_tree(self._facts.tree_data(plan, time_ns, values))
        certificate = encode_certificate(build_certificate(tree, self._facts.key, self._facts.delegation))
        head = SELF_DESCRIBE_PREFIX + _CERTIFICATE_HEAD if envelope.tagged else _CERTIFICATE_HEAD
        return await self._large.keep_if_large(head + encode_blob(certificate), address)

    async def _read(self, read: StateRead, port: SubnetPort) -> tuple[int, tuple[bytes | None, ...]]:
        try:
            async with asyncio.timeout(self._wait_s):
                values = await port.read(read)
        except TimeoutError:
            raise Refusal(
                HTTPStatus.GATEWAY_TIMEOUT,
                f"the state was not read in {self._wait_s:.0f} s: the node is busy, ask again later",
                ((b"retry-after", b"5"),),
            ) from None
        if values.denied is not None and not values.time_ns:
            # Without a time it is no word of the subnet's, which is busy or gone.
            raise Refusal(HTTPStatus.SERVICE_UNAVAILABLE, values.denied, ((b"retry-after", b"1"),))
        if values.denied is not None:
            raise Refusal(HTTPStatus.FORBIDDEN, values.denied)
        return max(values.time_ns, self._now_ns()), values.values


def _check_targets(authority: Authority, route: Route) -> None:
    """Raise `Refusal` (403) where a delegation's targets do not cover the canister whose call is asked
    after.
    """
    if authority.allows(route.effective) or authority.allows(MANAGEMENT):
        return
    raise Refusal(HTTPStatus.FORBIDDEN, f"canister {route.effective} is not one of the delegation's targets")
