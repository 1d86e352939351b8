"""Every decoder of the protocol, its one error and what it accepts; `tests/test_fuzz.py` has the laws."""

from __future__ import annotations

import cbor2

from cannery.protocol.authentication import AuthenticationError, authenticate
from cannery.protocol.bls import BlsKey, BlsKeyError, parse_root_key_der
from cannery.protocol.cbor import CborError, decode
from cannery.protocol.certificate import (
    CertificateDelegation,
    CertificateError,
    build_certificate,
    decode_canister_ranges,
    decode_certificate,
    encode_canister_ranges,
    encode_certificate,
    verify_certificate,
)
from cannery.protocol.envelope import EnvelopeError, build_envelope, parse_envelope
from cannery.protocol.hash_tree import HashTreeError, build_tree, decode_tree, encode_tree, lookup
from cannery.protocol.identity import IdentityError, delegated
from cannery.protocol.pem import format_pem, parse_pem
from cannery.protocol.principal import Principal, PrincipalError
from cannery.protocol.public_key import (
    ALGORITHM_CANISTER,
    CanisterKey,
    PublicKeyError,
    encode_public_key,
    parse_public_key,
)
from cannery.protocol.query_signature import (
    QueryReplied,
    QueryResponseError,
    decode_query_response,
    encode_query_response,
    sign_query_answer,
)
from cannery.protocol.representation import RepresentationError, decode_leb128, encode_leb128
from cannery.protocol.request_status import RequestStatusError, read_request_status
from tests.fuzzing import Decoder
from tests.protocol.requests import (
    CANISTER,
    EXPIRY_NS,
    KEYS,
    NOW_NS,
    SESSION,
    call_content,
    query_content,
    read_state_content,
)
from tests.protocol.test_public_key import SPECIFICATION_COSE_KEY

ROOT = BlsKey.from_seed(b"root" * 8)
TREE = build_tree(
    {
        b"request_status": {
            bytes(32): {b"status": b"rejected", b"reject_code": b"\4", b"reject_message": b"no"}
        },
        b"subnet": {CANISTER.raw: {b"public_key": ROOT.public_key_der, b"type": b"application"}},
        b"time": encode_leb128(NOW_NS),
    }
)
PLAIN = encode_certificate(build_certificate(TREE, ROOT))
CERTIFICATE = encode_certificate(build_certificate(TREE, ROOT, CertificateDelegation(CANISTER, PLAIN)))
KEY = CanisterKey(CANISTER, b"")
SIGNATURE = cbor2.dumps({"certificate": PLAIN, "tree": cbor2.loads(encode_tree(TREE))})


def _authenticate(body: bytes) -> None:
    try:
        authenticate(parse_envelope(body, "call"), NOW_NS, root_key=ROOT.public_key_der)
    except EnvelopeError as error:
        raise AuthenticationError(400, str(error)) from None


def _verify(data: bytes) -> None:
    verify_certificate(
        decode_certificate(data), ROOT.public_key_der, now_ns=NOW_NS, effective_canister_id=CANISTER
    )


def _status(data: bytes) -> None:
    try:
        read_request_status(decode_tree(data), bytes(32))
    except HashTreeError as error:
        raise RequestStatusError(str(error)) from None


OWNER = KEYS[2]
CALL = build_envelope(
    call_content(OWNER.principal), delegated(OWNER, SESSION, EXPIRY_NS, [CANISTER], "all"), tagged=False
)
QUERY = build_envelope(query_content(OWNER.principal), OWNER)
READ = build_envelope(read_state_content(OWNER.principal), OWNER)
ANSWER = QueryReplied(b"DIDL\x00\x00")
RESPONSE = encode_query_response(ANSWER, [sign_query_answer(SESSION, ANSWER, bytes(32), NOW_NS)], tagged=True)
PUBLIC_KEYS = (
    *[key.public_key_der for key in KEYS],
    SPECIFICATION_COSE_KEY,
    encode_public_key(ALGORITHM_CANISTER, b"\x0a" + CANISTER.raw + b"seed"),
)
DECODERS = {
    "principal": Decoder(Principal, PrincipalError, (b"", CANISTER.raw)),
    "principal text": Decoder(
        lambda data: Principal.parse(data.decode("latin-1")), PrincipalError, (str(CANISTER).encode(),)
    ),
    "cbor": Decoder(decode, CborError, (CALL, CERTIFICATE, RESPONSE)),
    "number": Decoder(decode_leb128, RepresentationError, (encode_leb128(NOW_NS),)),
    "call": Decoder(lambda data: parse_envelope(data, "call"), EnvelopeError, (CALL,)),
    "query": Decoder(lambda data: parse_envelope(data, "query"), EnvelopeError, (QUERY,)),
    "read_state": Decoder(lambda data: parse_envelope(data, "read_state"), EnvelopeError, (READ,)),
    "authentication": Decoder(_authenticate, AuthenticationError, (CALL,)),
    "tree": Decoder(decode_tree, HashTreeError, (encode_tree(TREE),)),
    "lookup": Decoder(
        lambda data: lookup(decode_tree(data), (b"time",)), HashTreeError, (encode_tree(TREE),)
    ),
    "status": Decoder(_status, RequestStatusError, (encode_tree(TREE),)),
    "certificate": Decoder(decode_certificate, CertificateError, (PLAIN, CERTIFICATE)),
    "verification": Decoder(_verify, CertificateError, (PLAIN,)),
    "ranges": Decoder(
        decode_canister_ranges, CertificateError, (encode_canister_ranges([(CANISTER, CANISTER)]),)
    ),
    "public key": Decoder(parse_public_key, PublicKeyError, PUBLIC_KEYS),
    "root key": Decoder(parse_root_key_der, BlsKeyError, (ROOT.public_key_der,)),
    "query response": Decoder(decode_query_response, QueryResponseError, (RESPONSE,)),
    "pem": Decoder(
        lambda data: parse_pem(data.decode("latin-1")),
        IdentityError,
        tuple(format_pem(key).encode() for key in KEYS),
    ),
}
