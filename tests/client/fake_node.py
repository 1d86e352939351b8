"""A node on one page, honest until told otherwise: it signs its answers and runs each call once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import sha256

from cannery.client.conversation import Conversation
from cannery.client.exchange import Answer, Exchange, Lost, Pause, Result, Send
from cannery.protocol.bls import BlsKey
from cannery.protocol.cbor import encode
from cannery.protocol.certificate import build_certificate, encode_canister_ranges, encode_certificate
from cannery.protocol.envelope import CallContent, QueryContent, ReadStateContent, parse_envelope
from cannery.protocol.hash_tree import build_tree, prune
from cannery.protocol.identity import AnonymousIdentity, Ed25519Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import (
    QueryAnswer,
    QueryReplied,
    encode_query_response,
    sign_query_answer,
)
from cannery.protocol.representation import encode_leb128
from cannery.protocol.request_status import Processing, Replied, RequestStatus, status_data

CANISTER = Principal(bytes.fromhex("00000000001000000101"))
RANGE = (Principal(bytes(8) + b"\1\1"), Principal(b"\0\0\0\0\xff\xff\xff\xff\1\1"))
START_NS = 1_800_000_000_000_000_000


@dataclass
class FakeNode:
    """Answers requests; `damage` changes answers on their way, `lose` drops them after they took effect."""

    key: BlsKey = field(default_factory=lambda: BlsKey.from_seed(bytes(32)))
    node: Ed25519Identity = field(default_factory=lambda: Ed25519Identity(bytes([7]) * 32))
    now_ns: int = START_NS
    skew_ns: int = 0
    synchronous: bool = True
    settle: Callable[[CallContent], RequestStatus] = lambda content: Replied(b"ran " + content.arg)
    answer_query: Callable[[QueryContent], QueryAnswer] = lambda content: QueryReplied(
        b"asked " + content.arg
    )
    damage: Callable[[Answer], Answer] = lambda answer: answer
    outages: list[Result] = field(default_factory=list)
    lose: int = 0
    ran: list[bytes] = field(default_factory=list)
    sent: list[Send] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    statuses: dict[bytes, RequestStatus] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    forget_bodies: int = 0

    # --- what the test calls ---

    def conversation(self, **changes: object) -> Conversation:
        settings: dict[str, object] = {
            "identity": AnonymousIdentity(),
            "now_ns": lambda: self.now_ns,
            "nonce": lambda: b"nonce",
            "root_key": self.key.public_key_der,
            "patience_ns": 240_000_000_000,
            "answer_wait_ns": 300_000_000_000,
        }
        return Conversation(**(settings | changes))  # type: ignore[arg-type]

    def hold(self, exchange: Exchange[object]) -> object:
        """Hold a conversation with this node; a pause moves the clock."""
        try:
            step = next(exchange)
            while True:
                step = exchange.send(self._perform(step))
        except StopIteration as done:
            return done.value

    # --- the node ---

    def _perform(self, step: Send | Pause) -> Result:
        if isinstance(step, Pause):
            self.pauses.append(step)
            self.now_ns += int(step.seconds * 1e9)
            return None
        self.sent.append(step)
        if self.outages:
            outage = self.outages.pop(0)
            if outage is not None:
                return outage
        answer = self._answer(step)
        if self.lose > 0:
            self.lose -= 1
            return Lost("connection reset", sent=True)
        return self.damage(answer)

    def _answer(self, request: Send) -> Answer:
        if request.path.startswith("/cannery/body/"):
            return self._store_body(request)
        if request.path == "/api/v2/status":
            return self._cbor({"root_key": self.key.public_key_der, "replica_health_status": "healthy"})
        name = request.headers.get("cannery-body")
        if name:
            if self.forget_bodies or name not in self.bodies:
                self.forget_bodies -= 1
                self.bodies.clear()
                return Answer(404, {}, b"not there")
            request = replace(request, body=self.bodies[name])
        kind = request.path.rsplit("/", 1)[1]
        envelope = parse_envelope(request.body, kind)  # type: ignore[arg-type]
        content = envelope.content
        if isinstance(content, CallContent):
            return self._call(envelope.request_id, content)
        if isinstance(content, QueryContent):
            answer = self.answer_query(content)
            signature = sign_query_answer(self.node, answer, envelope.request_id, self.now_ns + self.skew_ns)
            return Answer(200, {}, encode_query_response(answer, [signature], tagged=True))
        assert isinstance(content, ReadStateContent)
        return self._cbor({"certificate": self.certify(content.paths)})

    def _call(self, request_id: bytes, content: CallContent) -> Answer:
        if content.ingress_expiry_ns < self.now_ns + self.skew_ns:
            return Answer(400, {}, b"Invalid request expiry: in the past")
        if request_id not in self.statuses:
            self.ran.append(content.arg)
            self.statuses[request_id] = self.settle(content)
        if not self.synchronous or isinstance(self.statuses[request_id], Processing):
            return Answer(202, {}, b"")
        certificate = self.certify([(b"request_status", request_id)])
        return self._cbor({"status": "replied", "certificate": certificate})

    def certify(self, paths: list[tuple[bytes, ...]] | tuple[tuple[bytes, ...], ...]) -> bytes:
        root = Principal.self_authenticating(self.key.public_key_der)
        subnet = {
            b"public_key": self.key.public_key_der,
            b"canister_ranges": encode_canister_ranges([RANGE]),
            b"node": {self.node.principal.raw: {b"public_key": self.node.public_key_der}},
        }
        tree = build_tree(
            {
                b"time": encode_leb128(self.now_ns + self.skew_ns),
                b"subnet": {root.raw: subnet},
                b"canister": {CANISTER.raw: {b"metadata": {b"candid:service": b"service : {}"}}},
                b"request_status": {key: status_data(status) for key, status in self.statuses.items()},
            }
        )
        certificate = build_certificate(tree, self.key)
        return encode_certificate(replace(certificate, tree=prune(tree, [(b"time",), *paths])))

    def _store_body(self, request: Send) -> Answer:
        name = request.path.rsplit("/", 1)[1]
        have = self.bodies.get(name, b"")
        if request.method == "HEAD":
            return Answer(200 if name in self.bodies else 404, {"upload-offset": str(len(have))}, b"")
        if request.method == "GET":
            start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
            return Answer(206, {}, have[start:])
        if int(request.headers["upload-offset"]) != len(have):
            return Answer(409, {"upload-offset": str(len(have))}, b"")
        have += request.body
        self.bodies[name] = have
        if len(have) == int(request.headers["upload-length"]):
            assert sha256(have).hexdigest() == name
        return Answer(204, {"upload-offset": str(len(have))}, b"")

    def _cbor(self, value: dict[str, object]) -> Answer:
        return Answer(200, {}, encode(value, self_describe=True))  # type: ignore[arg-type]
