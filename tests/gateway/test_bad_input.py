"""Bad input over HTTP: each kind gets the status the interface names and a text that says what to do."""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx
import pytest

from cannery.candid.codec import encoder
from cannery.candid.text import parse_values
from cannery.protocol import cbor
from cannery.protocol.envelope import (
    CallContent,
    QueryContent,
    ReadStateContent,
    SenderInfo,
    SignedDelegation,
)
from cannery.protocol.identity import Ed25519Identity, Identity, Secp256k1Identity, delegate, delegated
from cannery.protocol.principal import MANAGEMENT, Principal
from tests.gateway.conftest import (
    ALICE,
    BOB,
    CANISTER,
    MINUTE_NS,
    NOBODY,
    SUBNET,
    Node,
    call_content,
    envelope,
    expiry_ns,
    nonce,
    query_content,
)

CALL = f"/api/v4/canister/{CANISTER}/call"
QUERY = f"/api/v3/canister/{CANISTER}/query"
READ = f"/api/v3/canister/{CANISTER}/read_state"
OTHER = Principal((0x100001).to_bytes(8, "big") + b"\x01\x01")
FAR = Principal((1 << 41).to_bytes(8, "big") + b"\x01\x01")


def _refused(response: httpx.Response, status: int, text: str) -> None:
    assert (response.status_code, response.headers["content-type"]) == (status, "text/plain; charset=utf-8")
    assert text in response.text
    assert response.headers["access-control-allow-origin"] == "*"


# --- paths, methods, types ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", "/", 404, "There is: GET /api/v2/status"),
        ("GET", "/api", 404, "nothing is served"),
        ("GET", "/api/v2/status/", 404, "nothing is served"),
        ("GET", "/api/v3/status", 404, "nothing is served"),
        ("POST", "/api/v2/status", 405, "takes GET, HEAD, OPTIONS, not POST"),
        ("GET", CALL, 405, "takes POST, OPTIONS, not GET"),
        ("PUT", CALL, 405, "not PUT"),
        ("DELETE", f"/cannery/body/{'00' * 32}", 405, "GET, HEAD, PATCH"),
        ("POST", f"/api/v5/canister/{CANISTER}/call", 404, "use v2, v3, v4"),
        ("POST", f"/api/v4/canister/{CANISTER}/query", 404, "use v2, v3"),
        ("POST", f"/api/v2/subnet/{SUBNET}/call", 404, "use v4"),
        ("POST", f"/api/v4/canister/{CANISTER}/burn", 404, "nothing is served"),
        ("POST", f"/api/v4/node/{CANISTER}/call", 404, "nothing is served"),
        ("POST", "/api/v4/canister/nonsense/call", 400, "is not a principal"),
        ("POST", "/api/v4/canister//call", 400, "is not a principal"),
        ("POST", "/api/v4/canister/rrkah-fqaaa-aaaaa-aaaaq-cat/call", 400, "checksum"),
        ("POST", "/" + "a" * 600, 414, "longer"),
        ("GET", "/cannery/body/xyz", 400, "64 hexadecimal digits"),
        ("GET", "/%ff%00", 404, "nothing is served"),
    ],
)
def test_paths_and_methods(node: Node, method: str, path: str, status: int, text: str) -> None:
    response = node.http.request(method, path)
    _refused(response, status, text)
    if status == 405:
        assert "OPTIONS" in response.headers["allow"]


def test_the_body_must_be_cbor_and_plain(node: Node) -> None:
    body = envelope(call_content("echo"))
    _refused(node.post(CALL, body, {"content-type": "application/json"}), 415, "application/cbor")
    _refused(node.post(CALL, body, {"content-encoding": "gzip"}), 415, "without Content-Encoding")
    assert node.post(CALL, body, {"content-type": "application/cbor; charset=utf-8"}).status_code == 200
    assert node.http.post(CALL, content=body).status_code == 200


# --- envelopes ------------------------------------------------------------------------------------


def _fields(**changes: cbor.CborSource) -> dict[str, cbor.CborSource]:
    fields: dict[str, cbor.CborSource] = {
        "request_type": "call",
        "sender": b"\x04",
        "canister_id": CANISTER.raw,
        "method_name": "echo",
        "arg": b"",
        "ingress_expiry": time.time_ns() + 4 * MINUTE_NS,
    }
    return {name: value for name, value in (fields | changes).items() if value is not None}


def _anonymous(**changes: cbor.CborSource) -> bytes:
    return cbor.encode({"content": _fields(**changes)}, self_describe=True)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "not a request"),
        (b"\xff", "not a request"),
        (b"hello", "not a request"),
        (_anonymous()[:-1], "not a request"),
        (_anonymous() + b"\x00", "1 bytes follow"),
        (b"\x81" * 100_000, "not a request"),
        (b"\xd9\xd9\xf7" * 50 + b"\xa0", "not a request"),
        (b"\xa1\x67content" * 5_000 + b"\xa0", "not a request"),
        (b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff", "not a request"),
        (b"\x5b\xff\xff\xff\xff\xff\xff\xff\xff", "not a request"),
        (b"\xa2\x67content\xa0\x67content\xa0", "not a request"),
        (b"\xa0", "content"),
        (b"\xa1\x67content\x01", "content"),
        (b"\xa1\x00\x01", "map key"),
        (_anonymous(request_type="query"), 'takes requests of type "call" only'),
        (_anonymous(sender=None), "content.sender: the field is missing"),
        (_anonymous(sender="2vxsx-fae"), "content.sender: send a blob"),
        (_anonymous(sender=bytes(30)), "at most 29 bytes"),
        (_anonymous(canister_id=None), "content.canister_id: the field is missing"),
        (_anonymous(method_name=7), "content.method_name"),
        (_anonymous(arg="text"), "content.arg"),
        (_anonymous(ingress_expiry=-1), "content.ingress_expiry"),
        (_anonymous(ingress_expiry=2**64), "content.ingress_expiry"),
        (_anonymous(nonce=bytes(33)), "nonce"),
        (_anonymous(extra=1.5), "content"),
    ],
)
def test_what_is_no_envelope(node: Node, body: bytes, text: str) -> None:
    _refused(node.post(CALL, body), 400, text)


def test_fields_may_be_added_by_later_specifications(node: Node) -> None:
    assert node.post(CALL, _anonymous(later="field")).status_code == 200


# --- proofs ---------------------------------------------------------------------------------------


def _signed(content: CallContent, who: Identity, **changes: cbor.CborSource) -> bytes:
    fields, _ = cbor.decode(envelope(content, who))
    assert isinstance(fields, dict)
    merged: dict[str, cbor.CborSource] = {**fields, **changes}
    return cbor.encode({k: v for k, v in merged.items() if v is not None}, self_describe=True)


def test_signatures(node: Node) -> None:
    content = call_content("echo")
    _refused(node.post(CALL, _signed(content, ALICE, sender_sig=bytes(64))), 403, "not the signature")
    _refused(node.post(CALL, _signed(content, ALICE, sender_sig=b"")), 403, "not the signature")
    _refused(node.post(CALL, _signed(content, ALICE, sender_sig=None)), 400, "must sign")
    _refused(node.post(CALL, _signed(content, ALICE, sender_pubkey=None)), 400, "must sign")
    _refused(
        node.post(CALL, _signed(content, ALICE, sender_pubkey=BOB.public_key_der)), 403, "does not belong"
    )
    _refused(node.post(CALL, _signed(content, ALICE, sender_pubkey=b"\x30\x00")), 403, "does not belong")
    anonymous = CallContent(NOBODY.principal, CANISTER, "echo", b"", expiry_ns())
    _refused(node.post(CALL, _signed(anonymous, NOBODY, sender_sig=bytes(64))), 400, "leave them out")


def test_a_signature_over_another_request(node: Node) -> None:
    good, _ = cbor.decode(envelope(call_content("echo", b"one")))
    assert isinstance(good, dict)
    body = _signed(call_content("echo", b"two"), ALICE, sender_sig=good["sender_sig"])
    _refused(node.post(CALL, body), 403, "not the signature")


def test_a_key_that_cannot_be_used(node: Node) -> None:
    weak = b"\x30\x03\x01\x01\xff"
    sender = Principal.self_authenticating(weak)
    content = CallContent(sender, CANISTER, "echo", b"", expiry_ns())
    fields: dict[str, cbor.CborSource] = {
        "content": _fields(sender=sender.raw, ingress_expiry=content.ingress_expiry_ns),
        "sender_pubkey": weak,
        "sender_sig": bytes(64),
    }
    _refused(node.post(CALL, cbor.encode(fields, self_describe=True)), 400, "cannot be used")


@pytest.mark.parametrize(
    ("offset_ns", "accepted"),
    [
        (-MINUTE_NS, False),
        (-1, False),
        (10 * 10**9, True),
        (5 * MINUTE_NS + 50 * 10**9, True),
        (6 * MINUTE_NS + 5 * 10**9, False),
        (60 * MINUTE_NS, False),
    ],
)
def test_expiry(node: Node, offset_ns: int, accepted: bool) -> None:
    for who in (ALICE, NOBODY):
        content = CallContent(who.principal, CANISTER, "echo", b"", time.time_ns() + offset_ns)
        response = node.post(CALL, envelope(content, who))
        if accepted:
            assert response.status_code == 200
        else:
            _refused(response, 400, "Invalid request expiry: ")


def test_expiry_of_queries_and_reads(node: Node) -> None:
    old = time.time_ns() - 1
    for path, content in (
        (QUERY, QueryContent(ALICE.principal, CANISTER, "echo", b"", old)),
        (READ, ReadStateContent(ALICE.principal, ((b"time",),), old)),
    ):
        _refused(node.post(path, envelope(content)), 400, "Invalid request expiry: ")
    anonymous = ReadStateContent(NOBODY.principal, ((b"time",),), 0)
    assert node.post(READ, envelope(anonymous, NOBODY)).status_code == 200


def test_sender_info_is_for_canister_signatures_only(node: Node) -> None:
    info = SenderInfo(b"info", CANISTER, b"sig")
    content = CallContent(ALICE.principal, CANISTER, "echo", b"", expiry_ns(), None, info)
    _refused(node.post(CALL, envelope(content)), 400, "sender_info")


# --- delegations ----------------------------------------------------------------------------------

SESSION = Ed25519Identity(bytes(31) + b"\x31")
# The chains below are made when the tests are collected, and used when their turn comes.
DELEGATED_UNTIL_NS = time.time_ns() + 24 * 60 * MINUTE_NS


@dataclass(frozen=True)
class Chain:
    """A chain of delegations and what a call, a query and a read with it get."""

    name: str
    who: Identity
    call: int
    query: int
    text: str = ""


@dataclass(frozen=True)
class Careless:
    """An identity that carries whatever chain it is given."""

    session: Ed25519Identity
    delegations: tuple[SignedDelegation, ...]
    principal: Principal = ALICE.principal
    public_key_der: bytes = ALICE.public_key_der

    def sign(self, message: bytes) -> bytes:
        return self.session.sign(message)


def _long_chain(count: int) -> Identity:
    links, signer = [], ALICE
    for number in range(count):
        session = Ed25519Identity(bytes(30) + bytes([1, number]))
        links.append(delegate(signer, session.public_key_der, DELEGATED_UNTIL_NS))
        signer = session
    return Careless(signer, tuple(links))


def _cycle() -> Identity:
    return delegated(delegated(ALICE, SESSION, DELEGATED_UNTIL_NS), ALICE, DELEGATED_UNTIL_NS)


CHAINS = [
    Chain("plain", delegated(ALICE, SESSION, DELEGATED_UNTIL_NS), 200, 200),
    Chain("target", delegated(ALICE, SESSION, DELEGATED_UNTIL_NS, [CANISTER]), 200, 200),
    Chain(
        "other target",
        delegated(ALICE, SESSION, DELEGATED_UNTIL_NS, [OTHER]),
        403,
        403,
        "delegation's targets",
    ),
    Chain("no target", delegated(ALICE, SESSION, DELEGATED_UNTIL_NS, []), 403, 403, "delegation's targets"),
    Chain(
        "too many targets",
        delegated(ALICE, SESSION, DELEGATED_UNTIL_NS, [CANISTER] * 1001),
        400,
        400,
        "targets",
    ),
    Chain("expired", delegated(ALICE, SESSION, time.time_ns() - 1), 403, 403, "has expired"),
    Chain(
        "queries only",
        delegated(ALICE, SESSION, DELEGATED_UNTIL_NS, None, "queries"),
        403,
        200,
        "permits queries only",
    ),
    Chain("twenty", _long_chain(20), 200, 200),
    Chain("twenty-one", _long_chain(21), 400, 400, "at most 20"),
    Chain("cycle", _cycle(), 400, 400, "cycle"),
]


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_delegations(node: Node, chain: Chain) -> None:
    call = node.post(CALL, envelope(call_content("echo", who=chain.who), chain.who))
    query = node.post(QUERY, envelope(query_content("echo", who=chain.who), chain.who))
    assert (call.status_code, query.status_code) == (chain.call, chain.query)
    for response in (call, query):
        if response.status_code != 200:
            _refused(response, response.status_code, chain.text)


def test_a_delegation_signed_by_a_stranger(node: Node) -> None:
    stolen = delegated(BOB, SESSION, expiry_ns())
    content = call_content("echo", who=stolen)
    body = _signed(content, stolen, sender_pubkey=ALICE.public_key_der)
    _refused(node.post(CALL, body), 403, "does not belong")
    forged = _signed(
        CallContent(ALICE.principal, CANISTER, "echo", b"", expiry_ns()), ALICE, **_delegation_of(stolen)
    )
    _refused(node.post(CALL, forged), 403, "not signed by the key before it")


def _delegation_of(who: Identity) -> dict[str, cbor.CborSource]:
    fields, _ = cbor.decode(envelope(call_content("echo", who=who), who))
    assert isinstance(fields, dict)
    return {"sender_delegation": fields["sender_delegation"]}


# --- effective ids --------------------------------------------------------------------------------


def _candid(text: str) -> bytes:
    types, values = parse_values(text)
    return encoder(tuple(types))(values)


ABOUT = _candid(f'(record {{ canister_id = principal "{CANISTER}" }})')


@pytest.mark.parametrize(
    ("place", "callee", "method", "arg", "text"),
    [
        (f"canister/{OTHER}", CANISTER, "echo", b"", "the URL names canister"),
        (f"canister/{FAR}", FAR, "echo", b"", "not in this node's canister ranges"),
        ("canister/aaaaa-aa", CANISTER, "echo", b"", "the URL names canister aaaaa-aa"),
        (f"canister/{OTHER}", MANAGEMENT, "canister_status", ABOUT, f"is about canister {CANISTER}"),
        ("canister/aaaaa-aa", MANAGEMENT, "canister_status", ABOUT, "must name that canister"),
        (f"canister/{FAR}", MANAGEMENT, "canister_status", ABOUT, "not in this node's canister ranges"),
        (f"subnet/{SUBNET}", CANISTER, "echo", b"", "a subnet URL takes only"),
        (f"subnet/{SUBNET}", MANAGEMENT, "canister_status", ABOUT, "a subnet URL takes only"),
        (f"subnet/{OTHER}", MANAGEMENT, "create_canister", b"", f"this node's subnet is {SUBNET}"),
    ],
)
def test_the_url_must_fit_the_call(
    node: Node, place: str, callee: Principal, method: str, arg: bytes, text: str
) -> None:
    content = CallContent(ALICE.principal, callee, method, arg, expiry_ns())
    _refused(node.post(f"/api/v4/{place}/call", envelope(content)), 400, text)


@pytest.mark.parametrize(
    ("place", "method", "arg"),
    [
        (f"canister/{CANISTER}", "canister_status", ABOUT),
        (f"canister/{CANISTER}", "canister_status", b"nonsense"),
        ("canister/aaaaa-aa", "create_canister", b""),
        (f"canister/{CANISTER}", "create_canister", b""),
        ("canister/aaaaa-aa", "provisional_create_canister_with_cycles", b""),
        ("canister/aaaaa-aa", "cannery_operator_add", b""),
        (f"subnet/{SUBNET}", "create_canister", b""),
    ],
)
def test_calls_of_the_management_canister_reach_the_subnet(
    node: Node, place: str, method: str, arg: bytes
) -> None:
    content = CallContent(ALICE.principal, MANAGEMENT, method, arg, expiry_ns())
    assert node.post(f"/api/v4/{place}/call", envelope(content)).status_code == 200
    assert node.script.submitted[-1].method == method


def test_a_subnets_canisters_can_be_listed(node: Node) -> None:
    content = QueryContent(ALICE.principal, MANAGEMENT, "list_canisters", b"", expiry_ns())
    path = f"/api/v3/subnet/{SUBNET}/query"
    assert node.post(path, envelope(content)).status_code == 200
    other = QueryContent(ALICE.principal, MANAGEMENT, "raw_rand", b"", expiry_ns())
    _refused(node.post(path, envelope(other)), 400, "a subnet URL takes only list_canisters")


def test_reads_of_a_strange_place(node: Node) -> None:
    _refused(node.read((b"time",), place=f"canister/{FAR}"), 400, "not in this node's canister ranges")
    _refused(node.read((b"time",), place=f"subnet/{OTHER}"), 400, "this node's subnet is")


def test_keys_of_several_kinds_are_checked(node: Node) -> None:
    who = Secp256k1Identity(bytes(31) + b"\x05")
    content = call_content("echo", who=who)
    _refused(node.post(CALL, _signed(content, who, sender_sig=bytes(64))), 403, "not the signature")
    _refused(node.post(CALL, _signed(content, who, sender_sig=bytes(63))), 403, "not the signature")


def test_a_bug_is_a_logged_500(node: Node) -> None:
    _refused(node.query("bug"), 500, "the node has a fault")


def test_nobody_signs_as_the_management_canister(node: Node) -> None:
    """The node itself asks indexes as that one: whoever could sign so would be taken for the node."""
    liar = Careless(ALICE, (), MANAGEMENT)
    for content in (
        QueryContent(MANAGEMENT, CANISTER, "echo", b"", expiry_ns(), nonce()),
        CallContent(MANAGEMENT, CANISTER, "echo", b"", expiry_ns(), nonce()),
    ):
        verb = "query" if isinstance(content, QueryContent) else "call"
        signed = envelope(content, liar)
        bare = cbor.encode({"content": cbor_content(signed)}, self_describe=True)
        for body in (signed, bare):
            response = node.post(f"/api/v3/canister/{CANISTER}/{verb}", body)
            assert response.status_code in (400, 403), response.text
    reached = [
        message for message in (*node.script.asked, *node.script.submitted) if message.method == "echo"
    ]
    assert MANAGEMENT.raw not in {message.sender for message in reached}


def cbor_content(body: bytes) -> cbor.CborSource:
    """Give the content of an envelope without its signature."""
    fields, _ = cbor.decode(body)
    assert isinstance(fields, dict)
    return fields["content"]
