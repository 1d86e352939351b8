"""Answers to queries, signed by the node that gave them.

IC interface specification, section "Request: Query call" (`node-signature`, `verify_node_signatures`).
Which node keys count is for whoever read them from a certificate to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import TypeAlias

import msgspec

from cannery.errors import DecodeError
from cannery.limits import CBOR_DEPTH_MAX, QUERY_SIGNATURE_COUNT_MAX
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX, CborError, CborSource, decode_any_keys, encode
from cannery.protocol.hash_tree import encode_blob, encode_blob_head
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import PRINCIPAL_SIZE_BYTES_MAX, Principal
from cannery.protocol.public_key import CanisterKey, PublicKeyError, parse_public_key
from cannery.protocol.representation import encode_leb128, hash_map

RESPONSE_DOMAIN = b"\x0bic-response"
_TIMESTAMP_NS_MAX = 2**64 - 1


class QueryResponseError(DecodeError):
    """Bytes are not the response to a query."""


class QueryReplied(msgspec.Struct, frozen=True, tag=True):
    """The query succeeded with this Candid reply."""

    arg: bytes


class QueryRejected(msgspec.Struct, frozen=True, tag=True):
    """The query was refused or failed."""

    reject_code: int
    reject_message: str
    error_code: str | None = None


QueryAnswer: TypeAlias = QueryReplied | QueryRejected


class NodeSignature(msgspec.Struct, frozen=True):
    """A node's signature of an answer, at a time."""

    timestamp_ns: int
    signature: bytes
    identity: Principal


class QueryResponse(msgspec.Struct, frozen=True):
    """An answer with the signatures that came with it."""

    answer: QueryAnswer
    signatures: tuple[NodeSignature, ...]


def sign_query_answer(
    node: Ed25519Identity, answer: QueryAnswer, request_id: bytes, timestamp_ns: int
) -> NodeSignature:
    """Sign an answer as a node."""
    message = _signed_message(answer, request_id, timestamp_ns)
    return NodeSignature(timestamp_ns, node.sign(message), node.principal)


def verify_query_answer(
    node_public_key_der: bytes, answer: QueryAnswer, request_id: bytes, signature: NodeSignature
) -> bool:
    """Tell whether the node with this key signed this answer to this request at the signature's time."""
    try:
        key = parse_public_key(node_public_key_der)
    except PublicKeyError:
        return False
    if isinstance(key, CanisterKey):
        return False
    message = _signed_message(answer, request_id, signature.timestamp_ns)
    return key.verify(message, signature.signature)


def _signed_message(answer: QueryAnswer, request_id: bytes, timestamp_ns: int) -> bytes:
    if isinstance(answer, QueryReplied):
        return RESPONSE_DOMAIN + _replied_hash(answer.arg, request_id, timestamp_ns)
    fields = _answer_fields(answer) | {"timestamp": timestamp_ns, "request_id": request_id}
    return RESPONSE_DOMAIN + hash_map(fields)


def _digest(data: bytes) -> bytes:
    return sha256(data).digest()


_NAME_REPLY, _NAME_REQUEST_ID, _NAME_STATUS, _NAME_TIMESTAMP = (
    _digest(name) for name in (b"reply", b"request_id", b"status", b"timestamp")
)
assert _NAME_STATUS < _NAME_TIMESTAMP < _NAME_REPLY < _NAME_REQUEST_ID, (
    "the hash of a reply concatenates its fields in the order of their names' hashes"
)
_REPLIED_HEAD = _NAME_STATUS + _digest(b"replied") + _NAME_TIMESTAMP
_NAME_ARG = _digest(b"arg")


def _replied_hash(arg: bytes, request_id: bytes, timestamp_ns: int) -> bytes:
    """Hash a reply: the same as `hash_map`, its order known beforehand."""
    return _digest(
        b"".join(
            (
                _REPLIED_HEAD,
                _digest(encode_leb128(timestamp_ns)),
                _NAME_REPLY,
                _digest(_NAME_ARG + _digest(arg)),
                _NAME_REQUEST_ID,
                _digest(request_id),
            )
        )
    )


def _answer_fields(answer: QueryAnswer) -> dict[str, CborSource]:
    if isinstance(answer, QueryReplied):
        return {"status": "replied", "reply": {"arg": answer.arg}}
    fields: dict[str, CborSource] = {
        "status": "rejected",
        "reject_code": answer.reject_code,
        "reject_message": answer.reject_message,
    }
    if answer.error_code is not None:
        fields["error_code"] = answer.error_code
    return fields


# --- the body of the response ---------------------------------------------------------------------


def encode_query_response(answer: QueryAnswer, signatures: Sequence[NodeSignature], *, tagged: bool) -> bytes:
    """Encode the body of the HTTP response to a query."""
    if len(signatures) == 1:
        return b"".join(query_response_parts(answer, signatures[0], tagged=tagged))
    return _encode_response(answer, signatures, tagged)


def query_response_parts(answer: QueryAnswer, signature: NodeSignature, *, tagged: bool) -> list[bytes]:
    """Encode the same with one signature, in parts: a large reply is not copied."""
    if isinstance(answer, QueryReplied):
        return _replied_parts(answer.arg, signature, tagged)
    return [_encode_response(answer, (signature,), tagged)]


def _encode_response(answer: QueryAnswer, signatures: Sequence[NodeSignature], tagged: bool) -> bytes:
    signature_fields: list[CborSource] = [
        {"timestamp": one.timestamp_ns, "signature": one.signature, "identity": one.identity.raw}
        for one in signatures
    ]
    return encode(_answer_fields(answer) | {"signatures": signature_fields}, self_describe=tagged)


# Maps and lists of a fixed shape, up to the bytes that differ.
_STATUS_REPLIED = b"\xa3\x66status\x67replied\x65reply\xa1\x63arg"
_ONE_SIGNATURE = b"\x6asignatures\x81\xa3\x69timestamp\x1b"
_SIGNATURE = b"\x69signature"
_IDENTITY = b"\x68identity"


def _replied_parts(arg: bytes, signature: NodeSignature, tagged: bool) -> list[bytes]:
    """Encode a reply with one signature, the ordinary case, without laying out its maps."""
    head = SELF_DESCRIBE_PREFIX + _STATUS_REPLIED if tagged else _STATUS_REPLIED
    tail = (
        _ONE_SIGNATURE,
        signature.timestamp_ns.to_bytes(8, "big"),
        _SIGNATURE,
        encode_blob(signature.signature),
        _IDENTITY,
        encode_blob(signature.identity.raw),
    )
    return [head + encode_blob_head(len(arg)), arg, b"".join(tail)]


def decode_query_response(body: bytes) -> QueryResponse:
    """Read the body of the HTTP response to a query; the signatures are not checked."""
    try:
        fields, _tagged = decode_any_keys(body, CBOR_DEPTH_MAX)
    except CborError as error:
        raise QueryResponseError(f"the response to a query is CBOR: {error}") from None
    if type(fields) is not dict:
        raise QueryResponseError("the response to a query is a map")
    signatures = fields.get("signatures") or []
    if type(signatures) is not list or len(signatures) > QUERY_SIGNATURE_COUNT_MAX:
        raise QueryResponseError(f"signatures: a list of at most {QUERY_SIGNATURE_COUNT_MAX}")
    return QueryResponse(_parse_answer(fields), tuple([_parse_signature(one) for one in signatures]))


def _parse_answer(fields: Mapping[object, object]) -> QueryAnswer:
    if fields.get("status") == "replied":
        reply = fields.get("reply")
        arg = reply.get("arg") if type(reply) is dict else None
        if type(arg) is not bytes:
            raise QueryResponseError("reply.arg: a blob")
        return QueryReplied(arg)
    if fields.get("status") == "rejected":
        code, message, error_code = (
            fields.get("reject_code"),
            fields.get("reject_message"),
            fields.get("error_code"),
        )
        if type(code) is not int or not 0 <= code <= _TIMESTAMP_NS_MAX or type(message) is not str:
            raise QueryResponseError("reject_code and reject_message: a number and a text")
        if error_code is not None and type(error_code) is not str:
            raise QueryResponseError("error_code: a text")
        return QueryRejected(code, message, error_code)
    raise QueryResponseError('status: "replied" or "rejected"')


def _parse_signature(value: object) -> NodeSignature:
    if type(value) is not dict:
        raise QueryResponseError("signatures: each is a map")
    timestamp, signature, identity = value.get("timestamp"), value.get("signature"), value.get("identity")
    if type(timestamp) is not int or not 0 <= timestamp <= _TIMESTAMP_NS_MAX:
        raise QueryResponseError("signatures.timestamp: nanoseconds since 1970")
    if (
        type(signature) is not bytes
        or type(identity) is not bytes
        or len(identity) > PRINCIPAL_SIZE_BYTES_MAX
    ):
        raise QueryResponseError("signatures.signature and signatures.identity: blobs")
    return NodeSignature(timestamp, signature, Principal(identity))
