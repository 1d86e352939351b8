"""Signed answers to queries: every field is signed, and the body round-trips."""

from __future__ import annotations

import cbor2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.protocol.query_signature import (
    RESPONSE_DOMAIN,
    NodeSignature,
    QueryAnswer,
    QueryRejected,
    QueryReplied,
    QueryResponseError,
    decode_query_response,
    encode_query_response,
    sign_query_answer,
    verify_query_answer,
)
from cannery.protocol.representation import hash_map
from tests.protocol.requests import CANISTER, KEYS, NOW_NS, SESSION

REQUEST_ID = bytes(range(32))
answers: st.SearchStrategy[QueryAnswer] = st.binary(max_size=99).map(QueryReplied) | st.builds(
    QueryRejected, st.integers(1, 6), st.text(max_size=20), st.none() | st.text(max_size=9)
)


@given(answers, st.booleans())
def test_round_trip(answer: QueryAnswer, tagged: bool) -> None:
    signature = sign_query_answer(SESSION, answer, REQUEST_ID, NOW_NS)
    body = encode_query_response(answer, [signature], tagged=tagged)
    assert (body[:3] == b"\xd9\xd9\xf7") is tagged
    response = decode_query_response(body)
    assert response.answer == answer
    assert response.signatures == (signature,)
    assert verify_query_answer(SESSION.public_key_der, response.answer, REQUEST_ID, signature)


def test_what_is_signed_is_what_the_specification_says() -> None:
    fields = {
        "status": "replied",
        "reply": {"arg": b"DIDL\x00\x00"},
        "timestamp": NOW_NS,
        "request_id": REQUEST_ID,
    }
    expected = SESSION.sign(RESPONSE_DOMAIN + hash_map(fields))
    signature = sign_query_answer(SESSION, QueryReplied(b"DIDL\x00\x00"), REQUEST_ID, NOW_NS)
    assert signature == NodeSignature(NOW_NS, expected, SESSION.principal)
    rejected = {
        "status": "rejected",
        "reject_code": 4,
        "reject_message": "no",
        "error_code": "C1",
        "timestamp": NOW_NS,
        "request_id": REQUEST_ID,
    }
    signature = sign_query_answer(SESSION, QueryRejected(4, "no", "C1"), REQUEST_ID, NOW_NS)
    assert signature.signature == SESSION.sign(RESPONSE_DOMAIN + hash_map(rejected))


@given(answers, answers)
def test_each_field_is_signed(answer: QueryAnswer, other: QueryAnswer) -> None:
    key = SESSION.public_key_der
    signature = sign_query_answer(SESSION, answer, REQUEST_ID, NOW_NS)
    assert verify_query_answer(key, answer, REQUEST_ID, signature)
    assert verify_query_answer(key, other, REQUEST_ID, signature) is (answer == other)
    assert not verify_query_answer(key, answer, bytes(32), signature)
    later = msgspec.structs.replace(signature, timestamp_ns=NOW_NS + 1)
    assert not verify_query_answer(key, answer, REQUEST_ID, later)
    assert not verify_query_answer(KEYS[0].public_key_der, answer, REQUEST_ID, signature)


def test_a_key_that_is_none_verifies_nothing() -> None:
    signature = NodeSignature(NOW_NS, b"", CANISTER)
    assert not verify_query_answer(b"", QueryReplied(b""), REQUEST_ID, signature)


GOOD = {"status": "replied", "reply": {"arg": b""}, "signatures": []}
SIGNATURE = {"timestamp": 1, "signature": b"", "identity": b""}


@pytest.mark.parametrize(
    "change",
    [
        {"status": "unheard of"},
        {"reply": None},
        {"reply": {"arg": "text"}},
        {"status": "rejected"},
        {"status": "rejected", "reject_code": -1, "reject_message": ""},
        {"status": "rejected", "reject_code": 1, "reject_message": b""},
        {"status": "rejected", "reject_code": 1, "reject_message": "", "error_code": 1},
        {"signatures": {"a": 1}},
        {"signatures": [1]},
        {"signatures": [SIGNATURE] * 1000},
        {"signatures": [SIGNATURE | {"timestamp": -1}]},
        {"signatures": [SIGNATURE | {"signature": "x"}]},
        {"signatures": [SIGNATURE | {"identity": bytes(30)}]},
    ],
)
def test_malformed_responses_are_refused(change: dict[str, object]) -> None:
    assert decode_query_response(cbor2.dumps(GOOD | {"signatures": [SIGNATURE]})).answer == QueryReplied(b"")
    with pytest.raises(QueryResponseError):
        decode_query_response(cbor2.dumps(GOOD | change))
    with pytest.raises(QueryResponseError):
        decode_query_response(cbor2.dumps([GOOD]))
