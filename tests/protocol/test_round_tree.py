"""The round's shared tree: every answer's certificate proves that answer, under one root."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.protocol.bls import BlsKey
from cannery.protocol.certificate import (
    certificate_time_ns,
    decode_certificate,
    encode_certificate,
    state_root_message,
    verify_certificate,
)
from cannery.protocol.hash_tree import Pruned, Unknown, build_tree, child_labels, decode_tree, lookup_subtree
from cannery.protocol.request_status import (
    Done,
    Processing,
    Received,
    Rejected,
    Replied,
    RequestStatus,
    RequestStatusError,
    read_request_status,
    status_data,
)
from cannery.protocol.round_tree import RoundTree

KEY = BlsKey.from_seed(b"round" * 8)
NOW_NS = 1_700_000_000_000_000_000

statuses: st.SearchStrategy[RequestStatus] = (
    st.binary(max_size=300).map(Replied)
    | st.builds(Rejected, st.integers(1, 6), st.text(max_size=30), st.none() | st.just("IC0503"))
    | st.sampled_from([Received(), Processing(), Done()])
)
rounds = st.lists(
    st.tuples(st.binary(min_size=32, max_size=32), statuses), max_size=20, unique_by=lambda pair: pair[0]
)


@given(rounds)
def test_each_answer_is_proven_under_the_one_root(answers: list[tuple[bytes, RequestStatus]]) -> None:
    tree = RoundTree(NOW_NS, answers)
    for index, (request_id, status) in enumerate(answers):
        shown = decode_tree(tree.encoded_tree(index))
        assert shown.digest == tree.root_hash
        assert read_request_status(shown, request_id) == status
        # The other answers of the round stay hidden.
        others = [label for label in child_labels(shown, (b"request_status",)) if label != request_id]
        assert others == []


@settings(max_examples=15)
@given(rounds.filter(bool))
def test_the_certificate_is_encoded_as_the_general_way_does(
    answers: list[tuple[bytes, RequestStatus]],
) -> None:
    tree = RoundTree(NOW_NS, answers)
    signature = KEY.sign(state_root_message(tree.root_hash))
    encoded = tree.certificate(0, signature)
    certificate = decode_certificate(encoded)
    assert encode_certificate(certificate) == encoded
    assert cbor2.loads(encoded)["signature"] == signature
    verify_certificate(certificate, KEY.public_key_der, now_ns=NOW_NS)
    assert certificate_time_ns(certificate) == NOW_NS


def test_a_round_without_answers_has_a_root() -> None:
    assert RoundTree(7, []).root_hash == build_tree({b"request_status": {}, b"time": b"\x07"}).digest


def test_a_round_of_two_powers_equals_the_general_tree() -> None:
    answers = [(bytes([n]) * 32, Replied(bytes([n]))) for n in range(8)]
    general = build_tree({b"request_status": {i: dict(status_data(s)) for i, s in answers}, b"time": b"\x07"})
    assert RoundTree(7, answers).root_hash == general.digest


def test_status_of_another_request_is_unknown_and_raises() -> None:
    answers: list[tuple[bytes, RequestStatus]] = [(bytes([n]) * 32, Replied(b"")) for n in range(4)]
    shown = decode_tree(RoundTree(7, answers).encoded_tree(1))
    found = lookup_subtree(shown, (b"request_status", bytes(32)))
    assert isinstance(found, (Unknown, Pruned))
    with pytest.raises(RequestStatusError):
        read_request_status(shown, bytes(32))


def test_an_absent_status_is_none() -> None:
    assert read_request_status(build_tree({b"time": b"\x07"}), bytes(32)) is None


@pytest.mark.parametrize(
    "leaves",
    [
        {b"status": b"replied"},
        {b"status": b"rejected", b"reject_code": b"\x04"},
        {b"status": b"rejected", b"reject_code": b"\x84\x00", b"reject_message": b"no"},
        {b"status": b"rejected", b"reject_code": b"\x04", b"reject_message": b"\xff"},
        {b"status": b"unheard of"},
        {b"status": {b"inner": b""}},
    ],
)
def test_malformed_statuses_are_refused(leaves: dict[bytes, bytes]) -> None:
    with pytest.raises(RequestStatusError):
        read_request_status(build_tree({b"request_status": {bytes(32): leaves}}), bytes(32))
