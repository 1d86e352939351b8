"""Certificates: what is signed is believed, what is not is refused, by root key or through a delegation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.limits import CERTIFICATE_AGE_NS_MAX
from cannery.protocol.bls import (
    BlsKey,
    BlsKeyError,
    parse_root_key_der,
    root_key_der,
    seed_to_secret,
    uncompress_key,
    verify_bls,
)
from cannery.protocol.canister_signature import verify_canister_signature
from cannery.protocol.certificate import (
    Certificate,
    CertificateDelegation,
    CertificateError,
    build_certificate,
    certificate_time_ns,
    decode_canister_ranges,
    decode_certificate,
    delegated_ranges,
    encode_canister_ranges,
    encode_certificate,
    verify_certificate,
)
from cannery.protocol.envelope import DELEGATION_DOMAIN
from cannery.protocol.hash_tree import Found, LabelledData, build_tree, lookup, prune
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.protocol.public_key import CanisterKey, parse_public_key
from cannery.protocol.representation import encode_leb128, hash_map
from tests.protocol.requests import CANISTER, NOW_NS, OTHER_CANISTER

GOLDEN = Path(__file__).parent / "golden"
ROOT = BlsKey.from_seed(b"root" * 8)
SUBNET = BlsKey.from_seed(b"subnet" * 8)
SUBNET_ID = Principal.self_authenticating(SUBNET.public_key_der)
TIME = {b"time": encode_leb128(NOW_NS)}
RANGES = encode_canister_ranges([(CANISTER, CANISTER)])


def delegation(
    subnet: dict[bytes, LabelledData] | None = None, **extra: LabelledData
) -> CertificateDelegation:
    """Let the root vouch for the subnet; unless told otherwise, its ranges stand beneath it."""
    fields = {b"public_key": SUBNET.public_key_der, b"canister_ranges": RANGES} if subnet is None else subnet
    tree = build_tree(
        {b"subnet": {SUBNET_ID.raw: fields}, **{k.encode(): v for k, v in extra.items()}, **TIME}
    )
    return CertificateDelegation(SUBNET_ID, encode_certificate(build_certificate(tree, ROOT)))


# --- BLS ------------------------------------------------------------------------------------------


def test_the_generators_known_public_key() -> None:
    # The public key of the secret 1 is the generator itself, as the draft and every library write it.
    key = BlsKey((1).to_bytes(32, "big"))
    assert key.public_key.hex().startswith("93e02b6052719f607dacd3a088274f65")
    assert verify_bls(key.public_key, b"message", key.sign(b"message"))


def test_a_signature_is_of_its_message_and_key() -> None:
    signature = ROOT.sign(b"message")
    assert len(signature) == 48
    assert verify_bls(ROOT.public_key, b"message", signature)
    assert not verify_bls(ROOT.public_key, b"messagf", signature)
    assert not verify_bls(SUBNET.public_key, b"message", signature)
    assert ROOT.sign(b"message") == signature


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 48 * 8 - 1))
def test_a_changed_signature_is_wrong(bit: int) -> None:
    changed = bytearray(ROOT.sign(b"message"))
    changed[bit // 8] ^= 1 << (bit % 8)
    assert not verify_bls(ROOT.public_key, b"message", bytes(changed))


@pytest.mark.parametrize("point", [b"", b"\0" * 48, b"\xc0" + bytes(47), b"\xff" * 48, b"\x80" * 49])
def test_malformed_points_are_wrong_signatures(point: bytes) -> None:
    assert not verify_bls(ROOT.public_key, b"message", point)
    assert not verify_bls(b"\xc0" + bytes(95), b"message", b"\xc0" + bytes(47))
    assert not verify_bls(point * 2, b"message", ROOT.sign(b"message"))


def test_points_outside_the_group_are_no_keys() -> None:
    # Of the points with a small x, about half are on the curve, and none of those is in the group.
    for x in range(40):
        small_signature = bytes((0x80,)) + x.to_bytes(47, "big")
        small_key = bytes((0x80,)) + x.to_bytes(95, "big")
        assert not verify_bls(ROOT.public_key, b"message", small_signature)
        assert not verify_bls(small_key, b"message", ROOT.sign(b"message"))
        with pytest.raises(BlsKeyError):
            uncompress_key(small_key)


@pytest.mark.parametrize("secret", [b"", b"\0" * 32, b"\xff" * 32, b"\1" * 31, b"\1" * 33])
def test_secrets_are_checked(secret: bytes) -> None:
    with pytest.raises(BlsKeyError):
        BlsKey(secret)


@given(st.binary(min_size=32, max_size=64))
def test_any_seed_makes_a_key(seed: bytes) -> None:
    assert BlsKey(seed_to_secret(seed)).public_key_der == BlsKey.from_seed(seed).public_key_der


def test_a_short_seed_is_refused() -> None:
    with pytest.raises(BlsKeyError):
        BlsKey.from_seed(b"\1" * 31)


def test_the_root_keys_der_form() -> None:
    der = ROOT.public_key_der
    assert len(der) == 133
    assert parse_root_key_der(der) == ROOT.public_key
    assert root_key_der(ROOT.public_key) == der
    for wrong in (b"", der[:-1], der + b"\0", b"\0" + der[1:], ROOT.public_key):
        with pytest.raises(BlsKeyError):
            parse_root_key_der(wrong)
    assert ROOT.public_key.hex() in repr(ROOT)
    assert str(int.from_bytes(seed_to_secret(b"root" * 8), "big")) not in repr(ROOT)


# --- certificates ---------------------------------------------------------------------------------


def test_round_trip_and_verification() -> None:
    tree = build_tree({b"canister": {b"1": b"x", b"2": b"y"}, **TIME})
    signed = build_certificate(tree, ROOT)
    shown = replace(signed, tree=prune(tree, [(b"time",), (b"canister", b"1")]))
    encoded = encode_certificate(shown)
    assert cbor2.loads(encoded).keys() == {"tree", "signature"}
    certificate = decode_certificate(encoded)
    assert certificate == shown
    verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS)
    assert certificate_time_ns(certificate) == NOW_NS
    assert lookup(certificate.tree, (b"canister", b"1")) == Found(b"x")


def test_another_root_is_refused() -> None:
    certificate = build_certificate(build_tree(TIME), ROOT)
    with pytest.raises(CertificateError, match="signature"):
        verify_certificate(certificate, SUBNET.public_key_der, now_ns=NOW_NS)
    with pytest.raises(CertificateError):
        verify_certificate(certificate, b"no key", now_ns=NOW_NS)


def test_another_tree_is_refused() -> None:
    certificate = build_certificate(build_tree(TIME), ROOT)
    forged = Certificate(build_tree({**TIME, b"x": b""}), certificate.signature)
    with pytest.raises(CertificateError, match="signature"):
        verify_certificate(forged, ROOT.public_key_der, now_ns=NOW_NS)


@pytest.mark.parametrize("skew_ns", [-CERTIFICATE_AGE_NS_MAX, 0, CERTIFICATE_AGE_NS_MAX])
def test_time_within_the_window(skew_ns: int) -> None:
    certificate = build_certificate(build_tree(TIME), ROOT)
    verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS + skew_ns)


@pytest.mark.parametrize("skew_ns", [-CERTIFICATE_AGE_NS_MAX - 1, CERTIFICATE_AGE_NS_MAX + 1])
def test_time_outside_the_window(skew_ns: int) -> None:
    certificate = build_certificate(build_tree(TIME), ROOT)
    with pytest.raises(CertificateError, match="clock"):
        verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS + skew_ns)
    verify_certificate(certificate, ROOT.public_key_der, now_ns=None)


@pytest.mark.parametrize("time", [{}, {b"time": b""}, {b"time": b"\x80\x00"}, {b"time": {b"x": b""}}])
def test_a_certificate_without_time_is_refused(time: dict[bytes, bytes]) -> None:
    certificate = build_certificate(build_tree(time), ROOT)
    with pytest.raises(CertificateError, match="time"):
        verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS)


# --- delegations ----------------------------------------------------------------------------------


def test_a_subnet_certifies_its_own_canisters() -> None:
    certificate = build_certificate(build_tree(TIME), SUBNET, delegation())
    certificate = decode_certificate(encode_certificate(certificate))
    for canister_id in (CANISTER, None):
        verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS, effective_canister_id=canister_id)
    for stranger in (OTHER_CANISTER, MANAGEMENT):
        with pytest.raises(CertificateError, match="ranges"):
            verify_certificate(
                certificate, ROOT.public_key_der, now_ns=NOW_NS, effective_canister_id=stranger
            )


def test_ranges_may_stand_in_their_own_part_of_the_tree() -> None:
    key: dict[bytes, LabelledData] = {b"public_key": SUBNET.public_key_der}
    second = encode_canister_ranges([(OTHER_CANISTER, OTHER_CANISTER)])
    both = delegation(
        key, canister_ranges={SUBNET_ID.raw: {CANISTER.raw: RANGES, OTHER_CANISTER.raw: second}}
    )
    assert delegated_ranges(both) == ((CANISTER, CANISTER), (OTHER_CANISTER, OTHER_CANISTER))
    certificate = build_certificate(build_tree(TIME), SUBNET, both)
    verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS, effective_canister_id=OTHER_CANISTER)


def test_bad_delegations_are_refused() -> None:
    tree = build_tree(TIME)
    good = delegation()
    unsigned = encode_certificate(build_certificate(decode_certificate(good.certificate).tree, SUBNET))
    nested = encode_certificate(replace(decode_certificate(good.certificate), delegation=good))
    for bad, words in (
        (replace(good, certificate=unsigned), "root key"),
        (replace(good, certificate=nested), "must not be delegated"),
        (replace(good, certificate=b""), "CBOR"),
        (replace(good, subnet_id=CANISTER), "public key"),
        (delegation({}), "public key"),
        (delegation({b"public_key": b"no key"}), "DER"),
    ):
        certificate = build_certificate(tree, SUBNET, bad)
        with pytest.raises(CertificateError, match=words):
            verify_certificate(certificate, ROOT.public_key_der, now_ns=NOW_NS)
    with pytest.raises(CertificateError, match="signature"):
        verify_certificate(build_certificate(tree, ROOT, good), ROOT.public_key_der, now_ns=NOW_NS)


@given(st.lists(st.tuples(*[st.binary(max_size=29).map(Principal)] * 2), max_size=4))
def test_range_round_trip(ranges: list[tuple[Principal, Principal]]) -> None:
    assert decode_canister_ranges(encode_canister_ranges(ranges)) == tuple(ranges)


@pytest.mark.parametrize(
    "value", [None, {}, [1], [[b""]], [[b"", b"", b""]], [["a", "b"]], [[bytes(30), b""]]]
)
def test_malformed_ranges_are_refused(value: object) -> None:
    with pytest.raises(CertificateError):
        decode_canister_ranges(cbor2.dumps(value))


@pytest.mark.parametrize(
    "change",
    [
        {"tree": None},
        {"tree": [9]},
        {"signature": None},
        {"signature": "text"},
        {"delegation": 1},
        {"delegation": {}},
        {"delegation": {"subnet_id": bytes(30), "certificate": b""}},
    ],
)
def test_malformed_certificates_are_refused(change: dict[str, object]) -> None:
    fields = {"tree": [3, b""], "signature": b""}
    decode_certificate(cbor2.dumps(fields))
    with pytest.raises(CertificateError):
        decode_certificate(cbor2.dumps(fields | change))


# --- canister signatures --------------------------------------------------------------------------


def test_a_recorded_canister_signature() -> None:
    """Verify a sign-in recorded on a local network and published in dfinity/icp-cli (Apache-2.0).

    It goes through a canister signature, a delegated certificate, canister ranges and a P-256 session key.
    """
    chain = json.loads((GOLDEN / "canister_signed_delegation.json").read_text())
    root_key = bytes.fromhex((GOLDEN / "canister_signed_delegation_root_key.hex").read_text())
    first, second = chain["delegations"]
    key = parse_public_key(bytes.fromhex(chain["publicKey"]))
    assert isinstance(key, CanisterKey)
    message, signature = _delegation_message(first), bytes.fromhex(first["signature"])
    assert verify_canister_signature(key, message, signature, root_key)
    assert not verify_canister_signature(key, message + b"x", signature, root_key)
    assert not verify_canister_signature(replace(key, seed=b""), message, signature, root_key)
    assert not verify_canister_signature(key, message, signature, ROOT.public_key_der)
    session = parse_public_key(bytes.fromhex(first["delegation"]["pubkey"]))
    assert not isinstance(session, CanisterKey)
    assert session.verify(_delegation_message(second), bytes.fromhex(second["signature"]))


def _delegation_message(link: dict[str, dict[str, str]]) -> bytes:
    fields = link["delegation"]
    return DELEGATION_DOMAIN + hash_map(
        {"pubkey": bytes.fromhex(fields["pubkey"]), "expiration": int(fields["expiration"], 16)}
    )
