"""Envelopes: what a request asks (content), who asks and with which proof, read once at the border.

IC interface specification, sections "Request: Call", "Request: Query call", "Request: Read state",
"Authentication" and "Request ids". Whoever holds an `Envelope` holds well-formed fields; whether its
signature is right is for `authentication` to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import sha256
from typing import Literal, Protocol, TypeAlias

import msgspec

from cannery.errors import DecodeError
from cannery.limits import (
    DELEGATION_COUNT_MAX,
    DELEGATION_TARGET_COUNT_MAX,
    ENVELOPE_DEPTH_MAX,
    ENVELOPE_ITEM_COUNT_MAX,
    METHOD_NAME_SIZE_BYTES_MAX,
    NONCE_SIZE_BYTES_MAX,
    PUBLIC_KEY_SIZE_BYTES_MAX,
    READ_STATE_LABEL_SIZE_BYTES_MAX,
    READ_STATE_PATH_COUNT_MAX,
    READ_STATE_PATH_LABEL_COUNT_MAX,
    SENDER_INFO_SIZE_BYTES_MAX,
    SIGNATURE_SIZE_BYTES_MAX,
)
from cannery.protocol.cbor import CborError, CborSource, decode_any_keys, encode
from cannery.protocol.principal import PRINCIPAL_SIZE_BYTES_MAX, Principal, principal_of
from cannery.protocol.representation import RepresentationError, hash_map, hash_nat

RequestKind = Literal["call", "query", "read_state"]
Permissions = Literal["queries", "all"]
StatePath: TypeAlias = tuple[bytes, ...]

REQUEST_DOMAIN = b"\x0aic-request"
DELEGATION_DOMAIN = b"\x1aic-request-auth-delegation"
_TIMESTAMP_NS_MAX = 2**64 - 1
# A body is a map of a few fields; this many names no client has.
_FIELD_COUNT_MAX = 64


class EnvelopeError(DecodeError):
    """A body is not a request of the kind its path announces; the text names the field and its fix."""


class SenderInfo(msgspec.Struct, frozen=True):
    """What a signing canister says of the sender: opaque `info`, and its canister signature."""

    info: bytes
    signer: Principal
    sig: bytes


class CallContent(msgspec.Struct, frozen=True, tag=True):
    """Ask for an update (or a query, answered by the replicated state)."""

    sender: Principal
    canister_id: Principal
    method_name: str
    arg: bytes
    ingress_expiry_ns: int
    nonce: bytes | None = None
    sender_info: SenderInfo | None = None


class QueryContent(msgspec.Struct, frozen=True, tag=True):
    """Ask for a query, answered by one node at once."""

    sender: Principal
    canister_id: Principal
    method_name: str
    arg: bytes
    ingress_expiry_ns: int
    nonce: bytes | None = None
    sender_info: SenderInfo | None = None


class ReadStateContent(msgspec.Struct, frozen=True, tag=True):
    """Ask for certified values at paths of the state tree."""

    sender: Principal
    paths: tuple[StatePath, ...]
    ingress_expiry_ns: int
    nonce: bytes | None = None


RequestContent: TypeAlias = CallContent | QueryContent | ReadStateContent


class Delegation(msgspec.Struct, frozen=True):
    """Let the key `pubkey` (DER) sign for the delegator until `expiration_ns`, to `targets` if given."""

    pubkey: bytes
    expiration_ns: int
    targets: tuple[Principal, ...] | None = None
    permissions: Permissions | None = None


class SignedDelegation(msgspec.Struct, frozen=True):
    """A delegation with its signature; `digest` is the hash of the delegation's map as it was sent."""

    delegation: Delegation
    signature: bytes
    digest: bytes


class Envelope(msgspec.Struct, frozen=True):
    """A whole request: content, its id, and the proofs; `tagged` says whether the body was self-described."""

    content: RequestContent
    request_id: bytes
    sender_pubkey: bytes | None
    sender_sig: bytes | None
    delegations: tuple[SignedDelegation, ...]
    tagged: bool


class Signer(Protocol):
    """What building an envelope needs of an identity."""

    @property
    def principal(self) -> Principal: ...

    @property
    def public_key_der(self) -> bytes | None: ...

    @property
    def delegations(self) -> tuple[SignedDelegation, ...]: ...

    def sign(self, message: bytes) -> bytes: ...


# --- reading --------------------------------------------------------------------------------------


def parse_envelope(body: bytes, kind: RequestKind) -> Envelope:
    """Read the body of a request of this kind; raise `EnvelopeError` and nothing else."""
    try:
        fields, tagged = decode_any_keys(body, ENVELOPE_DEPTH_MAX, item_count_max=ENVELOPE_ITEM_COUNT_MAX)
    except CborError as error:
        raise EnvelopeError(f"the body is not a request: {error}") from None
    if type(fields) is not dict or len(fields) > _FIELD_COUNT_MAX:
        raise EnvelopeError(
            "the body must be a CBOR map with the fields content, sender_pubkey and sender_sig"
        )
    content_fields = fields.get("content")
    if type(content_fields) is not dict or len(content_fields) > _FIELD_COUNT_MAX:
        raise EnvelopeError("content: send a map with the fields of the request")
    if content_fields.get("request_type") != kind:
        raise EnvelopeError(f'content.request_type: this path takes requests of type "{kind}" only')
    content: RequestContent
    if kind == "read_state":
        content = _parse_read_state(content_fields)
        request_id = _hash_fields(content_fields, "content")
    else:
        content, request_id = _parse_call(content_fields, kind)
    return Envelope(
        content,
        request_id,
        _optional_blob(fields, "sender_pubkey", PUBLIC_KEY_SIZE_BYTES_MAX),
        _optional_blob(fields, "sender_sig", SIGNATURE_SIZE_BYTES_MAX),
        _parse_delegations(fields.get("sender_delegation")),
        tagged,
    )


def _parse_call(fields: dict[object, object], kind: RequestKind) -> tuple[CallContent | QueryContent, bytes]:
    arg = fields.get("arg")
    if type(arg) is not bytes:
        raise EnvelopeError(f"content.arg: {_expected(arg, 'a blob')}")
    method_name = fields.get("method_name")
    if type(method_name) is not str or len(method_name) > METHOD_NAME_SIZE_BYTES_MAX:
        raise EnvelopeError(f"content.method_name: {_expected(method_name, 'a short text')}")
    sender = _principal(fields, "sender")
    canister_id = _principal(fields, "canister_id")
    expiry_ns = _timestamp(fields, "ingress_expiry", "content")
    nonce = _optional_blob(fields, "nonce", NONCE_SIZE_BYTES_MAX, "content.")
    info = fields.get("sender_info")
    sender_info = None if info is None else _parse_sender_info(info)
    make = CallContent if kind == "call" else QueryContent
    content = make(sender, canister_id, method_name, arg, expiry_ns, nonce, sender_info)
    # Six fields are demanded above; with the nonce and nothing else, the order of hashing is known.
    if len(fields) == (6 if nonce is None else 7):
        return content, _ordinary_request_id(content, kind)
    return content, _hash_fields(fields, "content")


def _parse_read_state(fields: dict[object, object]) -> ReadStateContent:
    paths = fields.get("paths")
    if type(paths) is not list or len(paths) > READ_STATE_PATH_COUNT_MAX:
        raise EnvelopeError(
            f"content.paths: {_expected(paths, f'a list of at most {READ_STATE_PATH_COUNT_MAX} paths')}"
        )
    return ReadStateContent(
        _principal(fields, "sender"),
        tuple([_parse_path(path) for path in paths]),
        _timestamp(fields, "ingress_expiry", "content"),
        _optional_blob(fields, "nonce", NONCE_SIZE_BYTES_MAX, "content."),
    )


def _parse_path(path: object) -> StatePath:
    if type(path) is not list or len(path) > READ_STATE_PATH_LABEL_COUNT_MAX:
        raise EnvelopeError(
            f"content.paths: a path is a list of at most {READ_STATE_PATH_LABEL_COUNT_MAX} blobs"
        )
    for label in path:
        if type(label) is not bytes or len(label) > READ_STATE_LABEL_SIZE_BYTES_MAX:
            raise EnvelopeError(
                f"content.paths: a label is a blob of at most {READ_STATE_LABEL_SIZE_BYTES_MAX} bytes"
            )
    return tuple(path)


def _parse_sender_info(value: object) -> SenderInfo:
    if type(value) is not dict:
        raise EnvelopeError("content.sender_info: send a map with info, signer and sig, or leave it out")
    info = _optional_blob(value, "info", SENDER_INFO_SIZE_BYTES_MAX, "content.sender_info.")
    sig = _optional_blob(value, "sig", SIGNATURE_SIZE_BYTES_MAX, "content.sender_info.")
    if info is None or sig is None:
        raise EnvelopeError("content.sender_info: info and sig must be there")
    return SenderInfo(info, _principal(value, "signer", "content.sender_info"), sig)


def _parse_delegations(value: object) -> tuple[SignedDelegation, ...]:
    if value is None:
        return ()
    if type(value) is not list or len(value) > DELEGATION_COUNT_MAX:
        raise EnvelopeError(f"sender_delegation: send a list of at most {DELEGATION_COUNT_MAX} delegations")
    return tuple([_parse_signed_delegation(item, f"sender_delegation[{i}]") for i, item in enumerate(value)])


def _parse_signed_delegation(value: object, where: str) -> SignedDelegation:
    if type(value) is not dict:
        raise EnvelopeError(f"{where}: send a map with delegation and signature")
    fields = value.get("delegation")
    if type(fields) is not dict or len(fields) > _FIELD_COUNT_MAX:
        raise EnvelopeError(f"{where}.delegation: send a map with pubkey and expiration")
    pubkey = _optional_blob(fields, "pubkey", PUBLIC_KEY_SIZE_BYTES_MAX, f"{where}.delegation.")
    signature = _optional_blob(value, "signature", SIGNATURE_SIZE_BYTES_MAX, f"{where}.")
    if pubkey is None or signature is None:
        raise EnvelopeError(f"{where}: pubkey and signature must be there")
    permissions = fields.get("permissions")
    if permissions is not None and permissions != "queries" and permissions != "all":
        raise EnvelopeError(f'{where}.delegation.permissions: "queries" or "all", or leave it out')
    delegation = Delegation(
        pubkey,
        _timestamp(fields, "expiration", f"{where}.delegation"),
        _parse_targets(fields.get("targets"), where),
        permissions,
    )
    return SignedDelegation(delegation, signature, _hash_fields(fields, f"{where}.delegation"))


def _parse_targets(value: object, where: str) -> tuple[Principal, ...] | None:
    if value is None:
        return None
    if type(value) is not list or len(value) > DELEGATION_TARGET_COUNT_MAX:
        raise EnvelopeError(f"{where}.delegation.targets: at most {DELEGATION_TARGET_COUNT_MAX} canister ids")
    for raw in value:
        if type(raw) is not bytes or len(raw) > PRINCIPAL_SIZE_BYTES_MAX:
            raise EnvelopeError(f"{where}.delegation.targets: a target is the blob of a canister id")
    return tuple([Principal(raw) for raw in value])


# --- single fields --------------------------------------------------------------------------------


def _principal(fields: Mapping[object, object], name: str, where: str = "content") -> Principal:
    raw = fields.get(name)
    if type(raw) is not bytes or len(raw) > PRINCIPAL_SIZE_BYTES_MAX:
        raise EnvelopeError(
            f"{where}.{name}: {_expected(raw, f'a blob of at most {PRINCIPAL_SIZE_BYTES_MAX} bytes')}"
        )
    return principal_of(raw)


def _timestamp(fields: Mapping[object, object], name: str, where: str) -> int:
    value = fields.get(name)
    if type(value) is not int or not 0 <= value <= _TIMESTAMP_NS_MAX:
        raise EnvelopeError(
            f"{where}.{name}: {_expected(value, 'nanoseconds since 1970 as an unsigned number')}"
        )
    return value


def _optional_blob(
    fields: Mapping[object, object], name: str, size_bytes_max: int, where: str = ""
) -> bytes | None:
    value = fields.get(name)
    if value is None:
        return None
    if type(value) is not bytes or len(value) > size_bytes_max:
        raise EnvelopeError(f"{where}{name}: {_expected(value, f'a blob of at most {size_bytes_max} bytes')}")
    return value


def _expected(value: object, wanted: str) -> str:
    if value is None:
        return f"the field is missing, send {wanted}"
    size = f" of length {len(value)}" if isinstance(value, (bytes, str, list, dict)) else ""
    return f"send {wanted}, not {type(value).__name__}{size}"


# --- request ids ----------------------------------------------------------------------------------


def _hash_fields(fields: dict[object, object], where: str) -> bytes:
    try:
        return hash_map(fields)
    except RepresentationError as error:
        raise EnvelopeError(f"{where}: {error}") from None


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()


_NAME_ARG, _NAME_CANISTER, _NAME_EXPIRY, _NAME_METHOD, _NAME_NONCE, _NAME_TYPE, _NAME_SENDER = (
    _digest(name)
    for name in (
        b"arg",
        b"canister_id",
        b"ingress_expiry",
        b"method_name",
        b"nonce",
        b"request_type",
        b"sender",
    )
)
_TYPE_PAIRS = {"call": _NAME_TYPE + _digest(b"call"), "query": _NAME_TYPE + _digest(b"query")}
assert _NAME_SENDER < _NAME_CANISTER < _NAME_EXPIRY < _NAME_METHOD < _NAME_TYPE < _NAME_NONCE < _NAME_ARG, (
    "the ordinary request id concatenates its fields in the order of their names' hashes"
)


def _ordinary_request_id(content: CallContent | QueryContent, kind: RequestKind) -> bytes:
    """Hash a call or query without extra fields: the same as `hash_map`, its order known beforehand."""
    nonce = content.nonce
    return sha256(
        b"".join(
            (
                _NAME_SENDER,
                sha256(content.sender.raw).digest(),
                _NAME_CANISTER,
                sha256(content.canister_id.raw).digest(),
                _NAME_EXPIRY,
                hash_nat(content.ingress_expiry_ns),
                _NAME_METHOD,
                sha256(content.method_name.encode()).digest(),
                _TYPE_PAIRS[kind],
                b"" if nonce is None else _NAME_NONCE + sha256(nonce).digest(),
                _NAME_ARG,
                sha256(content.arg).digest(),
            )
        )
    ).digest()


def request_id_of(content: RequestContent) -> bytes:
    """Compute the 32-byte id under which the request's status is found."""
    return hash_map(_content_fields(content))


# --- writing --------------------------------------------------------------------------------------


def build_envelope(content: RequestContent, identity: Signer, *, tagged: bool = True) -> bytes:
    """Sign a request, of which `identity` must be the sender, and encode it as the body of its POST."""
    assert content.sender == identity.principal, "the sender of a request is the identity that signs it"
    content_fields = _content_fields(content)
    fields: dict[str, CborSource] = {"content": content_fields}
    if identity.public_key_der is not None:
        fields["sender_pubkey"] = identity.public_key_der
        fields["sender_sig"] = identity.sign(REQUEST_DOMAIN + hash_map(content_fields))
        if identity.delegations:
            fields["sender_delegation"] = [
                {"delegation": delegation_fields(signed.delegation), "signature": signed.signature}
                for signed in identity.delegations
            ]
    return encode(fields, self_describe=tagged)


def delegation_fields(delegation: Delegation) -> dict[str, CborSource]:
    """Lay a delegation out as the map that is hashed, signed and sent."""
    fields: dict[str, CborSource] = {"pubkey": delegation.pubkey, "expiration": delegation.expiration_ns}
    if delegation.targets is not None:
        fields["targets"] = [target.raw for target in delegation.targets]
    if delegation.permissions is not None:
        fields["permissions"] = delegation.permissions
    return fields


def _content_fields(content: RequestContent) -> dict[str, CborSource]:
    fields: dict[str, CborSource] = {
        "sender": content.sender.raw,
        "ingress_expiry": content.ingress_expiry_ns,
    }
    if content.nonce is not None:
        fields["nonce"] = content.nonce
    if isinstance(content, ReadStateContent):
        fields["request_type"] = "read_state"
        fields["paths"] = [list(path) for path in content.paths]
        return fields
    fields["request_type"] = "call" if isinstance(content, CallContent) else "query"
    fields["canister_id"] = content.canister_id.raw
    fields["method_name"] = content.method_name
    fields["arg"] = content.arg
    if content.sender_info is not None:
        info = content.sender_info
        fields["sender_info"] = {"info": info.info, "signer": info.signer.raw, "sig": info.sig}
    return fields
