"""Queries over HTTP: signatures of replies and rejects, tags, the icp tool's question."""

from __future__ import annotations

import time

import pytest

from cannery.protocol import cbor
from cannery.protocol.envelope import QueryContent, request_id_of
from cannery.protocol.identity import P256Identity, Secp256k1Identity
from cannery.protocol.principal import Principal
from cannery.protocol.query_signature import (
    QueryAnswer,
    QueryRejected,
    QueryReplied,
    decode_query_response,
    verify_query_answer,
)
from tests.gateway.conftest import (
    ALICE,
    CANISTER,
    NOBODY,
    NODE_KEY,
    SUBNET,
    Node,
    envelope,
    expiry_ns,
    query_content,
)


def _check(node: Node, content: QueryContent, body: bytes, version: int = 3) -> QueryAnswer:
    response = node.post(f"/api/v{version}/canister/{content.canister_id}/query", body)
    assert response.status_code == 200, response.text
    answer = decode_query_response(response.content)
    (signature,) = answer.signatures
    assert signature.identity == NODE_KEY.principal
    assert abs(signature.timestamp_ns - time.time_ns()) < 10**10
    assert verify_query_answer(NODE_KEY.public_key_der, answer.answer, request_id_of(content), signature)
    return answer.answer


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize(
    "who", [ALICE, Secp256k1Identity(bytes(31) + b"\x07"), P256Identity(bytes(31) + b"\x07"), NOBODY]
)
def test_a_reply_is_signed_by_the_node(node: Node, version: int, who: object) -> None:
    content = query_content("echo", b"hello", who)  # type: ignore[arg-type]
    assert _check(node, content, envelope(content, who), version) == QueryReplied(b"hello")  # type: ignore[arg-type]


def test_a_reject_is_signed_by_the_node(node: Node) -> None:
    content = query_content("reject")
    assert _check(node, content, envelope(content)) == QueryRejected(4, "no, says the canister", "IC0406")


@pytest.mark.parametrize("tagged", [True, False])
@pytest.mark.parametrize("method", ["echo", "reject"])
def test_the_answer_mirrors_the_requests_tag(node: Node, tagged: bool, method: str) -> None:
    body = envelope(query_content(method), tagged=tagged)
    assert cbor.decode(node.post(f"/api/v3/canister/{CANISTER}/query", body).content)[1] is tagged


def test_anonymous_queries_may_have_any_expiry(node: Node) -> None:
    content = QueryContent(NOBODY.principal, CANISTER, "echo", b"old", 1)
    assert _check(node, content, envelope(content, NOBODY)) == QueryReplied(b"old")


def test_the_icp_tool_learns_where_canisters_may_be_created(node: Node) -> None:
    minting = Principal.parse("rkp4c-7iaaa-aaaaa-aaaca-cai")
    content = QueryContent(NOBODY.principal, minting, "get_default_subnets", b"DIDL\x00\x00", expiry_ns())
    asked = len(node.script.asked)
    answer = _check(node, content, envelope(content, NOBODY))
    assert answer == QueryReplied(b"DIDL\x01\x6d\x68\x01\x00\x01\x01\x1d" + SUBNET.raw)
    assert len(node.script.asked) == asked


def test_other_queries_of_that_canister_go_to_the_subnet(node: Node) -> None:
    minting = Principal.parse("rkp4c-7iaaa-aaaaa-aaaca-cai")
    content = QueryContent(NOBODY.principal, minting, "echo", b"", expiry_ns())
    assert _check(node, content, envelope(content, NOBODY)) == QueryReplied(b"")
    assert node.script.asked[-1].canister_id == minting.raw


def test_a_silent_subnet_is_a_timeout(node: Node) -> None:
    node.script.silent = True
    try:
        response = node.query("echo")
    finally:
        node.script.silent = False
    assert response.status_code == 504
    assert "ask again later" in response.text
