"""The gateway's front: from a request to its answer.

Order of checks: path and method, rate of the address, type and size of the body, envelope, effective id,
signature, rate of the principal; then the subnet. The only catch-all of this room stands here, around
one request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
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
from cannery.node.gateway.composite import CompositeQueries
from cannery.node.gateway.effective import EffectiveIds, management_target
from cannery.node.gateway.gateway_metrics import render_gateways
from cannery.node.gateway.http import PREFLIGHT, Answer, Disconnected, Refusal, Request, text_answer, too_many
from cannery.node.gateway.large_answers import LargeAnswers
from cannery.node.gateway.large_envelopes import Loaded, load_envelope
from cannery.node.gateway.node_pages import NodePages
from cannery.node.gateway.queries import Queries
from cannery.node.gateway.rate_limit import TokenBuckets, address_key
from cannery.node.gateway.refused_calls import Door, RefusedCalls
from cannery.node.gateway.request_tally import RequestTally
from cannery.node.gateway.routes import Route, Verb, parse_route, parse_sha256
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.siblings import Siblings, no_siblings
from cannery.node.gateway.spool import Spool
from cannery.node.gateway.spool_pages import SpoolPages
from cannery.node.gateway.state_paths import SubnetFacts
from cannery.node.gateway.state_reads import StateReads
from cannery.node.gateway.tally_page import OTHER_VERB
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
_KINDS: Mapping[str, RequestKind] = {
    Verb.CALL.value: "call",
    Verb.QUERY.value: "query",
    Verb.READ_STATE.value: "read_state",
}


@dataclass(frozen=True, slots=True)
class Clocks:
    """Wall time for expiries and signatures, monotonic time for rates; both in nanoseconds."""

    now_ns: Callable[[], int]
    monotonic_ns: Callable[[], int]


class Gateway:
    """Answers requests; whoever carries the connections calls `answer` once for each."""

    def __init__(
        self,
        ports: Sequence[SubnetPort],
        identity: NodeIdentity,
        settings: GatewaySettings,
        spool: Spool,
        clocks: Clocks,
        watch: WatchPages | None = None,
        siblings: Siblings | None = None,
    ) -> None:
        if siblings is None:
            siblings = no_siblings(settings.rate_limited_count_max)
        page = siblings.tallies.own
        numbers = range(len(ports))
        now_ns = clocks.now_ns()
        facts = [SubnetFacts(identity, number, now_ns) for number in numbers]
        large_work = LargeWork(settings)
        large = LargeAnswers(spool, large_work)
        self._ports = tuple(ports)
        self._settings = settings
        self._spool = spool
        self._clocks = clocks
        self._large_work = large_work
        self._memory = MemoryBudget()
        self._root_key_der = facts[0].root_key_der
        self._effective = EffectiveIds([each.subnet_id for each in facts], identity.canister_ranges)
        self._verified = VerifiedDelegations()
        self._refused_calls = RefusedCalls(
            settings,
            clocks.monotonic_ns,
            siblings.rates.refused_calls,
            page.cell("rate_limited_refused_calls_total"),
        )
        tally = RequestTally(page)
        signatures = page.cell("round_signatures_total")
        self._certifiers = [Certifier(each.key, clocks.now_ns, each.delegation, signatures) for each in facts]
        self._calls = [
            Calls(certifier, large, settings, self._refused_calls, tally) for certifier in self._certifiers
        ]
        self._queries = Queries(
            CompositeQueries(ports),
            identity.node_key,
            facts[0].subnet_id,
            large,
            settings,
            clocks.now_ns,
            tally,
        )
        self._reads = _state_reads(ports, facts, large, settings, clocks.now_ns)
        self._spool_pages = SpoolPages(spool)
        self.by_address = _by_address(settings, siblings)
        self.by_principal = _by_principal(settings, siblings)
        self.tally = tally
        self.tallies = siblings.tallies
        self._pages = NodePages(ports, facts, identity, self.metrics, clocks.monotonic_ns, watch, siblings)

    async def answer(self, request: Request) -> Answer | None:
        """Answer a request, whatever it is; None where the client is gone."""
        verb, begun_ns = OTHER_VERB, self._clocks.monotonic_ns()
        try:
            if request.method == "OPTIONS":
                return PREFLIGHT
            route = parse_route(request.path, request.method)
            verb = route.verb.value
            kind = _KINDS.get(verb)
            if kind is None:
                answer = await self._answer_page(request, route)
            else:
                answer = await self._answer_envelope(request, route, kind)
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
        self.tally.note(verb, answer.status, self._clocks.monotonic_ns() - begun_ns)
        return answer

    async def _answer_page(self, request: Request, route: Route) -> Answer:
        match route.verb:
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
            case Verb.CALL | Verb.QUERY | Verb.READ_STATE:
                raise AssertionError("what has an envelope is answered by what is in it")
            case _:
                assert_never(route.verb)

    # --- bodies -----------------------------------------------------------------------------------

    async def _answer_envelope(self, request: Request, route: Route, kind: RequestKind) -> Answer:
        self.check_address(request.address)
        if kind == "call":
            self._refused_calls.check(request.address, route.effective)
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
            return await self._answer_uploaded(request, route, kind, name)
        size = declared_size(request)
        limit = self._settings.body_size_bytes_max
        if is_small(size):
            body = await read_inline(request, limit)
            assert isinstance(body, bytes), "a small body stays in memory"
            return await self._serve(request, route, kind, body)
        check_size(size or 0, limit)
        with self._memory.hold(min(size or limit, GATEWAY_INLINE_BODY_SIZE_BYTES_MAX)):
            read = await read_inline(request, limit)
            if isinstance(read, bytes):
                return await self._serve(request, route, kind, read)
        scratch = await spool_rest(request, read, self._spool, limit)
        del read
        try:
            return await self._serve_file(request, route, kind, str(scratch.finish()))
        finally:
            scratch.discard()

    async def _answer_uploaded(
        self, request: Request, route: Route, kind: RequestKind, name: bytes
    ) -> Answer:
        digest = parse_sha256(name.decode("latin-1"))
        if declared_size(request) or await request.body.next_chunk():
            raise Refusal(HTTPStatus.BAD_REQUEST, "a request with Cannery-Body has an empty body of its own")
        file = self._spool.use_body(digest)
        if file is None:
            raise _no_body(digest)
        check_size(file.size_bytes, self._settings.body_size_bytes_max)
        try:
            answer = await self._serve_file(request, route, kind, file.path)
        except FileNotFoundError:
            # Another gateway found it expired in this moment.
            raise _no_body(digest) from None
        self._spool.spend(Path(file.path))
        return answer

    # --- envelopes --------------------------------------------------------------------------------

    async def _serve(self, request: Request, route: Route, kind: RequestKind, body: bytes) -> Answer:
        try:
            envelope = parse_envelope(body, kind)
        except EnvelopeError as error:
            raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        content = envelope.content
        target = None if isinstance(content, ReadStateContent) else management_target(content)
        return await self._serve_envelope(request, route, Loaded(envelope, None, target))

    async def _serve_file(self, request: Request, route: Route, kind: RequestKind, path: str) -> Answer:
        async with self._large_work.slot():
            try:
                loaded = await asyncio.to_thread(load_envelope, path, kind)
            except EnvelopeError as error:
                raise Refusal(HTTPStatus.BAD_REQUEST, str(error)) from None
        return await self._serve_envelope(request, route, loaded)

    async def _serve_envelope(self, request: Request, route: Route, loaded: Loaded) -> Answer:
        envelope = loaded.envelope
        content = envelope.content
        if isinstance(content, ReadStateContent):
            number = self._effective.check_place(route)
            authority = self._authenticate(envelope)
            return await self._reads[number].read_state(envelope, authority, route, request.address)
        places = self._effective.check(content, loaded.target, route, envelope.request_id)
        self._authenticate(envelope)
        port = self._ports[places.runs]
        if not isinstance(content, CallContent):
            return await self._queries.query(envelope, loaded.spooled, request.address, places.runs)
        ingress = IngressMessage(
            envelope.request_id,
            content.sender.raw,
            content.canister_id.raw,
            content.method_name,
            content.arg,
            content.ingress_expiry_ns,
            loaded.spooled,
        )
        door = Door(request.address, route.effective.raw)
        calls = self._calls[places.answers]
        if route.version == 2:
            return await calls.call_async(ingress, envelope.tagged, door, port)
        return await calls.call_sync(ingress, envelope.tagged, door, port)

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
                raise too_many(f"too many requests from principal {sender}", wait_ns, "then send fewer")
        return authority

    def check_address(self, address: str) -> None:
        """Count a request of an address. Raises `Refusal` (429) for too many."""
        wait_ns = self.by_address.take(address_key(address), self._clocks.monotonic_ns())
        if wait_ns:
            raise too_many(f"too many requests from address {address}", wait_ns, "then send fewer")

    # --- upkeep -----------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Let go of what the spool has kept long enough; to be called now and then, from any thread."""
        self._spool.sweep()

    def metrics(self) -> str:
        """Give the counters of all gateways of the node in Prometheus' text format."""
        self.beat()
        return render_gateways(self.tallies, self._clocks.monotonic_ns())

    def beat(self) -> None:
        """Show that this process is alive, and what it holds; to be called once a second."""
        page = self.tallies.own
        page.set("known_delegations", len(self._verified))
        page.set("bodies_in_memory_bytes", self._memory.used)
        page.set("spool_bytes", self._spool.bytes_used)
        page.set("spool_files", self._spool.file_count)
        page.beat(self._clocks.monotonic_ns())


def _no_body(digest: bytes) -> Refusal:
    return Refusal(
        HTTPStatus.NOT_FOUND, f"body {digest.hex()} is not here: upload it with PATCH /cannery/body/SHA256"
    )


def _by_address(settings: GatewaySettings, siblings: Siblings) -> TokenBuckets:
    return TokenBuckets(
        settings.requests_per_address_per_s,
        settings.requests_per_address_burst,
        siblings.rates.addresses,
        siblings.tallies.own.cell("rate_limited_addresses_total"),
    )


def _by_principal(settings: GatewaySettings, siblings: Siblings) -> TokenBuckets:
    return TokenBuckets(
        settings.requests_per_principal_per_s,
        settings.requests_per_principal_burst,
        siblings.rates.principals,
        siblings.tallies.own.cell("rate_limited_principals_total"),
    )


def _state_reads(
    ports: Sequence[SubnetPort],
    facts: Sequence[SubnetFacts],
    large: LargeAnswers,
    settings: GatewaySettings,
    now_ns: Callable[[], int],
) -> list[StateReads]:
    """Make the reads of each subnet, which know the others' ports for calls that went elsewhere."""
    return [
        StateReads(port, [each for each in ports if each is not port], own, large, settings, now_ns)
        for port, own in zip(ports, facts, strict=True)
    ]
