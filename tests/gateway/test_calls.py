"""Update calls over HTTP: synchronous and asynchronous answers, their certificates, repeats."""

from __future__ import annotations

import time

import pytest

from cannery.protocol import cbor
from cannery.protocol.envelope import request_id_of
from cannery.protocol.request_status import Rejected, Replied, read_request_status
from tests.gateway.conftest import (
    ALICE,
    CANISTER,
    NOBODY,
    Node,
    call_content,
    certificate_of,
    envelope,
    fields_of,
)


@pytest.mark.parametrize("version", [3, 4])
def test_a_synchronous_call_is_answered_with_its_certificate(node: Node, version: int) -> None:
    content = call_content("echo", b"hello")
    response = node.post(f"/api/v{version}/canister/{CANISTER}/call", envelope(content))
    assert fields_of(response)["status"] == "replied"
    tree = certificate_of(response).tree
    assert read_request_status(tree, request_id_of(content)) == Replied(b"hello")


def test_a_canisters_reject_is_certified(node: Node) -> None:
    content = call_content("reject")
    response = node.post(f"/api/v4/canister/{CANISTER}/call", envelope(content))
    assert fields_of(response)["status"] == "replied"
    status = read_request_status(certificate_of(response).tree, request_id_of(content))
    assert status == Rejected(4, "no, says the canister", "IC0406")


@pytest.mark.parametrize("version", [3, 4])
def test_a_call_that_is_not_let_in_gets_a_plain_reject(node: Node, version: int) -> None:
    assert fields_of(node.call("refuse", version=version)) == {
        "status": "non_replicated_rejection",
        "reject_code": 3,
        "reject_message": "no such canister here",
        "error_code": "IC0301",
    }


def test_an_asynchronous_call_is_accepted(node: Node) -> None:
    response = node.call("echo", version=2)
    assert (response.status_code, response.content) == (202, b"")


def test_an_asynchronous_call_that_is_not_let_in_has_no_status(node: Node) -> None:
    assert fields_of(node.call("refuse", version=2)) == {
        "reject_code": 3,
        "reject_message": "no such canister here",
        "error_code": "IC0301",
    }


@pytest.mark.parametrize("version", [3, 4])
def test_a_slow_call_is_202_once_it_is_durable(node: Node, version: int) -> None:
    response = node.call("slow", version=version)
    assert (response.status_code, response.content) == (202, b"")


@pytest.mark.parametrize("version", [2, 3, 4])
def test_a_call_that_is_not_durable_is_never_acknowledged(node: Node, version: int) -> None:
    response = node.call("never", version=version)
    assert response.status_code == 503
    assert "send the very same request again" in response.text
    assert int(response.headers["retry-after"]) > 0


def test_a_repeated_call_gets_the_stored_answer(node: Node) -> None:
    body = envelope(call_content("echo", b"once"))
    first = node.post(f"/api/v4/canister/{CANISTER}/call", body)
    rounds = node.script.round_count
    again = node.post(f"/api/v4/canister/{CANISTER}/call", body)
    assert node.script.round_count == rounds
    assert fields_of(first).keys() == fields_of(again).keys()
    certificate_of(again)


def test_anonymous_calls_are_served(node: Node) -> None:
    assert fields_of(node.call("echo", who=NOBODY))["status"] == "replied"
    assert node.script.submitted[-1].sender == NOBODY.principal.raw


def test_what_reaches_the_subnet_is_what_was_signed(node: Node) -> None:
    content = call_content("echo", b"\x00\xff")
    node.post(f"/api/v4/canister/{CANISTER}/call", envelope(content))
    ingress = node.script.submitted[-1]
    assert ingress.request_id == request_id_of(content)
    assert (ingress.sender, ingress.canister_id) == (ALICE.principal.raw, CANISTER.raw)
    assert (ingress.method, ingress.arg, ingress.expiry_ns) == (
        "echo",
        b"\x00\xff",
        content.ingress_expiry_ns,
    )


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize(
    ("version", "method"), [(2, "refuse"), (3, "refuse"), (4, "refuse"), (3, "echo"), (4, "echo")]
)
def test_the_answer_mirrors_the_requests_tag(node: Node, tagged: bool, version: int, method: str) -> None:
    body = envelope(call_content(method), tagged=tagged)
    response = node.post(f"/api/v{version}/canister/{CANISTER}/call", body)
    value, mirrored = cbor.decode(response.content)
    assert mirrored is tagged
    if method == "echo":
        assert isinstance(value, dict)
        certificate = value["certificate"]
        assert isinstance(certificate, bytes)
        assert certificate.startswith(b"\xd9\xd9\xf7")


def test_null_fields_are_absent_fields(node: Node) -> None:
    content = {
        "request_type": "call",
        "sender": b"\x04",
        "canister_id": CANISTER.raw,
        "method_name": "echo",
        "arg": b"x",
        "ingress_expiry": time.time_ns() + 10**11,
        "nonce": None,
    }
    fields: dict[str, cbor.CborSource] = {"content": content, "sender_pubkey": None, "sender_sig": None}
    response = node.post(f"/api/v4/canister/{CANISTER}/call", cbor.encode(fields, self_describe=False))
    assert fields_of(response)["status"] == "replied"


def test_one_signature_serves_all_answers_of_a_round(node: Node) -> None:
    contents = [call_content("echo", bytes([number])) for number in range(20)]
    signed, rounds = node.gateway._certifiers[0].signature_count, node.script.round_count
    responses = node.post_together(
        f"/api/v4/canister/{CANISTER}/call", [envelope(content) for content in contents]
    )
    for content, response in zip(contents, responses, strict=True):
        tree = certificate_of(response).tree
        assert read_request_status(tree, request_id_of(content)) == Replied(content.arg)
    assert node.script.round_count == rounds + 1
    assert node.gateway._certifiers[0].signature_count == signed + 1
