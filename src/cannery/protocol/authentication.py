"""Authentication: does an envelope's proof belong to its sender, now, for this canister.

IC interface specification, section "Authentication", and `verify_envelope` of the abstract behaviour. What
the sender may then do is not decided here. Time comes in as an argument; the only memory is a
`VerifiedDelegations` that the caller owns.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from cannery.errors import CanneryError
from cannery.limits import (
    INGRESS_EXPIRY_SKEW_NS,
    INGRESS_EXPIRY_WINDOW_NS,
    VERIFIED_DELEGATION_COUNT_MAX,
)
from cannery.protocol.canister_signature import verify_canister_signature
from cannery.protocol.envelope import (
    DELEGATION_DOMAIN,
    REQUEST_DOMAIN,
    CallContent,
    Envelope,
    ReadStateContent,
    SenderInfo,
    SignedDelegation,
)
from cannery.protocol.principal import Principal
from cannery.protocol.public_key import CanisterKey, PublicKeyError, parse_public_key

SENDER_INFO_DOMAIN = b"\x0eic-sender-info"
_BAD_REQUEST = 400
_FORBIDDEN = 403


class AuthenticationError(CanneryError):
    """A request's proof does not hold; `http_status` says how to answer, the text what to do."""

    def __init__(self, http_status: int, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status


class Authority(msgspec.Struct, frozen=True):
    """Who proved to send a request, and which canisters the delegations limit it to (None: any)."""

    sender: Principal
    targets: frozenset[Principal] | None

    def allows(self, canister_id: Principal) -> bool:
        """Tell whether the request may concern this canister."""
        return self.targets is None or canister_id in self.targets


class VerifiedDelegations:
    """Remember which delegations had a right signature, up to a count; the oldest is forgotten first.

    Only signatures are remembered: expiry, targets and cycles are looked at each time.
    """

    __slots__ = ("_count_max", "_known")

    def __init__(self, count_max: int = VERIFIED_DELEGATION_COUNT_MAX) -> None:
        assert count_max > 0, "a memory of nothing is None"
        self._count_max = count_max
        self._known: dict[bytes, None] = {}

    def __len__(self) -> int:
        return len(self._known)

    def knows(self, key: bytes) -> bool:
        return key in self._known

    def add(self, key: bytes) -> None:
        if len(self._known) >= self._count_max:
            del self._known[next(iter(self._known))]
        self._known[key] = None


def authenticate(
    envelope: Envelope,
    now_ns: int,
    *,
    verified: VerifiedDelegations | None = None,
    root_key: bytes | None = None,
) -> Authority:
    """Prove an envelope, or raise `AuthenticationError`.

    `root_key` is the DER form of the node's own root key, under which canister signatures are checked. For
    calls and queries the canister called is held against the delegations' targets; for read_state that is
    left to the caller, who knows which canister each path concerns.
    """
    content = envelope.content
    sender = content.sender
    if sender.is_anonymous:
        return _authenticate_anonymous(envelope, now_ns)
    _check_expiry(content.ingress_expiry_ns, now_ns)
    public_key, signature = envelope.sender_pubkey, envelope.sender_sig
    if public_key is None or signature is None:
        raise AuthenticationError(
            _BAD_REQUEST, f"sender_pubkey and sender_sig are missing: {sender} must sign its requests"
        )
    if Principal.self_authenticating(public_key) != sender:
        raise AuthenticationError(
            _FORBIDDEN,
            f"sender_pubkey does not belong to sender {sender}: its key must hash to the sender's principal",
        )
    targets: frozenset[Principal] | None = None
    signer = public_key
    if envelope.delegations:
        targets = _check_chain(envelope, now_ns)
        for signed in envelope.delegations:
            _check_delegation(signer, signed, verified, root_key)
            signer = signed.delegation.pubkey
    if not _verify(signer, REQUEST_DOMAIN + envelope.request_id, signature, root_key):
        raise AuthenticationError(_FORBIDDEN, "sender_sig is not the signature of this request by its key")
    if not isinstance(content, ReadStateContent) and content.sender_info is not None:
        _check_sender_info(content.sender_info, public_key, root_key)
    return Authority(sender, targets)


def _authenticate_anonymous(envelope: Envelope, now_ns: int) -> Authority:
    content = envelope.content
    if envelope.sender_pubkey is not None or envelope.sender_sig is not None or envelope.delegations:
        raise AuthenticationError(
            _BAD_REQUEST, "an anonymous request carries no key, signature or delegation: leave them out"
        )
    if not isinstance(content, ReadStateContent) and content.sender_info is not None:
        raise AuthenticationError(_BAD_REQUEST, "an anonymous request carries no sender_info: leave it out")
    if isinstance(content, CallContent):
        _check_expiry(content.ingress_expiry_ns, now_ns)
    return Authority(content.sender, None)


def _check_expiry(expiry_ns: int, now_ns: int) -> None:
    latest_ns = now_ns + INGRESS_EXPIRY_WINDOW_NS + INGRESS_EXPIRY_SKEW_NS
    if now_ns <= expiry_ns <= latest_ns:
        return
    # Clients look for the words up to the colon, then set their clock by the node's and try again.
    raise AuthenticationError(
        _BAD_REQUEST,
        f"Invalid request expiry: ingress_expiry is {expiry_ns}, the node accepts {now_ns} to {latest_ns} "
        f"(nanoseconds since 1970): set the client's clock, then sign again",
    )


# --- delegations ----------------------------------------------------------------------------------


def _check_chain(envelope: Envelope, now_ns: int) -> frozenset[Principal] | None:
    """Check everything about a chain but its signatures; return the canisters that all links allow."""
    content, chain = envelope.content, envelope.delegations
    keys = {envelope.sender_pubkey, *(signed.delegation.pubkey for signed in chain)}
    if len(keys) != 1 + len(chain):
        raise AuthenticationError(
            _BAD_REQUEST, "sender_delegation has a cycle: each public key may appear only once in the chain"
        )
    targets: frozenset[Principal] | None = None
    for position, signed in enumerate(chain):
        delegation = signed.delegation
        if delegation.expiration_ns < now_ns:
            raise AuthenticationError(
                _FORBIDDEN,
                f"sender_delegation[{position}] has expired: ask for a new delegation (sign in again)",
            )
        if delegation.permissions == "queries" and isinstance(content, CallContent):
            raise AuthenticationError(
                _FORBIDDEN, f"sender_delegation[{position}] permits queries only, this is an update call"
            )
        if delegation.targets is not None:
            own = frozenset(delegation.targets)
            targets = own if targets is None else targets & own
    if (
        targets is not None
        and not isinstance(content, ReadStateContent)
        and content.canister_id not in targets
    ):
        raise AuthenticationError(
            _FORBIDDEN, f"canister {content.canister_id} is not one of the delegation's targets"
        )
    return targets


def _check_delegation(
    signer: bytes, signed: SignedDelegation, verified: VerifiedDelegations | None, root_key: bytes | None
) -> None:
    memory_key = sha256(sha256(signer).digest() + signed.digest + signed.signature).digest()
    if verified is not None and verified.knows(memory_key):
        return
    if not _verify(signer, DELEGATION_DOMAIN + signed.digest, signed.signature, root_key):
        raise AuthenticationError(_FORBIDDEN, "a delegation is not signed by the key before it in the chain")
    if verified is not None:
        verified.add(memory_key)


# --- signatures -----------------------------------------------------------------------------------


def _verify(public_key: bytes, message: bytes, signature: bytes, root_key: bytes | None) -> bool:
    try:
        key = parse_public_key(public_key)
    except PublicKeyError as error:
        raise AuthenticationError(_BAD_REQUEST, f"a public key cannot be used: {error}") from None
    if not isinstance(key, CanisterKey):
        return key.verify(message, signature)
    if root_key is None:
        raise AuthenticationError(
            _FORBIDDEN, "canister signatures are not accepted here: sign with a key of your own"
        )
    return verify_canister_signature(key, message, signature, root_key)


def _check_sender_info(info: SenderInfo, public_key: bytes, root_key: bytes | None) -> None:
    key = parse_public_key(public_key)
    if not isinstance(key, CanisterKey):
        raise AuthenticationError(
            _BAD_REQUEST, "sender_info is for senders with a canister signature only: leave it out"
        )
    if info.signer != key.canister_id:
        raise AuthenticationError(
            _FORBIDDEN, f"sender_info.signer must be {key.canister_id}, the sender's canister"
        )
    if root_key is None or not verify_canister_signature(
        key, SENDER_INFO_DOMAIN + info.info, info.sig, root_key
    ):
        raise AuthenticationError(
            _FORBIDDEN, "sender_info.sig is not the canister's signature of sender_info.info"
        )
