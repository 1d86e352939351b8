"""Identities: keys that sign requests, and the delegations that let one key sign for another.

IC interface specification, sections "Signatures" and "Authentication". Secrets come in as bytes: whoever
makes a new identity brings the chance for it. Files are read and written as text by `pem`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import coincurve
from coincurve.ecdsa import deserialize_recoverable, recoverable_convert, serialize_compact
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from cannery.errors import DecodeError
from cannery.limits import DELEGATION_COUNT_MAX
from cannery.protocol.envelope import (
    DELEGATION_DOMAIN,
    Delegation,
    Permissions,
    SignedDelegation,
    delegation_fields,
)
from cannery.protocol.principal import ANONYMOUS, Principal
from cannery.protocol.public_key import (
    ALGORITHM_ED25519,
    ALGORITHM_P256,
    ALGORITHM_SECP256K1,
    encode_public_key,
)
from cannery.protocol.representation import hash_map

SECRET_SIZE_BYTES = 32
_SIGNATURE_SIZE_BYTES = 64


class IdentityError(DecodeError):
    """Bytes or text are not a key that can sign."""


class Identity(Protocol):
    """Sign requests as a principal; without a public key it is the anonymous one."""

    @property
    def principal(self) -> Principal: ...

    @property
    def public_key_der(self) -> bytes | None: ...

    @property
    def delegations(self) -> tuple[SignedDelegation, ...]: ...

    def sign(self, message: bytes) -> bytes:
        """Return the signature of a message that already begins with its domain separator."""
        ...


@dataclass(frozen=True, slots=True)
class AnonymousIdentity:
    """Sign nothing."""

    principal: Principal = field(default=ANONYMOUS, init=False)
    public_key_der: None = field(default=None, init=False)
    delegations: tuple[SignedDelegation, ...] = field(default=(), init=False)

    def sign(self, message: bytes) -> bytes:
        raise IdentityError(f"the anonymous identity cannot sign a message of {len(message)} bytes")


@dataclass(frozen=True, slots=True)
class Ed25519Identity:
    """Sign with an Ed25519 key, made of its 32-byte seed."""

    seed: bytes = field(repr=False)
    public_key_der: bytes = field(init=False, compare=False)
    principal: Principal = field(init=False, compare=False)
    _signing_key: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_secret(self.seed)
        raw, signing_key = crypto_sign_seed_keypair(self.seed)
        object.__setattr__(self, "_signing_key", signing_key)
        _set_public_key(self, encode_public_key(ALGORITHM_ED25519, raw))

    @property
    def delegations(self) -> tuple[SignedDelegation, ...]:
        return ()

    @property
    def public_key_raw(self) -> bytes:
        return self.public_key_der[-32:]

    def sign(self, message: bytes) -> bytes:
        return bytes(crypto_sign(message, self._signing_key)[:_SIGNATURE_SIZE_BYTES])


@dataclass(frozen=True, slots=True)
class Secp256k1Identity:
    """Sign with ECDSA on secp256k1, deterministically (RFC 6979)."""

    secret: bytes = field(repr=False)
    public_key_der: bytes = field(init=False, compare=False)
    principal: Principal = field(init=False, compare=False)
    _key: coincurve.PrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_secret(self.secret)
        try:
            key = coincurve.PrivateKey(self.secret)
        except ValueError:
            raise IdentityError(
                "the number is no secp256k1 key: it must be from 1 to the group's order"
            ) from None
        object.__setattr__(self, "_key", key)
        _set_public_key(self, encode_public_key(ALGORITHM_SECP256K1, key.public_key.format(compressed=False)))

    @property
    def delegations(self) -> tuple[SignedDelegation, ...]:
        return ()

    def sign(self, message: bytes) -> bytes:
        recoverable = deserialize_recoverable(self._key.sign_recoverable(message))
        return bytes(serialize_compact(recoverable_convert(recoverable)))


@dataclass(frozen=True, slots=True)
class P256Identity:
    """Sign with ECDSA on P-256, deterministically (RFC 6979)."""

    secret: bytes = field(repr=False)
    public_key_der: bytes = field(init=False, compare=False)
    principal: Principal = field(init=False, compare=False)
    _key: ec.EllipticCurvePrivateKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check_secret(self.secret)
        try:
            key = ec.derive_private_key(int.from_bytes(self.secret, "big"), ec.SECP256R1())
        except ValueError:
            raise IdentityError(
                "the number is no P-256 key: it must be from 1 to the group's order"
            ) from None
        object.__setattr__(self, "_key", key)
        point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        _set_public_key(self, encode_public_key(ALGORITHM_P256, point))

    @property
    def delegations(self) -> tuple[SignedDelegation, ...]:
        return ()

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256(), deterministic_signing=True)))
        return r.to_bytes(SECRET_SIZE_BYTES, "big") + s.to_bytes(SECRET_SIZE_BYTES, "big")


KeyIdentity: TypeAlias = Ed25519Identity | Secp256k1Identity | P256Identity


@dataclass(frozen=True, slots=True)
class DelegatedIdentity:
    """Sign with a session's key for the owner of `public_key_der`, by a chain that ends at that session."""

    session: Identity
    delegations: tuple[SignedDelegation, ...]
    public_key_der: bytes
    principal: Principal = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not 0 < len(self.delegations) <= DELEGATION_COUNT_MAX:
            raise IdentityError(
                f"a chain has 1 to {DELEGATION_COUNT_MAX} delegations, not {len(self.delegations)}"
            )
        if self.delegations[-1].delegation.pubkey != self.session.public_key_der:
            raise IdentityError("the last delegation of a chain must be to the session's key")
        object.__setattr__(self, "principal", Principal.self_authenticating(self.public_key_der))

    def sign(self, message: bytes) -> bytes:
        return self.session.sign(message)


def delegate(
    identity: Identity,
    to_public_key_der: bytes,
    expiration_ns: int,
    targets: Sequence[Principal] | None = None,
    permissions: Permissions | None = None,
) -> SignedDelegation:
    """Sign that another key may act for `identity` until a time; with `targets`, to those canisters only."""
    delegation = Delegation(
        to_public_key_der, expiration_ns, None if targets is None else tuple(targets), permissions
    )
    digest = hash_map(delegation_fields(delegation))
    return SignedDelegation(delegation, identity.sign(DELEGATION_DOMAIN + digest), digest)


def delegated(
    identity: Identity,
    session: Identity,
    expiration_ns: int,
    targets: Sequence[Principal] | None = None,
    permissions: Permissions | None = None,
) -> DelegatedIdentity:
    """Make the identity with which `session` acts for `identity`, whose own chain it prolongs."""
    if identity.public_key_der is None or session.public_key_der is None:
        raise IdentityError("the anonymous identity neither gives nor takes a delegation")
    link = delegate(identity, session.public_key_der, expiration_ns, targets, permissions)
    return DelegatedIdentity(session, (*identity.delegations, link), identity.public_key_der)


def _check_secret(secret: bytes) -> None:
    if len(secret) != SECRET_SIZE_BYTES:
        raise IdentityError(f"a secret has {SECRET_SIZE_BYTES} bytes, not {len(secret)}")


def _set_public_key(identity: KeyIdentity, der: bytes) -> None:
    object.__setattr__(identity, "public_key_der", der)
    object.__setattr__(identity, "principal", Principal.self_authenticating(der))
