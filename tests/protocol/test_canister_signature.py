"""Canister signatures: a canister of our own signs a request, and each broken part of the proof counts."""

from __future__ import annotations

from hashlib import sha256

import cbor2
import pytest

from cannery.protocol.authentication import SENDER_INFO_DOMAIN, AuthenticationError, authenticate
from cannery.protocol.bls import BlsKey
from cannery.protocol.canister_signature import verify_canister_signature
from cannery.protocol.certificate import (
    CertificateDelegation,
    build_certificate,
    encode_canister_ranges,
    encode_certificate,
)
from cannery.protocol.envelope import REQUEST_DOMAIN, SenderInfo, parse_envelope
from cannery.protocol.hash_tree import LabelledData, build_tree, encode_tree
from cannery.protocol.principal import Principal
from cannery.protocol.public_key import ALGORITHM_CANISTER, CanisterKey, encode_public_key
from cannery.protocol.representation import hash_map
from tests.protocol.requests import CANISTER, NOW_NS, OTHER_CANISTER, call_fields

ROOT = BlsKey.from_seed(b"root" * 8)
SUBNET = BlsKey.from_seed(b"subnet" * 8)
SUBNET_ID = Principal.self_authenticating(SUBNET.public_key_der)
SEED = b"user 7"
KEY = CanisterKey(CANISTER, SEED)
KEY_DER = encode_public_key(ALGORITHM_CANISTER, bytes([len(CANISTER.raw)]) + CANISTER.raw + SEED)
SENDER = Principal.self_authenticating(KEY_DER)


def sign(
    message: bytes,
    *,
    canister_id: Principal = CANISTER,
    leaf: bytes = b"",
    delegation: CertificateDelegation | None = None,
) -> bytes:
    """Sign as the canister does: put the message's hash into certified data and show both trees."""
    own = build_tree({b"sig": {sha256(SEED).digest(): {sha256(message).digest(): leaf}}})
    state = build_tree({b"canister": {canister_id.raw: {b"certified_data": own.digest}}, b"time": b"\x07"})
    key = ROOT if delegation is None else SUBNET
    certificate = encode_certificate(build_certificate(state, key, delegation))
    return _assertion(certificate, own_tree=cbor2.loads(encode_tree(own)))


def _assertion(certificate: bytes, own_tree: object) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(55799, {"certificate": certificate, "tree": own_tree}))


def test_a_canister_signs() -> None:
    assert verify_canister_signature(KEY, b"message", sign(b"message"), ROOT.public_key_der)


def test_each_part_of_the_proof_counts() -> None:
    root = ROOT.public_key_der
    assert not verify_canister_signature(KEY, b"other", sign(b"message"), root)
    assert not verify_canister_signature(CanisterKey(CANISTER, b"user 8"), b"message", sign(b"message"), root)
    assert not verify_canister_signature(
        CanisterKey(OTHER_CANISTER, SEED), b"message", sign(b"message"), root
    )
    assert not verify_canister_signature(KEY, b"message", sign(b"message", canister_id=OTHER_CANISTER), root)
    assert not verify_canister_signature(KEY, b"message", sign(b"message", leaf=b"x"), root)
    assert not verify_canister_signature(KEY, b"message", sign(b"message"), SUBNET.public_key_der)
    other_tree = _assertion(cbor2.loads(sign(b"message"))["certificate"], [3, b""])
    assert not verify_canister_signature(KEY, b"message", other_tree, root)
    for malformed in (b"", b"\x01", cbor2.dumps({}), cbor2.dumps({"certificate": b"", "tree": [0]})):
        assert not verify_canister_signature(KEY, b"message", malformed, root)


@pytest.mark.parametrize(
    ("kind", "low", "accepted"),
    [
        (b"application", CANISTER, True),
        (b"cloud_engine", CANISTER, False),
        (None, CANISTER, False),
        (b"application", OTHER_CANISTER, False),
    ],
)
def test_a_delegated_subnet_must_hold_the_canister(
    kind: bytes | None, low: Principal, accepted: bool
) -> None:
    subnet: dict[bytes, LabelledData] = {
        b"public_key": SUBNET.public_key_der,
        b"canister_ranges": encode_canister_ranges([(low, low)]),
    }
    if kind is not None:
        subnet[b"type"] = kind
    tree = build_tree({b"subnet": {SUBNET_ID.raw: subnet}, b"time": b"\x07"})
    delegation = CertificateDelegation(SUBNET_ID, encode_certificate(build_certificate(tree, ROOT)))
    signature = sign(b"message", delegation=delegation)
    assert verify_canister_signature(KEY, b"message", signature, ROOT.public_key_der) is accepted


def _body(info: SenderInfo | None = None) -> bytes:
    content = call_fields(SENDER)
    if info is not None:
        content["sender_info"] = {"info": info.info, "signer": info.signer.raw, "sig": info.sig}
    signature = sign(REQUEST_DOMAIN + hash_map(content))
    return cbor2.dumps({"content": content, "sender_pubkey": KEY_DER, "sender_sig": signature})


def test_a_request_under_a_canister_signature() -> None:
    envelope = parse_envelope(_body(), "call")
    assert authenticate(envelope, NOW_NS, root_key=ROOT.public_key_der).sender == SENDER
    with pytest.raises(AuthenticationError):
        authenticate(envelope, NOW_NS, root_key=SUBNET.public_key_der)
    with pytest.raises(AuthenticationError, match="not accepted here"):
        authenticate(envelope, NOW_NS)


def test_sender_info_is_signed_by_the_canister() -> None:
    good = SenderInfo(b"verified", CANISTER, sign(SENDER_INFO_DOMAIN + b"verified"))
    authenticate(parse_envelope(_body(good), "call"), NOW_NS, root_key=ROOT.public_key_der)
    for bad in (
        SenderInfo(b"forged", CANISTER, good.sig),
        SenderInfo(b"verified", OTHER_CANISTER, good.sig),
        SenderInfo(b"verified", CANISTER, sign(b"verified")),
    ):
        with pytest.raises(AuthenticationError, match="sender_info"):
            authenticate(parse_envelope(_body(bad), "call"), NOW_NS, root_key=ROOT.public_key_der)
