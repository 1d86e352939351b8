"""Laws of the agent: what it believes, what it repeats, and that nothing it repeats runs twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.client.errors import Expired, Refused, Rejected, Unreachable, Unverified
from cannery.client.exchange import Answer, Lost
from cannery.protocol.bls import BlsKey
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import QueryRejected
from cannery.protocol.request_status import Done, Processing, Replied
from cannery.protocol.request_status import Rejected as RejectedStatus
from tests.client.fake_node import CANISTER, FakeNode

REFUSED = Lost("connection refused", sent=False)
RESET = Lost("connection reset", sent=True)
BUSY = Answer(429, {"retry-after": "3"}, b"slow down")
AWAY = Answer(503, {}, b"restarting")


def call(node: FakeNode, arg: bytes = b"x", **changes: object) -> object:
    conversation = node.conversation(**changes)
    return node.hold(conversation.call(conversation.sign_call(CANISTER, "greet", arg)))


def query(node: FakeNode, **changes: object) -> object:
    return node.hold(node.conversation(**changes).query(CANISTER, "greet", b"x"))


def test_a_call_is_answered_at_once() -> None:
    node = FakeNode()
    assert call(node) == b"ran x"
    assert len(node.sent) == 1


def test_a_call_that_takes_longer_is_polled_for() -> None:
    node = FakeNode(synchronous=False)
    assert call(node) == b"ran x"
    assert [request.path.rsplit("/", 1)[1] for request in node.sent] == ["call", "read_state"]


@given(st.lists(st.sampled_from([REFUSED, RESET, BUSY, AWAY, "lost"]), max_size=8))
@settings(max_examples=60, deadline=None)
def test_whatever_is_lost_a_call_runs_once(faults: list[object]) -> None:
    """`lost`: the node takes the call and the answer does not arrive."""
    node = FakeNode()
    node.outages = [None if fault == "lost" else fault for fault in faults]  # type: ignore[misc]
    node.lose = faults.count("lost")
    node.outages = [outage for outage in node.outages if outage is not None]
    assert call(node) == b"ran x"
    assert node.ran == [b"x"]
    assert len({request.body for request in node.sent}) == 1


def test_retry_after_is_obeyed() -> None:
    node = FakeNode(outages=[BUSY])
    assert call(node) == b"ran x"
    assert node.pauses[0].seconds == 3


def test_after_the_expiry_the_certified_status_decides_that_it_ran() -> None:
    node = FakeNode(lose=1)
    node.outages = [None, *[RESET] * 400]
    conversation = node.conversation()
    signed = conversation.sign_call(CANISTER, "greet", b"x")
    with pytest.raises(Unreachable) as caught:
        node.hold(conversation.call(signed))
    assert caught.value.request_id == signed.request_id
    node.outages.clear()
    assert node.hold(conversation.call(signed)) == b"ran x"
    assert node.ran == [b"x"]


def test_after_the_expiry_the_certified_status_decides_that_it_never_ran() -> None:
    node = FakeNode()
    conversation = node.conversation()
    signed = conversation.sign_call(CANISTER, "greet", b"x")
    node.outages = [RESET] * 125
    with pytest.raises(Expired, match="never ran") as caught:
        node.hold(conversation.call(signed))
    assert caught.value.ran is False
    assert node.ran == []


def test_a_node_that_was_never_reached_is_said_to_be_unreachable() -> None:
    node = FakeNode(outages=[REFUSED] * 1000)
    with pytest.raises(Unreachable, match="never sent") as caught:
        call(node)
    assert caught.value.request_id is None


def test_patience_bounds_the_attempts() -> None:
    node = FakeNode(outages=[REFUSED] * 1000)
    with pytest.raises(Unreachable):
        call(node, patience_ns=0)
    assert len(node.sent) == 1


def test_a_certified_reject() -> None:
    node = FakeNode(settle=lambda content: RejectedStatus(4, "no", "IC0406"))
    with pytest.raises(Rejected) as caught:
        call(node)
    assert (caught.value.code, caught.value.message, caught.value.certified) == (4, "no", True)
    assert caught.value.error_code == "IC0406"


def test_an_uncertified_reject() -> None:
    node = FakeNode()
    body = {"status": "non_replicated_rejection", "reject_code": 3, "reject_message": "no such canister"}
    node.outages = [node._cbor(body)]
    with pytest.raises(Rejected) as caught:
        call(node)
    assert (caught.value.code, caught.value.certified) == (3, False)


def test_a_call_whose_answer_is_gone() -> None:
    with pytest.raises(Expired) as caught:
        call(FakeNode(settle=lambda content: Done()))
    assert caught.value.ran is True


def test_a_call_that_does_not_end_is_given_up_with_its_id() -> None:
    node = FakeNode(settle=lambda content: Processing())
    with pytest.raises(Expired) as caught:
        call(node, answer_wait_ns=10_000_000_000)
    assert caught.value.ran is None


def test_a_bad_request_is_not_repeated() -> None:
    node = FakeNode(outages=[Answer(400, {}, b"wrong signature")])
    with pytest.raises(Refused, match="wrong signature"):
        call(node)
    assert len(node.sent) == 1


# --- what is believed ---


def flip(answer: Answer, position: int) -> Answer:
    body = bytearray(answer.body)
    body[position % len(body)] ^= 1 << (position // len(body)) % 8
    return replace(answer, body=bytes(body))


@given(st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_a_tampered_certificate_never_changes_the_answer(position: int) -> None:
    node = FakeNode()
    node.damage = lambda answer: flip(answer, position)
    try:
        reply = call(node)
    except Unverified:
        return
    except Rejected as error:
        reply = b"certified" if error.certified else b"ran x"
    assert reply == b"ran x"


@given(st.integers(0, 10_000))
@settings(max_examples=80, deadline=None)
def test_a_tampered_query_answer_never_changes_the_reply(position: int) -> None:
    node = FakeNode()
    conversation = node.conversation()
    assert node.hold(conversation.query(CANISTER, "greet", b"x")) == b"asked x"
    node.damage = lambda answer: flip(answer, position)
    try:
        reply = node.hold(conversation.query(CANISTER, "greet", b"x"))
    except Unverified:
        return
    assert reply == b"asked x"


def test_another_root_key_is_refused() -> None:
    other = BlsKey.from_seed(bytes([1]) * 32).public_key_der
    with pytest.raises(Unverified):
        call(FakeNode(), root_key=other)
    with pytest.raises(Unverified):
        query(FakeNode(), root_key=other)


def test_the_root_key_that_is_shown_first_is_kept() -> None:
    node = FakeNode()
    conversation = node.conversation(root_key=None)
    node.hold(conversation.query(CANISTER, "greet", b"x"))
    node.key = BlsKey.from_seed(bytes([1]) * 32)
    with pytest.raises(Unverified):
        node.hold(conversation.read_state([(b"time",)], CANISTER))


def test_a_query_signed_by_a_stranger_is_refused() -> None:
    node = FakeNode()
    conversation = node.conversation()
    node.hold(conversation.query(CANISTER, "greet", b"x"))
    stranger = Ed25519Identity(bytes([9]) * 32)
    honest, node.node = node.node, stranger
    certify = node.certify
    node.node = stranger

    def certify_honest(paths: object) -> bytes:
        node.node = honest
        try:
            return certify(paths)  # type: ignore[arg-type]
        finally:
            node.node = stranger

    node.certify = certify_honest  # type: ignore[method-assign]
    with pytest.raises(Unverified, match="not signed by a node"):
        node.hold(conversation.query(CANISTER, "greet", b"x"))


def test_a_node_key_that_changed_is_learnt_anew() -> None:
    node = FakeNode()
    conversation = node.conversation()
    node.hold(conversation.query(CANISTER, "greet", b"x"))
    node.node = Ed25519Identity(bytes([9]) * 32)
    assert node.hold(conversation.query(CANISTER, "greet", b"x")) == b"asked x"


def test_node_keys_are_asked_for_once() -> None:
    node = FakeNode()
    conversation = node.conversation()
    for _ in range(3):
        node.hold(conversation.query(CANISTER, "greet", b"x"))
    assert [request.path.rsplit("/", 1)[1] for request in node.sent] == [
        "query",
        "read_state",
        "query",
        "query",
    ]


def test_a_query_reject_is_signed_too() -> None:
    with pytest.raises(Rejected) as caught:
        query(FakeNode(answer_query=lambda content: QueryRejected(5, "trapped")))
    assert (caught.value.code, caught.value.certified) == (5, False)


def test_a_canister_outside_the_ranges_is_refused() -> None:
    node = FakeNode()
    elsewhere = Principal(b"\0\0\1" + bytes(5) + b"\1\1")
    with pytest.raises(Unverified, match="none of the ranges"):
        node.hold(node.conversation().query(elsewhere, "greet", b""))


@pytest.mark.parametrize("skew_s", [-600, 600])
def test_answers_of_another_time_are_refused(skew_s: int) -> None:
    node = FakeNode(skew_ns=skew_s * 1_000_000_000, settle=lambda content: Replied(b""))
    with pytest.raises((Unverified, Refused)):
        call(node)
    with pytest.raises(Unverified):
        query(node)


@pytest.mark.parametrize("skew_s", [-301, 301])
def test_a_query_answer_of_another_time_is_refused(skew_s: int) -> None:
    node = FakeNode()
    conversation = node.conversation()
    node.hold(conversation.query(CANISTER, "greet", b"x"))
    node.skew_ns = skew_s * 1_000_000_000
    with pytest.raises(Unverified, match="another time"):
        node.hold(conversation.query(CANISTER, "greet", b"x"))


# --- large bodies ---

LARGE = bytes(range(256)) * 4096 * 10


def test_a_large_argument_goes_ahead_in_parts() -> None:
    node, progress = FakeNode(), []
    assert (
        call(node, LARGE, on_progress=lambda there, total: progress.append(there / total)) == b"ran " + LARGE
    )
    assert progress == sorted(progress)
    assert progress[-1] == 1
    assert len(progress) == 4
    assert node.sent[-1].body == b""


def test_an_upload_goes_on_where_it_broke() -> None:
    node = FakeNode(outages=[None, None, RESET, RESET])
    assert call(node, LARGE) == b"ran " + LARGE
    parts = [request for request in node.sent if request.method == "PATCH"]
    assert sum(len(part.body) for part in parts) < len(LARGE) + 5_000_000


def test_a_body_that_the_node_forgot_is_brought_again() -> None:
    node = FakeNode(forget_bodies=1)
    assert call(node, LARGE) == b"ran " + LARGE
    assert node.ran == [LARGE]


def test_a_large_answer_that_broke_off_is_read_on() -> None:
    from hashlib import sha256

    node = FakeNode()
    whole: list[Answer] = []

    def keep(answer: Answer) -> Answer:
        whole.append(answer)
        return answer

    node.damage = keep
    conversation = node.conversation()
    signed = conversation.sign_call(CANISTER, "greet", b"y" * 1000)
    node.hold(conversation.call(signed))
    body = whole[0].body
    name = sha256(body).hexdigest()
    node.bodies[name] = body
    node.outages = [Lost("reset", True, Answer(200, {"cannery-body": name}, body[:500])), RESET]
    assert node.hold(conversation.call(signed)) == b"ran " + b"y" * 1000
    assert node.sent[-1].headers["range"] == "bytes=500-"


def test_a_rest_that_does_not_fit_is_asked_for_once() -> None:
    node = FakeNode()
    name = "ab" * 32
    node.bodies[name] = b"something else"
    node.outages = [Lost("reset", True, Answer(200, {"cannery-body": name}, b"some"))]
    assert call(node) == b"ran x"
    assert [request.method for request in node.sent] == ["POST", "GET", "POST"]


def test_metadata_and_absence() -> None:
    from cannery.protocol.hash_tree import Absent, Found, lookup

    node = FakeNode()
    path = (b"canister", CANISTER.raw, b"metadata", b"candid:service")
    certificate = node.hold(node.conversation().read_state([path], CANISTER))
    assert lookup(certificate.tree, path) == Found(b"service : {}")  # type: ignore[attr-defined]
    path = (*path[:3], b"nothing")
    certificate = node.hold(node.conversation().read_state([path], CANISTER))
    assert lookup(certificate.tree, path) == Absent()  # type: ignore[attr-defined]
