"""Certificates: a pruned tree with a subnet's signature of its root, built and verified.

IC interface specification, sections "Certificate", "Delegation" and "Encoding of certificates", and
"Canister ranges" of the state tree. The trees are in `hash_tree`, the signatures in `bls`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cannery.errors import DecodeError
from cannery.limits import CANISTER_RANGE_COUNT_MAX, CERTIFICATE_AGE_NS_MAX, HASH_TREE_DEPTH_MAX
from cannery.protocol.bls import BlsKey, BlsKeyError, parse_root_key_der, verify_bls
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX, CborError, decode_any_keys, encode
from cannery.protocol.hash_tree import (
    Found,
    HashTree,
    HashTreeError,
    build_tree,
    child_labels,
    encode_blob,
    encode_tree,
    lookup,
    parse_tree,
)
from cannery.protocol.principal import Principal, PrincipalError
from cannery.protocol.representation import RepresentationError, decode_leb128, encode_leb128

STATE_ROOT_DOMAIN = b"\x0dic-state-root"
_RANGES_DEPTH_MAX = 3
# The certificate's map and the tree's nodes inside it.
_CERTIFICATE_DEPTH_MAX = HASH_TREE_DEPTH_MAX + 2


class CertificateError(DecodeError):
    """A certificate is malformed or does not prove what it should; the text says why."""


@dataclass(frozen=True, slots=True)
class CertificateDelegation:
    """The root's word, itself a certificate (encoded), that a subnet has a key and canister ranges."""

    subnet_id: Principal
    certificate: bytes


@dataclass(frozen=True, slots=True)
class Certificate:
    """A tree and the signature of its root, by the root key or by the key its delegation certifies."""

    tree: HashTree
    signature: bytes
    delegation: CertificateDelegation | None = None


CanisterRange = tuple[Principal, Principal]


def state_root_message(root_hash: bytes) -> bytes:
    """Return what a subnet signs to certify a tree."""
    return STATE_ROOT_DOMAIN + root_hash


def build_certificate(
    tree: HashTree, key: BlsKey, delegation: CertificateDelegation | None = None
) -> Certificate:
    """Sign a tree; prune before or after, the signature is the same."""
    return Certificate(tree, key.sign(state_root_message(tree.digest)), delegation)


def encode_certificate(certificate: Certificate) -> bytes:
    """Encode a certificate as self-described CBOR."""
    delegation = certificate.delegation
    return b"".join(
        (
            SELF_DESCRIBE_PREFIX,
            b"\xa2" if delegation is None else b"\xa3",
            b"\x64tree",
            encode_tree(certificate.tree),
            b"\x69signature",
            encode_blob(certificate.signature),
            encode_delegation_field(delegation),
        )
    )


def certify_subnet(
    root: BlsKey, key: BlsKey, ranges: Sequence[CanisterRange], time_ns: int
) -> CertificateDelegation:
    """Let the root certify another subnet's key and canister ranges, in both forms that clients look for."""
    subnet_id = Principal.self_authenticating(key.public_key_der)
    encoded = encode_canister_ranges(ranges)
    tree = build_tree(
        {
            b"canister_ranges": {subnet_id.raw: {ranges[0][0].raw: encoded}},
            b"subnet": {subnet_id.raw: {b"canister_ranges": encoded, b"public_key": key.public_key_der}},
            b"time": encode_leb128(time_ns),
        }
    )
    return CertificateDelegation(subnet_id, encode_certificate(build_certificate(tree, root)))


def encode_delegation_field(delegation: CertificateDelegation | None) -> bytes:
    """Encode a certificate's field `delegation`, name and value; nothing where there is none."""
    return b"" if delegation is None else b"\x6adelegation" + _encode_delegation(delegation)


def _encode_delegation(delegation: CertificateDelegation) -> bytes:
    return encode(
        {"subnet_id": delegation.subnet_id.raw, "certificate": delegation.certificate}, self_describe=False
    )


def decode_certificate(data: bytes) -> Certificate:
    """Read a certificate; its signature is not looked at."""
    try:
        fields, _tagged = decode_any_keys(data, _CERTIFICATE_DEPTH_MAX)
    except CborError as error:
        raise CertificateError(f"a certificate is CBOR: {error}") from None
    if type(fields) is not dict:
        raise CertificateError("a certificate is a map with tree and signature")
    try:
        tree = parse_tree(fields.get("tree"))
    except HashTreeError as error:
        raise CertificateError(str(error)) from None
    signature = fields.get("signature")
    if type(signature) is not bytes:
        raise CertificateError("a certificate's signature is a blob")
    return Certificate(tree, signature, _parse_delegation(fields.get("delegation")))


def _parse_delegation(value: object) -> CertificateDelegation | None:
    if value is None:
        return None
    if type(value) is not dict:
        raise CertificateError("a certificate's delegation is a map with subnet_id and certificate")
    subnet_id, certificate = value.get("subnet_id"), value.get("certificate")
    if type(subnet_id) is not bytes or type(certificate) is not bytes:
        raise CertificateError("subnet_id and certificate of a delegation are blobs")
    try:
        return CertificateDelegation(Principal(subnet_id), certificate)
    except PrincipalError as error:
        raise CertificateError(f"the subnet_id of a delegation: {error}") from None


# --- verifying ------------------------------------------------------------------------------------


def verify_certificate(
    certificate: Certificate,
    root_key: bytes,
    *,
    now_ns: int | None,
    effective_canister_id: Principal | None = None,
    skew_ns_max: int = CERTIFICATE_AGE_NS_MAX,
) -> None:
    """Raise `CertificateError` unless `root_key` (DER) or a key it delegates to signed this tree.

    With `now_ns`, the tree's time may differ from it by `skew_ns_max` at most, both ways. With a delegation,
    the `effective_canister_id`, if given, must be in the ranges of the delegated subnet.
    """
    key = _delegated_key(certificate.delegation, _parse_key(root_key), effective_canister_id)
    if not verify_bls(key, state_root_message(certificate.tree.digest), certificate.signature):
        raise CertificateError("the certificate's signature is not the subnet's: do not trust this answer")
    if now_ns is None:
        return
    age_ns = now_ns - certificate_time_ns(certificate)
    if abs(age_ns) > skew_ns_max:
        raise CertificateError(
            f"the certificate's time is {age_ns / 1e9:.1f} s from the local clock, "
            f"more than the {skew_ns_max / 1e9:.0f} s allowed: set the clock right or ask another node"
        )


def certificate_time_ns(certificate: Certificate) -> int:
    """Return the time of the certified state."""
    time = lookup(certificate.tree, (b"time",))
    if not isinstance(time, Found):
        raise CertificateError("the certificate does not show its time")
    try:
        return decode_leb128(time.value)
    except RepresentationError as error:
        raise CertificateError(f"the certificate's time: {error}") from None


def _parse_key(der: bytes) -> bytes:
    try:
        return parse_root_key_der(der)
    except BlsKeyError as error:
        raise CertificateError(str(error)) from None


def _delegated_key(
    delegation: CertificateDelegation | None, root_key: bytes, effective_canister_id: Principal | None
) -> bytes:
    if delegation is None:
        return root_key
    parent = decode_certificate(delegation.certificate)
    if parent.delegation is not None:
        raise CertificateError("the certificate of a delegation must not be delegated itself")
    if not verify_bls(root_key, state_root_message(parent.tree.digest), parent.signature):
        raise CertificateError("the delegation's certificate is not signed by the root key")
    if effective_canister_id is not None and not any(
        low <= effective_canister_id <= high for low, high in delegated_ranges(delegation)
    ):
        raise CertificateError(
            f"{effective_canister_id} is not in the canister ranges of the delegated subnet"
        )
    key = lookup(parent.tree, (b"subnet", delegation.subnet_id.raw, b"public_key"))
    if not isinstance(key, Found):
        raise CertificateError("the delegation's certificate does not show the subnet's public key")
    return _parse_key(key.value)


def delegated_ranges(delegation: CertificateDelegation) -> tuple[CanisterRange, ...]:
    """List the canister ranges that a delegation's certificate shows for its subnet, in either form."""
    tree, subnet = decode_certificate(delegation.certificate).tree, delegation.subnet_id.raw
    ranges: list[CanisterRange] = []
    paths = [(b"subnet", subnet, b"canister_ranges")]
    paths += [
        (b"canister_ranges", subnet, start) for start in child_labels(tree, (b"canister_ranges", subnet))
    ]
    for path in paths:
        found = lookup(tree, path)
        if isinstance(found, Found):
            ranges.extend(decode_canister_ranges(found.value))
    return tuple(ranges)


# --- canister ranges ------------------------------------------------------------------------------


def encode_canister_ranges(ranges: Sequence[CanisterRange]) -> bytes:
    """Encode closed ranges of canister ids as the value at /subnet/ID/canister_ranges."""
    return encode([[low.raw, high.raw] for low, high in ranges], self_describe=True)


def decode_canister_ranges(data: bytes) -> tuple[CanisterRange, ...]:
    """Read closed ranges of canister ids."""
    try:
        value, _tagged = decode_any_keys(data, _RANGES_DEPTH_MAX)
    except CborError as error:
        raise CertificateError(f"canister ranges are CBOR: {error}") from None
    if type(value) is not list or len(value) > CANISTER_RANGE_COUNT_MAX:
        raise CertificateError(f"canister ranges are a list of at most {CANISTER_RANGE_COUNT_MAX} pairs")
    ranges: list[CanisterRange] = []
    for pair in value:
        if type(pair) is not list or len(pair) != 2 or not all(type(raw) is bytes for raw in pair):
            raise CertificateError("a canister range is a pair of canister ids")
        try:
            ranges.append((Principal(pair[0]), Principal(pair[1])))
        except PrincipalError as error:
            raise CertificateError(f"a canister range: {error}") from None
    return tuple(ranges)
