"""CORS, rate limits, the pages about the node."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_fields

from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.protocol import cbor
from cannery.protocol.principal import Principal
from tests.gateway.conftest import (
    ALICE,
    BOB,
    CANISTER,
    NOBODY,
    QUICK,
    ROOT_KEY,
    SUBNET,
    Node,
    call_content,
    envelope,
)
from tests.node.exposition import read_exposition

OTHER_CANISTER = Principal((0x100001).to_bytes(8, "big") + b"\x01\x01")
PATHS = ["/api/v2/status", f"/api/v4/canister/{CANISTER}/call", f"/cannery/body/{'00' * 32}", "/cannery.json"]


@pytest.mark.parametrize("path", PATHS)
def test_preflight(node: Node, path: str) -> None:
    asked = {
        "origin": "https://example.com",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type, cannery-body",
    }
    response = node.http.options(path, headers=asked)
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert int(response.headers["access-control-max-age"]) >= 3600
    assert {"POST", "GET", "PATCH", "HEAD"} <= set(
        response.headers["access-control-allow-methods"].split(", ")
    )
    allowed = response.headers["access-control-allow-headers"].split(", ")
    assert {"content-type", "cannery-body", "upload-offset", "upload-length", "range"} <= set(allowed)


def test_every_answer_may_be_read_by_every_origin(node: Node) -> None:
    for response in (
        node.http.get("/api/v2/status"),
        node.query("echo"),
        node.call("echo", version=2),
        node.call("echo"),
        node.read((b"time",)),
        node.http.get("/nowhere"),
        node.http.get("/cannery.json"),
    ):
        assert response.headers["access-control-allow-origin"] == "*"
        assert "cannery-body" in response.headers["access-control-expose-headers"]


def test_the_status_has_the_root_key(node: Node) -> None:
    response = node.http.get("/api/v2/status")
    fields, tagged = cbor.decode(response.content)
    assert isinstance(fields, dict)
    assert tagged
    assert fields["root_key"] == ROOT_KEY.public_key_der
    assert fields["replica_health_status"] == "healthy"


def test_head_is_get_without_a_body(node: Node) -> None:
    for path in ("/api/v2/status", "/cannery.json", "/health"):
        head, get = node.http.head(path), node.http.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]


def test_the_node_tells_its_names(node: Node) -> None:
    listed = (ct.Vec(ct.record_of({"name": ct.Text(), "canister_id": ct.PrincipalType()})),)
    node.script.names_reply = encoder(listed)([[{"name": "user_index", "canister_id": CANISTER}]])
    page = node.http.get("/cannery.json").json()
    assert page["canisters"] == {"user_index": str(CANISTER)}
    assert page["root_key"] == ROOT_KEY.public_key_der.hex()
    assert (page["subnet_id"], page["version"]) == (str(SUBNET), "0.1.0")


def test_names_that_do_not_decode_are_the_nodes_fault(node: Node) -> None:
    node.script.names_reply = b"nonsense"
    assert node.http.get("/cannery.json").status_code == 503


def test_health_and_metrics(node: Node) -> None:
    node.query("echo")
    assert node.http.get("/health").status_code == 200
    page = node.http.get("/metrics")
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'cannery_gateway_requests_total{gateway="0",verb="query",status="200"}' in page.text
    assert "cannery_rounds_total 1" in page.text
    read_exposition(page.text)


def test_health_tells_more_to_who_asks(node: Node) -> None:
    page = node.http.get("/health?verbose").json()
    assert (page["status"], page["refusing"], page["block"]["number"]) == ("healthy", None, 7)
    assert page["canisters"] == {"count": 3, "busy": 0}
    assert page["cycles"] == {"minted": 5, "burned": 2, "held": 3}
    usual = node.script.vitals
    node.script.vitals = replace_fields(usual, refusing="no updates for now: the disk is full")
    page = node.http.get("/health?verbose=1").json()
    assert (page["status"], page["refusing"]) == ("refusing updates", "no updates for now: the disk is full")
    assert node.http.get("/health?quiet").text == "healthy\n"
    node.script.vitals = usual


def test_a_principal_that_asks_too_much_is_told_to_wait(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, requests_per_principal_per_s=0.5, requests_per_principal_burst=3))
    now_ns = time.monotonic_ns()
    node.mono_ns = lambda: now_ns
    try:
        assert [node.query("echo").status_code for _ in range(4)] == [200, 200, 200, 429]
        response = node.call("echo")
        assert response.status_code == 429
        assert response.headers["retry-after"] == "2"
        assert f"principal {ALICE.principal}" in response.text
        assert node.query("echo", who=BOB).status_code == 200
        assert [node.query("echo", who=NOBODY).status_code for _ in range(5)] == [200] * 5
        node.mono_ns = lambda: now_ns + 2 * 10**9
        assert [node.query("echo").status_code for _ in range(2)] == [200, 429]
    finally:
        node.close()


def test_an_address_that_asks_too_much_is_told_to_wait(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, requests_per_address_per_s=1.0, requests_per_address_burst=2))
    now_ns = time.monotonic_ns()
    node.mono_ns = lambda: now_ns
    try:
        body = envelope(call_content("echo"))
        codes = [node.post(f"/api/v4/canister/{CANISTER}/call", body).status_code for _ in range(3)]
        assert codes == [200, 200, 429]
        response = node.http.get(f"/cannery/body/{'00' * 32}")
        assert (response.status_code, response.headers["retry-after"]) == (429, "1")
        assert "address 127.0.0.1" in response.text
        assert node.http.get("/api/v2/status").status_code == 200
        assert submitted_count(node) == 2
    finally:
        node.close()


def submitted_count(node: Node) -> int:
    return len(node.script.submitted)


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("method", ["reject", "refuse"])
def test_a_canister_that_refused_too_much_is_not_asked_again_for_a_while(
    tmp_path: Path, method: str, version: int
) -> None:
    settings = replace(QUICK, refused_calls_per_address_per_s=0.5, refused_calls_per_address_burst=3)
    node = Node(tmp_path, settings)
    now_ns = time.monotonic_ns()
    node.mono_ns = lambda: now_ns
    try:
        for _ in range(5):
            assert node.call("echo", version=version).status_code in {200, 202}, "what is accepted is free"
        for _ in range(3):
            assert node.call(method, version=version).status_code in {200, 202}
        heard = submitted_count(node)
        told = node.call("echo", version=version, who=BOB)
        assert (told.status_code, told.headers["retry-after"]) == (429, "2")
        assert f"canister {CANISTER} refused too many calls from address 127.0.0.1" in told.text
        assert submitted_count(node) == heard, "it reached nobody"
        assert node.query("echo").status_code == 200, "queries go on"
        other = f"/api/v{version}/canister/{OTHER_CANISTER}/call"
        content = replace_fields(call_content("echo"), canister_id=OTHER_CANISTER)
        assert node.post(other, envelope(content)).status_code in {200, 202}, "other canisters hear it"
        assert 'rate_limited_refused_calls_total{gateway="0"} 1' in node.http.get("/metrics").text
        node.mono_ns = lambda: now_ns + 2 * 10**9
        assert node.call("echo", version=version).status_code in {200, 202}
    finally:
        node.close()


def test_a_trusted_proxy_names_its_clients(tmp_path: Path) -> None:
    settings = replace(
        QUICK,
        requests_per_address_per_s=1.0,
        requests_per_address_burst=1,
        trusted_proxies=("127.0.0.1",),
    )
    node = Node(tmp_path, settings)
    now_ns = time.monotonic_ns()
    node.mono_ns = lambda: now_ns
    try:
        for client in ("192.0.2.1", "198.51.100.7, 192.0.2.2"):
            codes = [
                node.http.get("/metrics", headers={"x-forwarded-for": client}).status_code for _ in range(2)
            ]
            assert codes == [200, 429]
    finally:
        node.close()


def test_an_untrusted_client_does_not_name_its_address(node: Node) -> None:
    before = len(node.gateway.by_address)
    node.http.get("/metrics", headers={"x-forwarded-for": "192.0.2.77"})
    assert len(node.gateway.by_address) == before or before == 0
