"""Authentication: good proofs pass, each kind of bad one is refused with its status and words."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.limits import DELEGATION_COUNT_MAX, INGRESS_EXPIRY_SKEW_NS, INGRESS_EXPIRY_WINDOW_NS
from cannery.protocol.authentication import AuthenticationError, VerifiedDelegations, authenticate
from cannery.protocol.envelope import (
    DELEGATION_DOMAIN,
    Envelope,
    RequestContent,
    RequestKind,
    SenderInfo,
    SignedDelegation,
    build_envelope,
    parse_envelope,
)
from cannery.protocol.identity import (
    AnonymousIdentity,
    DelegatedIdentity,
    Ed25519Identity,
    Identity,
    KeyIdentity,
    Secp256k1Identity,
    delegate,
    delegated,
)
from cannery.protocol.principal import ANONYMOUS, MANAGEMENT, Principal
from cannery.protocol.representation import hash_map
from tests.protocol.requests import (
    CANISTER,
    EXPIRY_NS,
    KEYS,
    NOW_NS,
    OTHER_CANISTER,
    SECOND_NS,
    SESSION,
    call_content,
    call_fields,
    query_content,
    read_state_content,
    signed_body,
)

SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
KEY_NAMES = [type(key).__name__ for key in KEYS]
LATEST_NS = NOW_NS + INGRESS_EXPIRY_WINDOW_NS + INGRESS_EXPIRY_SKEW_NS


def envelope_of(content: RequestContent, identity: Identity, kind: RequestKind = "call") -> Envelope:
    return parse_envelope(build_envelope(content, identity), kind)


def refusal(
    envelope: Envelope, now_ns: int = NOW_NS, verified: VerifiedDelegations | None = None
) -> AuthenticationError:
    with pytest.raises(AuthenticationError) as caught:
        authenticate(envelope, now_ns, verified=verified)
    return caught.value


# --- signatures -----------------------------------------------------------------------------------


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
def test_each_kind_of_key_signs(identity: KeyIdentity) -> None:
    for content, kind in (
        (call_content(identity.principal), "call"),
        (query_content(identity.principal), "query"),
        (read_state_content(identity.principal), "read_state"),
    ):
        authority = authenticate(envelope_of(content, identity, kind), NOW_NS)  # type: ignore[arg-type]
        assert authority.sender == identity.principal
        assert authority.targets is None
        assert authority.allows(OTHER_CANISTER)


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
@settings(max_examples=25, deadline=None)
@given(place=st.integers(0, 63), bit=st.integers(0, 7))
def test_a_changed_signature_is_refused(identity: KeyIdentity, place: int, bit: int) -> None:
    envelope = envelope_of(call_content(identity.principal), identity)
    assert envelope.sender_sig is not None
    changed = bytearray(envelope.sender_sig)
    changed[place] ^= 1 << bit
    error = refusal(msgspec.structs.replace(envelope, sender_sig=bytes(changed)))
    assert error.http_status == 403
    assert "sender_sig" in str(error)


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
@pytest.mark.parametrize("signature", [b"", b"\0" * 64, b"\xff" * 64, b"\0" * 63, b"\0" * 65, b"x" * 5000])
def test_malformed_signatures_are_wrong_ones(identity: KeyIdentity, signature: bytes) -> None:
    envelope = envelope_of(call_content(identity.principal), identity)
    assert refusal(msgspec.structs.replace(envelope, sender_sig=signature)).http_status == 403


@pytest.mark.parametrize("identity", KEYS, ids=KEY_NAMES)
@pytest.mark.parametrize("field", ["method_name", "arg", "canister_id", "nonce", "ingress_expiry", "later"])
def test_a_changed_content_is_refused(identity: KeyIdentity, field: str) -> None:
    content = call_fields(identity.principal) | {"nonce": b"1", "later": b"1"}
    body = cbor2.loads(signed_body(content, identity))
    authenticate(parse_envelope(cbor2.dumps(body), "call"), NOW_NS)
    value = body["content"][field]
    body["content"][field] = value + 1 if isinstance(value, int) else value + type(value)(value[:1])
    assert refusal(parse_envelope(cbor2.dumps(body), "call")).http_status == 403


@pytest.mark.parametrize(("identity", "order"), [(KEYS[1], SECP256K1_ORDER), (KEYS[2], P256_ORDER)])
def test_both_values_of_s_are_taken(identity: KeyIdentity, order: int) -> None:
    envelope = envelope_of(call_content(identity.principal), identity)
    assert envelope.sender_sig is not None
    r, s = envelope.sender_sig[:32], int.from_bytes(envelope.sender_sig[32:], "big")
    mirrored = r + (order - s).to_bytes(32, "big")
    authenticate(msgspec.structs.replace(envelope, sender_sig=mirrored), NOW_NS)


def test_the_key_must_be_the_senders() -> None:
    envelope = envelope_of(call_content(KEYS[0].principal), KEYS[0])
    error = refusal(msgspec.structs.replace(envelope, sender_pubkey=KEYS[1].public_key_der))
    assert error.http_status == 403
    assert "sender_pubkey" in str(error)


@pytest.mark.parametrize("field", ["sender_pubkey", "sender_sig"])
def test_key_and_signature_must_be_there(field: str) -> None:
    envelope = envelope_of(call_content(KEYS[0].principal), KEYS[0])
    error = refusal(msgspec.structs.replace(envelope, **{field: None}))
    assert error.http_status == 400
    assert field in str(error)


def test_a_key_that_is_none_is_refused() -> None:
    der = b"\x30\x03\x01\x01\x00"
    sender = Principal.self_authenticating(der)
    body = cbor2.dumps({"content": call_fields(sender), "sender_pubkey": der, "sender_sig": b""})
    error = refusal(parse_envelope(body, "call"))
    assert error.http_status == 400
    assert "public key" in str(error)


def test_a_canister_that_is_named_as_sender_has_no_key() -> None:
    body = signed_body(call_fields(CANISTER), KEYS[0])
    assert refusal(parse_envelope(body, "call")).http_status == 403


def test_sender_info_belongs_to_canister_signatures() -> None:
    content = call_content(KEYS[0].principal, sender_info=SenderInfo(b"", CANISTER, b""))
    error = refusal(envelope_of(content, KEYS[0]))
    assert error.http_status == 400
    assert "sender_info" in str(error)


# --- the anonymous --------------------------------------------------------------------------------


@pytest.mark.parametrize("expiry_ns", [0, NOW_NS, 2**64 - 1])
def test_anonymous_reads_need_no_expiry(expiry_ns: int) -> None:
    anonymous = AnonymousIdentity()
    query = query_content(ANONYMOUS, ingress_expiry_ns=expiry_ns)
    assert authenticate(envelope_of(query, anonymous, "query"), NOW_NS).sender == ANONYMOUS
    authenticate(envelope_of(read_state_content(ANONYMOUS, expiry_ns), anonymous, "read_state"), NOW_NS)


@pytest.mark.parametrize("expiry_ns", [NOW_NS - 1, LATEST_NS + 1])
def test_anonymous_calls_expire(expiry_ns: int) -> None:
    content = call_content(ANONYMOUS, ingress_expiry_ns=expiry_ns)
    assert "Invalid request expiry: " in str(refusal(envelope_of(content, AnonymousIdentity())))


@pytest.mark.parametrize(
    "extra",
    [
        {"sender_pubkey": KEYS[0].public_key_der},
        {"sender_sig": b"x" * 64},
        {"delegations": (delegate(KEYS[0], SESSION.public_key_der, EXPIRY_NS),)},
    ],
    ids=lambda extra: next(iter(extra)),
)
def test_the_anonymous_carries_no_proof(extra: dict[str, bytes]) -> None:
    envelope = envelope_of(call_content(ANONYMOUS), AnonymousIdentity())
    authenticate(envelope, NOW_NS)
    error = refusal(msgspec.structs.replace(envelope, **extra))
    assert error.http_status == 400
    assert "anonymous" in str(error)


def test_the_anonymous_has_no_sender_info() -> None:
    content = call_content(ANONYMOUS, sender_info=SenderInfo(b"", CANISTER, b""))
    assert refusal(envelope_of(content, AnonymousIdentity())).http_status == 400


# --- expiry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("expiry_ns", [NOW_NS, NOW_NS + 1, LATEST_NS])
def test_expiry_within_the_window(expiry_ns: int) -> None:
    content = call_content(KEYS[0].principal, ingress_expiry_ns=expiry_ns)
    authenticate(envelope_of(content, KEYS[0]), NOW_NS)


@pytest.mark.parametrize("kind", ["call", "query", "read_state"])
@pytest.mark.parametrize("expiry_ns", [0, NOW_NS - 1, LATEST_NS + 1, 2**64 - 1])
def test_expiry_outside_the_window(expiry_ns: int, kind: RequestKind) -> None:
    sender = KEYS[0].principal
    content: RequestContent
    if kind == "call":
        content = call_content(sender, ingress_expiry_ns=expiry_ns)
    elif kind == "query":
        content = query_content(sender, ingress_expiry_ns=expiry_ns)
    else:
        content = read_state_content(sender, expiry_ns)
    error = refusal(envelope_of(content, KEYS[0], kind))
    assert error.http_status == 400
    assert "Invalid request expiry: " in str(error)


# --- delegations ----------------------------------------------------------------------------------


def chain_of(length: int, expiration_ns: int = EXPIRY_NS) -> Identity:
    identity: Identity = KEYS[1]
    for number in range(length):
        identity = delegated(identity, Ed25519Identity(bytes([100 + number]) * 32), expiration_ns)
    return identity


@pytest.mark.parametrize("owner", KEYS, ids=KEY_NAMES)
@pytest.mark.parametrize("session", [SESSION, Secp256k1Identity(b"\x55" * 32)], ids=["ed25519", "secp256k1"])
def test_a_session_signs_for_its_owner(owner: KeyIdentity, session: KeyIdentity) -> None:
    identity = delegated(owner, session, EXPIRY_NS)
    authority = authenticate(envelope_of(call_content(owner.principal), identity), NOW_NS)
    assert authority.sender == owner.principal
    assert authority.targets is None


@pytest.mark.parametrize("length", [1, 2, DELEGATION_COUNT_MAX])
def test_chains_up_to_the_limit(length: int) -> None:
    identity = chain_of(length)
    authenticate(envelope_of(call_content(KEYS[1].principal), identity), NOW_NS)


@pytest.mark.parametrize("length", [1, 3])
def test_no_link_may_be_missing_or_moved(length: int) -> None:
    envelope = envelope_of(call_content(KEYS[1].principal), chain_of(length))
    for place in range(length):
        rest = envelope.delegations[:place] + envelope.delegations[place + 1 :]
        assert refusal(msgspec.structs.replace(envelope, delegations=rest)).http_status == 403
    if length > 1:
        turned = envelope.delegations[::-1]
        assert refusal(msgspec.structs.replace(envelope, delegations=turned)).http_status == 403


@pytest.mark.parametrize("verified", [None, VerifiedDelegations()], ids=["plain", "remembered"])
def test_a_delegation_ends(verified: VerifiedDelegations | None) -> None:
    identity = delegated(KEYS[0], SESSION, NOW_NS + SECOND_NS)
    envelope = envelope_of(call_content(KEYS[0].principal), identity)
    authenticate(envelope, NOW_NS, verified=verified)
    authenticate(envelope, NOW_NS + SECOND_NS, verified=verified)
    error = refusal(envelope, NOW_NS + SECOND_NS + 1, verified)
    assert error.http_status == 403
    assert "expired" in str(error)


def test_targets_limit_calls_and_queries() -> None:
    identity = delegated(KEYS[0], SESSION, EXPIRY_NS, [CANISTER])
    sender = KEYS[0].principal
    assert authenticate(envelope_of(call_content(sender), identity), NOW_NS).targets == frozenset({CANISTER})
    for other in (OTHER_CANISTER, MANAGEMENT):
        error = refusal(envelope_of(call_content(sender, canister_id=other), identity))
        assert error.http_status == 403
        assert str(other) in str(error)
        refusal(envelope_of(query_content(sender, canister_id=other), identity, "query"))


def test_targets_of_a_chain_intersect() -> None:
    first = delegated(KEYS[0], SESSION, EXPIRY_NS, [CANISTER, OTHER_CANISTER])
    second = delegated(first, Ed25519Identity(b"\x66" * 32), EXPIRY_NS)
    third = delegated(second, Ed25519Identity(b"\x77" * 32), EXPIRY_NS, [OTHER_CANISTER, MANAGEMENT])
    envelope = envelope_of(read_state_content(KEYS[0].principal), third, "read_state")
    authority = authenticate(envelope, NOW_NS)
    assert authority.targets == frozenset({OTHER_CANISTER})
    assert authority.allows(OTHER_CANISTER)
    assert not authority.allows(CANISTER)
    refusal(envelope_of(call_content(KEYS[0].principal), third))


def test_empty_targets_allow_nothing() -> None:
    identity = delegated(KEYS[0], SESSION, EXPIRY_NS, [])
    assert refusal(envelope_of(call_content(KEYS[0].principal), identity)).http_status == 403


def test_permissions() -> None:
    sender = KEYS[0].principal
    reader = delegated(KEYS[0], SESSION, EXPIRY_NS, permissions="queries")
    error = refusal(envelope_of(call_content(sender), reader))
    assert error.http_status == 403
    assert "queries" in str(error)
    authenticate(envelope_of(query_content(sender), reader, "query"), NOW_NS)
    authenticate(envelope_of(read_state_content(sender), reader, "read_state"), NOW_NS)
    writer = delegated(KEYS[0], SESSION, EXPIRY_NS, permissions="all")
    authenticate(envelope_of(call_content(sender), writer), NOW_NS)
    # A later link cannot give back what an earlier one withheld.
    prolonged = delegated(reader, Ed25519Identity(b"\x66" * 32), EXPIRY_NS, permissions="all")
    refusal(envelope_of(call_content(sender), prolonged))


def test_cycles_are_refused() -> None:
    first, second = KEYS[0], SESSION
    links: tuple[SignedDelegation, ...] = (
        delegate(first, second.public_key_der, EXPIRY_NS),
        delegate(second, first.public_key_der, EXPIRY_NS),
    )
    for chain, signer in ((links, first), ((delegate(first, first.public_key_der, EXPIRY_NS),), first)):
        identity = DelegatedIdentity(signer, chain, first.public_key_der)
        error = refusal(envelope_of(call_content(first.principal), identity))
        assert error.http_status == 400
        assert "cycle" in str(error)


def test_a_delegation_cannot_be_widened() -> None:
    identity = delegated(KEYS[0], SESSION, EXPIRY_NS, [CANISTER], "queries")
    body = cbor2.loads(build_envelope(query_content(KEYS[0].principal), identity, tagged=False))
    authenticate(parse_envelope(cbor2.dumps(body), "query"), NOW_NS)
    widened = {"targets": None, "expiration": EXPIRY_NS + 1, "permissions": "all", "later": b""}
    for field, value in widened.items():
        changed = cbor2.loads(cbor2.dumps(body))
        changed["sender_delegation"][0]["delegation"][field] = value
        assert refusal(parse_envelope(cbor2.dumps(changed), "query")).http_status == 403


def test_unknown_fields_of_a_delegation_are_signed() -> None:
    # A field that a later version of the interface adds is part of what the delegator signed.
    fields = {"pubkey": SESSION.public_key_der, "expiration": EXPIRY_NS, "later": b"x"}
    link = {"delegation": fields, "signature": KEYS[0].sign(DELEGATION_DOMAIN + hash_map(fields))}
    body = cbor2.loads(signed_body(call_fields(KEYS[0].principal), SESSION, sender_delegation=[link]))
    body["sender_pubkey"] = KEYS[0].public_key_der
    authenticate(parse_envelope(cbor2.dumps(body), "call"), NOW_NS)


# --- remembered delegations -----------------------------------------------------------------------


def test_only_right_signatures_are_remembered() -> None:
    verified = VerifiedDelegations()
    envelope = envelope_of(call_content(KEYS[1].principal), chain_of(3))
    authenticate(envelope, NOW_NS, verified=verified)
    assert len(verified) == 3
    authenticate(envelope, NOW_NS, verified=verified)
    assert len(verified) == 3
    forged = msgspec.structs.replace(envelope.delegations[2], signature=b"\1" * 64)
    chain = (*envelope.delegations[:2], forged)
    assert refusal(msgspec.structs.replace(envelope, delegations=chain), verified=verified).http_status == 403
    assert len(verified) == 3


def test_a_remembered_link_does_not_serve_another_delegator() -> None:
    verified = VerifiedDelegations()
    authenticate(
        envelope_of(call_content(KEYS[0].principal), delegated(KEYS[0], SESSION, EXPIRY_NS)),
        NOW_NS,
        verified=verified,
    )
    link = delegate(KEYS[0], SESSION.public_key_der, EXPIRY_NS)
    stolen = DelegatedIdentity(SESSION, (link,), KEYS[1].public_key_der)
    envelope = envelope_of(call_content(KEYS[1].principal), stolen)
    assert refusal(envelope, verified=verified).http_status == 403


def test_memory_is_bounded() -> None:
    verified = VerifiedDelegations(2)
    for key in (b"a", b"b", b"c"):
        verified.add(key)
    assert len(verified) == 2
    assert not verified.knows(b"a")
    assert verified.knows(b"b")
    assert verified.knows(b"c")
