"""The gateway's front: from a request to its answer.

Order of checks: path and method, rate of the address, type and size of the body, envelope, effective id,
signature, rate of the principal; then the subnet. The only catch-all of this room stands here, around
one request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import assert_never

from cannery.limits import GATEWAY_INLINE_BODY_SIZE_BYTES_MAX
from cannery.node.gateway.bodies import (
    LargeWork,
    MemoryBudget,
    check_size,
    declared_size,
    is_small,
    read_inline,
    spool_rest,
)
from cannery.node.gateway.calls import Calls
from cannery.node.gateway.certifier import Certifier
from cannery.node.gateway.effective import EffectiveIds, management_target
from cannery.node.gateway.gateway_metrics import EventCounts, GatewayCounts, render_gateway
from cannery.node.gateway.http import PREFLIGHT, Answer, Disconnected, Refusal, Request, text_answer
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.large_envelopes import Loaded, load_envelope
from cannery.node.gateway.node_pages import NodePages
from cannery.node.gateway.queries import Queries
from cannery.node.gateway.rate_limit import TokenBuckets, address_key
from cannery.node.gateway.routes import Route, Verb, parse_route, parse_sha256
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.spool import Spool
from cannery.node.gateway.spool_pages import SpoolPages
from cannery.node.gateway.state_paths import SubnetFacts
from cannery.node.gateway.state_reads import StateReads
from cannery.node.handover import IngressMessage
from cannery.node.subnet_port import SubnetPort
from cannery.node.watching.pages import WatchPages
from cannery.protocol.authentication import AuthenticationError, Authority, VerifiedDelegations, authenticate
from cannery.protocol.envelope import (
    CallContent,
    Envelope,
    EnvelopeError,
    QueryContent,
    ReadStateContent,
    RequestKind,
    parse_envelope,
)

_log = logging.getLogger(__name__)

_CBOR = b"application/cbor"
_KINDS: Mapping[Verb, RequestKind] = {
    Verb.CALL: "call",
    Verb.QUERY: "query",
    Verb.READ_STATE: "read_state",
}
_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Clocks:
    """Wall time for expiries and signatures, monotonic time for rates; both in nanoseconds."""

    now_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]


class Gateway:
    """Answers requests; whoever carries the connections calls `answer` once for each."""

    def __init__(
        self,
        port: SubnetPort,
        identity: NodeIdentity,
        settings: GatewaySettings,
        spool: Spool,
        clocks: Clocks,
        watch: WatchPages | None = None,
    ) -> None:
        facts = SubnetFacts(identity)
        large_work = LargeWork(settings)
        large = LargeAnswers(spool, large_work)
        certifier = Certifier(identity.root_key, clocks.now_ns)
        self._settings = settings
        self._spool = spool
        self._clocks = clocks
        self._large_work = large_work
        self._memory = MemoryBudget()
        self._root_key_der = facts.root_key_der
        self._effective = EffectiveIds(facts.subnet_id, identity.canister_ranges)
        self._verified = VerifiedDelegations()
        self._calls = Calls(port, certifier, large, settings)
        self._queries = Queries(port, identity.node_key, facts.subnet_id, large, settings, clocks.now_ns)
        self._reads = StateReads(port, identity.root_key, facts, large, settings, clocks.now_ns)
        self._spool_pages = SpoolPages(spool)
        self.by_address: TokenBuckets[str] = TokenBuckets(
            settings.requests_per_address_per_s,
            settings.requests_per_address_burst,
            settings.rate_limited_count_max,
        )
        self.by_principal: TokenBuckets[bytes] = TokenBuckets(
            settings.requests_per_principal_per_s,
            settings.requests_per_principal_burst,
            settings.rate_limited_count_max,
        )
        self.counts: dict[tuple[str, int], int] = {}
        self.event_counts: Callable[[], EventCounts] = EventCounts
        self._number = identity.gateway
        self._pages = NodePages(port, facts, identity, self.metrics, clocks.monotonic_ns, watch)
        self._certifier = certifier

    async def answer(self, request: Request) -> Answer | None:
        """Answer a request, whatever it is; None where the client is gone."""
        verb = "other"
        try:
            if request.method == "OPTIONS":
                return PREFLIGHT
            route = parse_route(request.path, request.method)
            verb = route.verb.value
            answer = await self._answer(request, route)
        except Refusal as refusal:
            answer = refusal.answer()
        except Disconnected:
            return None
        except Exception:  # noqa: BLE001  # the door around a request
            _log.exception("a request to %s was not foreseen", request.path)
            answer = text_answer(
                HTTPStatus.INTERNAL_SERVER_ERROR,
                "the node has a fault: its log says where, tell its operator",
            )
        key = (verb, answer.status)
        self.counts[key] = self.counts.get(key, 0) + 1
        return answer

    async def _answer(self, request: Request, route: Route) -> Answer:
        match route.verb:
            case Verb.CALL | Verb.QUERY | Verb.READ_STATE:
                self.check_address(request.address)
                return await self._answer_envelope(request, route)
            case Verb.SPOOLED:
                self.check_address(request.address)
                return await self._spool_pages.answer(request, route)
            case Verb.EVENTS:
                raise Refusal(
                    HTTPStatus.UPGRADE_REQUIRED,
                    "events go over a WebSocket: connect here with a WebSocket client (docs/events.md)",
                    ((b"upgrade", b"websocket"),),
                )
            case Verb.STATUS:
                return self._pages.status()
            case Verb.NODE:
                self.check_address(request.address)
                return await self._pages.node()
            case Verb.HEALTH:
                self.check_address(request.address)
                return await self._pages.health(verbose=request.query.partition("=")[0] == "verbose")
            case Verb.METRICS:
                self.check_address(request.address)
                return await self._pages.metrics()
            case _:
                assert_never(route.verb)

    # --- bodies -----------------------------------------------------------------------------------

    async def _answer_envelope(self, request: Request, route: Route) -> Answer:
        headers = request.headers
        content_type = headers.get(b"content-type", _CBOR)
        if content_type != _CBOR and content_type.split(b";")[0].strip().lower() != _CBOR:
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the request as Content-Type: application/cbor"
            )
        if headers.get(b"content-encoding", b"identity").lower() != b"identity":
            raise Refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send the body as it is, without Content-Encoding"
            )
        name = headers.get(b"cannery-body")
        if name is not None:
            return await self._answer_uploaded(request, route, name)
        size = declared_size(request)
        limit = self._settings.body_size_bytes_max
        if is_small(size):
            body = await read_inline(request, limit)
            assert isinstance(body, bytes), "a small body stays in memory"
            return await self._serve(request, route, body)
        check_size(size or 0, limit)
        with self._memory.hold(min(size or limit, GATEWAY_INLINE_BODY_SIZE_BYTES_MAX)):
            read = await read_inline(request, limit)
            if isinstance(read, bytes):
                return await self._serve(request, route, read)
        scratch = await spool_rest(request, read, self._spool, limit)
        del read
        try:
            return await self._serve_file(request, route, str(scratch.finish()))
        finally:
            scratch.discard()

    async def _answer_uploaded(self, request: Request, route: Route, name: bytes) -> Answer:
        digest = parse_sha256(name.decode("latin-1"))
        if declared_size(request) or await request.body.next_chunk():
            raise Refusal(HTTPStatus.BAD_REQUEST, "a request with Cannery-Body has an empty body of its own")
        file = self._spool.use_body(digest)
        if file is None:
            raise Refusal(
                HTTPStatus.NOT_FOUND,
                f"body {digest.hex()} is not here: upload it with PATCH /cannery/body/SHA256",
            )
        check_size(file.size_bytes, self._settings.body_size_bytes_max)
        answer = await self._serve_file(request, route, file.path)
        self._spool.spend(Path(file.path))
        return answer

    # --- envelopes --------------------------------------------------------------------------------

    async def _serve(self, request: Request, route: Route, body: bytes) -> Answer:
        try:
            envelope = parse_envelope(body, _KINDS[route.verb])
        except EnvelopeError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        content = envelope.content
        target = None if isinstance(content, ReadStateContent) else management_target(content)
        return await self._serve_envelope(request, route, Loaded(envelope, None, target))

    async def _serve_file(self, request: Request, route: Route, path: str) -> Answer:
        async with self._large_work.slot():
            try:
                loaded = await asyncio.to_thread(load_envelope, path, _KINDS[route.verb])
            except EnvelopeError as error:
                raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        return await self._serve_envelope(request, route, loaded)

    async def _serve_envelope(self, request: Request, route: Route, loaded: Loaded) -> Answer:
        envelope = loaded.envelope
        content = envelope.content
        if isinstance(content, ReadStateContent):
            self._effective.check_place(route)
            authority = self._authenticate(envelope)
            return await self._reads.read_state(envelope, authority, route, request.address)
        self._effective.check(content, loaded.target, route)
        self._authenticate(envelope)
        if not isinstance(content, CallContent):
            return await self._queries.query(envelope, loaded.spooled, request.address)
        ingress = IngressMessage(
            envelope.request_id,
            content.sender.raw,
            content.canister_id.raw,
            content.method_name,
            content.arg,
            content.ingress_expiry_ns,
            loaded.spooled,
        )
        if route.version == 2:
            return await self._calls.call_async(ingress, envelope.tagged)
        return await self._calls.call_sync(ingress, envelope.tagged, request.address)

    def prove_query(self, body: bytes, address: str) -> Envelope:
        """Check a signed query that came from an address, as one that is to be run. Raises `Refusal`."""
        self.check_address(address)
        try:
            envelope = parse_envelope(body, "query")
        except EnvelopeError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        content = envelope.content
        assert isinstance(content, QueryContent), "that is what was parsed"
        self._effective.check(content, None, Route(Verb.QUERY, (), effective=content.canister_id))
        self._authenticate(envelope)
        return envelope

    def _authenticate(self, envelope: Envelope) -> Authority:
        sender = envelope.content.sender
        try:
            authority = authenticate(
                envelope, self._clocks.now_ns(), verified=self._verified, root_key=self._root_key_der
            )
        except AuthenticationError as error:
            raise Refusal(error.http_status, str(error)) from None
        if not sender.is_anonymous:
            wait_ns = self.by_principal.take(sender.raw, self._clocks.monotonic_ns())
            if wait_ns:
                raise _too_many(f"principal {sender}", wait_ns)
        return authority

    def check_address(self, address: str) -> None:
        """Count a request of an address. Raises `Refusal` (429) for too many."""
        wait_ns = self.by_address.take(address_key(address), self._clocks.monotonic_ns())
        if wait_ns:
            raise _too_many(f"address {address}", wait_ns)

    # --- upkeep -----------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Let go of what the spool has kept long enough; to be called now and then, from any thread."""
        self._spool.sweep()

    def metrics(self) -> str:
        """Give this process's counters in Prometheus' text format."""
        counts = GatewayCounts(
            requests=self.counts,
            round_signatures=self._certifier.signature_count,
            rate_limited_addresses=self.by_address.refused,
            rate_limited_principals=self.by_principal.refused,
            known_delegations=len(self._verified),
            bodies_in_memory_bytes=self._memory.used,
            spool_bytes=self._spool.bytes_used,
            spool_files=self._spool.file_count,
            events=self.event_counts(),
        )
        return render_gateway(self._number, counts)


def _too_many(who: str, wait_ns: int) -> Refusal:
    seconds = -(-wait_ns // _NS_PER_S)
    return Refusal(
        HTTPStatus.TOO_MANY_REQUESTS,
        f"too many requests from {who}: wait {seconds} s, then send fewer",
        ((b"retry-after", b"%d" % seconds),),
    )
