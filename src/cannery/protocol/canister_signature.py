"""Canister signatures: a canister signs by certifying the message's hash in its own data.

IC interface specification, section "Canister signatures". Only certificates under the given root key count,
so a signature from another network is refused.
"""

from __future__ import annotations

from hashlib import sha256

from cannery.limits import HASH_TREE_DEPTH_MAX
from cannery.protocol.cbor import CborError, decode_any_keys
from cannery.protocol.certificate import (
    Certificate,
    CertificateError,
    decode_certificate,
    verify_certificate,
)
from cannery.protocol.hash_tree import Found, HashTree, HashTreeError, lookup, parse_tree
from cannery.protocol.public_key import CanisterKey

_CLOUD_ENGINE = b"cloud_engine"


def verify_canister_signature(key: CanisterKey, message: bytes, signature: bytes, root_key: bytes) -> bool:
    """Tell whether the canister of `key` signed the message; a malformed signature is a wrong one."""
    parsed = _parse_signature(signature)
    if parsed is None:
        return False
    certificate, tree = parsed
    proof = lookup(tree, (b"sig", sha256(key.seed).digest(), sha256(message).digest()))
    certified = lookup(certificate.tree, (b"canister", key.canister_id.raw, b"certified_data"))
    if proof != Found(b"") or certified != Found(tree.digest) or not _subnet_may_sign(certificate):
        return False
    try:
        verify_certificate(certificate, root_key, now_ns=None, effective_canister_id=key.canister_id)
    except CertificateError:
        return False
    return True


def _parse_signature(signature: bytes) -> tuple[Certificate, HashTree] | None:
    try:
        fields, _tagged = decode_any_keys(signature, HASH_TREE_DEPTH_MAX + 2)
        if type(fields) is not dict or type(fields.get("certificate")) is not bytes:
            return None
        return decode_certificate(fields["certificate"]), parse_tree(fields.get("tree"))
    except (CborError, CertificateError, HashTreeError):
        return None


def _subnet_may_sign(certificate: Certificate) -> bool:
    delegation = certificate.delegation
    if delegation is None:
        return True
    try:
        tree = decode_certificate(delegation.certificate).tree
    except CertificateError:
        return False
    kind = lookup(tree, (b"subnet", delegation.subnet_id.raw, b"type"))
    return isinstance(kind, Found) and kind.value != _CLOUD_ENGINE
