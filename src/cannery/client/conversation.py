"""What an agent says to a node: status, call, query and read_state, with every answer verified.

IC interface specification, sections "HTTPS interface" and "Certification". Plain generators (see
`exchange`): no socket, no clock of their own. A call is signed once; the same bytes are sent again whenever
no answer came, and after the ingress expiry the certified request status says whether it ran.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from cannery.client.errors import Expired, Refused, Rejected, Unreachable, Unverified
from cannery.client.exchange import Answer, Exchange, Lost, Result, Send
from cannery.client.node_keys import NodeKeys
from cannery.client.retry import Backoff, describe, is_transient
from cannery.client.transfer import ProgressReport, ask, deliver
from cannery.limits import (
    CERTIFICATE_AGE_NS_MAX,
    CLIENT_INGRESS_EXPIRY_NS,
    INGRESS_EXPIRY_SKEW_NS,
)
from cannery.protocol.cbor import CborError, CborValue, decode
from cannery.protocol.certificate import (
    Certificate,
    CertificateError,
    certificate_time_ns,
    decode_certificate,
    verify_certificate,
)
from cannery.protocol.envelope import (
    CallContent,
    QueryContent,
    ReadStateContent,
    build_envelope,
    request_id_of,
)
from cannery.protocol.identity import Identity
from cannery.protocol.principal import MANAGEMENT, Principal, PrincipalError
from cannery.protocol.query_signature import (
    QueryRejected,
    QueryResponse,
    QueryResponseError,
    decode_query_response,
    verify_query_answer,
)
from cannery.protocol.request_status import (
    Done,
    Replied,
    RequestStatusError,
    read_request_status,
)
from cannery.protocol.request_status import (
    Rejected as StatusRejected,
)

Path: TypeAlias = Sequence[bytes]
CBOR_HEADERS = {"content-type": "application/cbor"}


@dataclass(frozen=True, slots=True)
class Status:
    """What a node says of itself, unsigned."""

    root_key: bytes | None
    health: str
    version: str


@dataclass(frozen=True, slots=True)
class SignedCall:
    """A call as it goes over the wire, as often as needed."""

    request_id: bytes
    body: bytes
    path: str
    effective: Principal
    expiry_ns: int


@dataclass(slots=True)
class Conversation:
    """An agent's side of every exchange: who signs, whom to believe, how long to try."""

    identity: Identity
    now_ns: Callable[[], int]
    nonce: Callable[[], bytes]
    root_key: bytes | None
    patience_ns: int
    answer_wait_ns: int
    on_progress: ProgressReport | None = None
    node_keys: NodeKeys = field(default_factory=NodeKeys)

    # --- status and root key ---------------------------------------------------------------------

    def status(self, patience_ns: int | None = None) -> Exchange[Status]:
        """Ask for the node's status."""
        answer = yield from ask(Send("GET", "/api/v2/status"), self._backoff(patience_ns))
        fields = _decode_map(answer)
        root_key = fields.get("root_key")
        return Status(
            root_key if isinstance(root_key, bytes) else None,
            _text(fields.get("replica_health_status")),
            _text(fields.get("impl_version")),
        )

    def trusted_root_key(self) -> Exchange[bytes]:
        """Give the root key; where none is pinned, take the one that the node shows, once."""
        if self.root_key is None:
            status = yield from self.status()
            if status.root_key is None:
                raise Unverified("the node shows no root key: give the agent one")
            self.root_key = status.root_key
        return self.root_key

    def _backoff(self, patience_ns: int | None = None) -> Backoff:
        return Backoff(
            self.now_ns, self.now_ns() + (self.patience_ns if patience_ns is None else patience_ns)
        )

    def names(self) -> Exchange[dict[str, Principal]]:
        """Read the named canisters of /cannery.json."""
        answer = yield from ask(Send("GET", "/cannery.json"), self._backoff())
        try:
            canisters = json.loads(answer.body)["canisters"]
            return {str(name): Principal.parse(text) for name, text in canisters.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, PrincipalError):
            raise Refused(answer.status, "/cannery.json is not what a Cannery node serves") from None

    # --- update calls ----------------------------------------------------------------------------

    def sign_call(
        self,
        canister_id: Principal,
        method: str,
        arg: bytes,
        effective: Principal | None = None,
        subnet: Principal | None = None,
    ) -> SignedCall:
        """Sign a call once; `effective` is the canister whose subnet serves a management call."""
        expiry_ns = self.now_ns() + CLIENT_INGRESS_EXPIRY_NS
        content = CallContent(
            sender=self.identity.principal,
            canister_id=canister_id,
            method_name=method,
            arg=arg,
            ingress_expiry_ns=expiry_ns,
            nonce=self.nonce(),
        )
        target = effective or canister_id
        path = f"/api/v4/subnet/{subnet}/call" if subnet else f"/api/v4/canister/{target}/call"
        body = build_envelope(content, self.identity)
        return SignedCall(request_id_of(content), body, path, target, expiry_ns)

    def sign_and_call(
        self, canister_id: Principal, method: str, arg: bytes, effective: Principal | None
    ) -> Exchange[bytes]:
        """Sign a call now and have it run."""
        return self.call(self.sign_call(canister_id, method, arg, effective))

    def call(self, signed: SignedCall) -> Exchange[bytes]:
        """Have a signed call run, once, and return its reply; raise `ClientError` of every kind."""
        yield from self.trusted_root_key()
        if self.now_ns() > signed.expiry_ns:
            return (yield from self._poll(signed))
        certificate = yield from self._submit(signed)
        if certificate is not None:
            outcome = self._outcome(certificate, signed)
            if outcome is not None:
                return outcome
        return (yield from self._poll(signed))

    def _submit(self, signed: SignedCall) -> Exchange[Certificate | None]:
        """Send a call until it is taken in; None means that its answer must be polled for."""
        backoff = Backoff(self.now_ns, min(signed.expiry_ns, self.now_ns() + self.patience_ns))
        request = Send("POST", signed.path, signed.body, CBOR_HEADERS)
        arrived = False
        while True:
            result = yield from deliver(request, backoff, self.on_progress)
            if isinstance(result, Answer) and not is_transient(result):
                if result.status >= 400 and arrived and self.now_ns() > signed.expiry_ns:
                    return None
                return self._submitted(result, signed)
            arrived = arrived or not isinstance(result, Lost) or result.sent
            pause = backoff.pause(result, describe(result))
            if pause is None:
                _give_up(result, arrived)
                return None
            yield pause

    def _submitted(self, answer: Answer, signed: SignedCall) -> Certificate | None:
        if answer.status == 202:
            return None
        if answer.status >= 500:
            failure = f"the node failed (HTTP {answer.status}); the call may have run"
            raise Unreachable(failure, request_id=signed.request_id)
        if answer.status >= 300:
            raise Refused(answer.status, answer.text or f"HTTP status {answer.status}")
        fields = _decode_map(answer)
        certificate = fields.get("certificate")
        if isinstance(certificate, bytes):
            return self.verify(certificate, signed.effective)
        code, message = fields.get("reject_code"), fields.get("reject_message")
        if isinstance(code, int) and isinstance(message, str):
            error_code = fields.get("error_code")
            text = error_code if isinstance(error_code, str) else None
            raise Rejected(code, message, certified=False, error_code=text)
        raise Unverified("the node's answer to a call has neither a certificate nor a reject")

    def _outcome(self, certificate: Certificate, signed: SignedCall) -> bytes | None:
        """Read a call's settled answer out of a verified certificate; None where it is not settled yet."""
        try:
            status = read_request_status(certificate.tree, signed.request_id)
        except RequestStatusError as error:
            raise Unverified(f"the certificate does not show the call's status: {error}") from None
        match status:
            case Replied(reply):
                return reply
            case StatusRejected():
                raise Rejected(
                    status.reject_code, status.reject_message, certified=True, error_code=status.error_code
                )
            case Done():
                raise Expired(
                    "the call ran, but its answer is no longer kept", request_id=signed.request_id, ran=True
                )
            case None if certificate_time_ns(certificate) > signed.expiry_ns + INGRESS_EXPIRY_SKEW_NS:
                raise Expired("the call expired and never ran", request_id=signed.request_id, ran=False)
            case _:
                return None

    def _poll(self, signed: SignedCall) -> Exchange[bytes]:
        deadline_ns = max(self.now_ns(), signed.expiry_ns) + self.answer_wait_ns
        backoff = Backoff(self.now_ns, deadline_ns)
        while True:
            try:
                certificate = yield from self.read_state(
                    [[b"request_status", signed.request_id]],
                    signed.effective,
                    patience_ns=self.answer_wait_ns,
                )
            except Unreachable as error:
                raise Unreachable(f"{error}; the call may have run", request_id=signed.request_id) from None
            outcome = self._outcome(certificate, signed)
            if outcome is not None:
                return outcome
            pause = backoff.pause(None, "waiting for the answer")
            if pause is None:
                raise Expired(
                    "the call is still under way; its answer can be asked for later",
                    request_id=signed.request_id,
                    ran=None,
                )
            yield pause

    # --- reading ---------------------------------------------------------------------------------

    def read_state(
        self, paths: Sequence[Path], effective: Principal, patience_ns: int | None = None
    ) -> Exchange[Certificate]:
        """Read certified values; the certificate is verified, its tree may still show a path as absent."""
        yield from self.trusted_root_key()
        backoff = self._backoff(patience_ns)
        content = ReadStateContent(
            sender=self.identity.principal,
            paths=tuple(tuple(path) for path in paths),
            ingress_expiry_ns=self.now_ns() + CLIENT_INGRESS_EXPIRY_NS,
        )
        body = build_envelope(content, self.identity)
        path = f"/api/v3/canister/{effective}/read_state"
        answer = yield from ask(Send("POST", path, body, CBOR_HEADERS), backoff)
        certificate = _decode_map(answer).get("certificate")
        if not isinstance(certificate, bytes):
            raise Unverified("the node's answer to read_state has no certificate")
        return self.verify(certificate, effective)

    def verify(self, data: bytes, effective: Principal) -> Certificate:
        """Decode a certificate and verify it against the root key, for answers about `effective`."""
        assert self.root_key is not None
        try:
            certificate = decode_certificate(data)
            verify_certificate(
                certificate,
                self.root_key,
                now_ns=self.now_ns(),
                effective_canister_id=None if effective == MANAGEMENT else effective,
            )
        except CertificateError as error:
            raise Unverified(f"the certificate is not valid: {error}") from None
        return certificate

    def query(
        self, canister_id: Principal, method: str, arg: bytes, effective: Principal | None = None
    ) -> Exchange[bytes]:
        """Ask a query and return its reply, once a node of the canister's subnet has signed it."""
        target = effective or canister_id
        content = QueryContent(
            sender=self.identity.principal,
            canister_id=canister_id,
            method_name=method,
            arg=arg,
            ingress_expiry_ns=self.now_ns() + CLIENT_INGRESS_EXPIRY_NS,
            nonce=self.nonce(),
        )
        body = build_envelope(content, self.identity)
        request = Send("POST", f"/api/v3/canister/{target}/query", body, CBOR_HEADERS)
        response = yield from ask(request, self._backoff(), self.on_progress)
        try:
            answered = decode_query_response(response.body)
        except QueryResponseError as error:
            raise Unverified(f"the node's answer to a query is malformed: {error}") from None
        yield from self._verify_query(answered, request_id_of(content), target)
        answer = answered.answer
        if isinstance(answer, QueryRejected):
            raise Rejected(
                answer.reject_code, answer.reject_message, certified=False, error_code=answer.error_code
            )
        return answer.arg

    def _verify_query(self, answered: QueryResponse, request_id: bytes, target: Principal) -> Exchange[None]:
        signatures = answered.signatures
        if not signatures:
            raise Unverified("the answer to the query carries no signature")
        for fresh in (False, True):
            keys = yield from self._keys_for(target, fresh=fresh)
            if all(signature.identity.raw in keys for signature in signatures):
                break
        for signature in signatures:
            key = keys.get(signature.identity.raw)
            if key is None or not verify_query_answer(key, answered.answer, request_id, signature):
                raise Unverified("the answer to the query is not signed by a node of the canister's subnet")
            if abs(self.now_ns() - signature.timestamp_ns) > CERTIFICATE_AGE_NS_MAX:
                raise Unverified("the answer to the query is signed for another time: compare the clocks")

    def _keys_for(self, target: Principal, *, fresh: bool) -> Exchange[dict[bytes, bytes]]:
        known = None if fresh else self.node_keys.find(target, self.now_ns())
        if known is not None:
            return known
        certificate = yield from self.read_state([[b"subnet"]], target)
        root_key = yield from self.trusted_root_key()
        return self.node_keys.learn(certificate, target, root_key, self.now_ns())


def _give_up(result: Result, arrived: bool) -> None:
    """End the sending of a call at its deadline: return where it may have arrived."""
    if isinstance(result, Answer) and result.status == 429:
        raise Refused(429, result.text or describe(result))
    if not arrived:
        raise Unreachable(f"{describe(result)}; the call was never sent")


def _text(value: CborValue) -> str:
    return value if isinstance(value, str) else "unknown"


def _decode_map(answer: Answer) -> dict[str, CborValue]:
    try:
        value, _ = decode(answer.body)
    except CborError as error:
        raise Unverified(f"the node's answer is not CBOR: {error}") from None
    if not isinstance(value, dict):
        raise Unverified("the node's answer is not a CBOR map")
    return value
