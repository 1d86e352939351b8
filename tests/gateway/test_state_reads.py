"""read_state over HTTP: certified presence and absence, what may be asked for where, who may see it."""

from __future__ import annotations

import pytest

from cannery.protocol import cbor
from cannery.protocol.certificate import certificate_time_ns, decode_canister_ranges
from cannery.protocol.envelope import ReadStateContent, request_id_of
from cannery.protocol.hash_tree import Absent, Found, Inner, lookup
from cannery.protocol.identity import Ed25519Identity, delegated
from cannery.protocol.principal import Principal
from cannery.protocol.request_status import Processing, Rejected, Replied, read_request_status
from tests.gateway.conftest import (
    ALICE,
    BOB,
    CANISTER,
    NOBODY,
    NODE_KEY,
    ROOT_KEY,
    SUBNET,
    Node,
    call_content,
    certificate_of,
    envelope,
    expiry_ns,
    fields_of,
)

AT_SUBNET = f"subnet/{SUBNET}"
OTHER = Principal((0x100001).to_bytes(8, "big") + b"\x01\x01")


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("place", ["", AT_SUBNET])
def test_time_is_always_there(node: Node, version: int, place: str) -> None:
    certificate = certificate_of(node.read((b"time",), version=version, place=place))
    assert certificate_time_ns(certificate) > 0
    assert certificate_of(node.read(version=version, place=place))


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("place", ["", AT_SUBNET])
def test_the_subnet_tells_its_keys_and_ranges(node: Node, version: int, place: str) -> None:
    tree = certificate_of(node.read((b"subnet",), version=version, place=place)).tree
    here = (b"subnet", SUBNET.raw)
    assert lookup(tree, (*here, b"public_key")) == Found(ROOT_KEY.public_key_der)
    assert lookup(tree, (*here, b"type")) == Found(b"cloud_engine")
    node_key = lookup(tree, (*here, b"node", NODE_KEY.principal.raw, b"public_key"))
    assert node_key == Found(NODE_KEY.public_key_der)
    ranges = lookup(tree, (*here, b"canister_ranges"))
    assert isinstance(ranges, Found)
    ((low, high),) = decode_canister_ranges(ranges.value)
    assert low <= CANISTER <= high


def test_the_sharded_ranges_are_the_same(node: Node) -> None:
    tree = certificate_of(
        node.read((b"canister_ranges", SUBNET.raw), (b"subnet", SUBNET.raw), place=AT_SUBNET)
    ).tree
    whole = lookup(tree, (b"subnet", SUBNET.raw, b"canister_ranges"))
    assert isinstance(whole, Found)
    start = decode_canister_ranges(whole.value)[0][0]
    assert lookup(tree, (b"canister_ranges", SUBNET.raw, start.raw)) == whole


def test_another_subnet_is_proven_absent(node: Node) -> None:
    tree = certificate_of(node.read((b"subnet", b"\x01" * 29))).tree
    assert lookup(tree, (b"subnet", b"\x01" * 29)) == Absent()


def test_a_call_is_followed_by_its_request_id(node: Node) -> None:
    content = call_content("echo", b"answer")
    path = (b"request_status", request_id_of(content))
    tree = certificate_of(node.read(path)).tree
    assert read_request_status(tree, path[1]) is None
    assert lookup(tree, path) == Absent()
    node.post(f"/api/v2/canister/{CANISTER}/call", envelope(content))
    assert read_request_status(certificate_of(node.read(path)).tree, path[1]) == Replied(b"answer")


def test_rejected_and_running_calls_are_told_apart(node: Node) -> None:
    rejected, running = call_content("reject"), call_content("slow")
    for content in (rejected, running):
        node.post(f"/api/v2/canister/{CANISTER}/call", envelope(content))
    ids = [request_id_of(rejected), request_id_of(running)]
    tree = certificate_of(node.read((b"request_status", ids[0]))).tree
    assert read_request_status(tree, ids[0]) == Rejected(4, "no, says the canister", "IC0406")
    tree = certificate_of(node.read((b"request_status", ids[1]), version=2)).tree
    assert read_request_status(tree, ids[1]) == Processing()


def test_one_field_of_a_status_can_be_asked_for(node: Node) -> None:
    content = call_content("echo", b"field")
    node.post(f"/api/v2/canister/{CANISTER}/call", envelope(content))
    tree = certificate_of(node.read((b"request_status", request_id_of(content), b"reply"))).tree
    assert lookup(tree, (b"request_status", request_id_of(content), b"reply")) == Found(b"field")


def test_anothers_request_is_forbidden(node: Node) -> None:
    content = call_content("echo", who=BOB)
    node.post(f"/api/v2/canister/{CANISTER}/call", envelope(content, BOB))
    response = node.read((b"request_status", request_id_of(content)))
    assert (response.status_code, response.text) == (403, "this request was sent by somebody else\n")


def test_facts_of_a_canister_are_present_or_absent(node: Node) -> None:
    hash_path = (b"canister", CANISTER.raw, b"module_hash")
    name_path = (b"canister", CANISTER.raw, b"metadata", b"candid:service")
    node.script.values[hash_path] = b"\x11" * 32
    tree = certificate_of(node.read(hash_path, name_path, who=NOBODY)).tree
    assert lookup(tree, hash_path) == Found(b"\x11" * 32)
    assert lookup(tree, name_path) == Absent()
    assert lookup(tree, (b"canister", CANISTER.raw)) == Inner()
    assert node.script.reads[-1].canister_id == CANISTER.raw


def test_private_metadata_is_forbidden(node: Node) -> None:
    path = (b"canister", CANISTER.raw, b"metadata", b"secret")
    node.script.denied[path] = "only controllers read this section"
    response = node.read(path)
    assert (response.status_code, response.text) == (403, "only controllers read this section\n")


@pytest.mark.parametrize("tagged", [True, False])
def test_the_answer_mirrors_the_requests_tag(node: Node, tagged: bool) -> None:
    content = ReadStateContent(ALICE.principal, ((b"time",),), expiry_ns())
    response = node.post(f"/api/v3/canister/{CANISTER}/read_state", envelope(content, tagged=tagged))
    assert cbor.decode(response.content)[1] is tagged
    certificate = fields_of(response)["certificate"]
    assert isinstance(certificate, bytes)
    assert certificate.startswith(b"\xd9\xd9\xf7")


REQUEST = b"\x22" * 32
AT_CANISTER = ""


@pytest.mark.parametrize(
    ("place", "paths", "text"),
    [
        (AT_CANISTER, [()], "cannot be asked for"),
        (AT_CANISTER, [(b"time", b"now")], "cannot be asked for"),
        (AT_CANISTER, [(b"weather",)], "cannot be asked for"),
        (AT_CANISTER, [(b"\xff\x00",)], "ff00"),
        (AT_CANISTER, [(b"canister_ranges", SUBNET.raw)], "cannot be asked for at a canister URL"),
        (AT_CANISTER, [(b"subnet", SUBNET.raw, b"metrics")], "cannot be asked for at a canister URL"),
        (AT_CANISTER, [(b"request_status",)], "32 bytes"),
        (AT_CANISTER, [(b"request_status", b"short")], "32 bytes"),
        (AT_CANISTER, [(b"request_status", REQUEST, b"status", b"more")], "32 bytes"),
        (AT_CANISTER, [(b"request_status", REQUEST, b"colour")], "not colour"),
        (
            AT_CANISTER,
            [(b"request_status", REQUEST), (b"request_status", b"\x23" * 32)],
            "the same request id",
        ),
        (AT_CANISTER, [(b"canister",)], "name one field"),
        (AT_CANISTER, [(b"canister", CANISTER.raw)], "name one field"),
        (AT_CANISTER, [(b"canister", CANISTER.raw, b"colour")], "not colour"),
        (AT_CANISTER, [(b"canister", CANISTER.raw, b"certified_data")], "not certified_data"),
        (AT_CANISTER, [(b"canister", CANISTER.raw, b"metadata")], "metadata/NAME"),
        (AT_CANISTER, [(b"canister", CANISTER.raw, b"metadata", b"\xff")], "UTF-8"),
        (AT_CANISTER, [(b"canister", OTHER.raw, b"module_hash")], "not about another"),
        (AT_SUBNET, [(b"canister", CANISTER.raw, b"module_hash")], "at a subnet URL"),
    ],
)
def test_what_cannot_be_asked_for_is_said(
    node: Node, place: str, paths: list[tuple[bytes, ...]], text: str
) -> None:
    response = node.read(*paths, place=place)
    assert response.status_code == 400
    assert text in response.text


def test_the_number_of_paths_and_labels_is_bounded(node: Node) -> None:
    assert node.read(*[(b"time",)] * 1000).status_code == 200
    assert node.read(*[(b"time",)] * 1001).status_code == 400
    assert node.read((b"subnet",) * 128).status_code == 400


def test_a_delegation_reads_the_statuses_of_its_targets_only(node: Node) -> None:
    session = Ed25519Identity(bytes(31) + b"\x09")
    for targets, expected in ([CANISTER], 200), ([OTHER], 403), ([CANISTER, OTHER], 200):
        who = delegated(ALICE, session, expiry_ns(), targets)
        assert node.read((b"request_status", REQUEST), who=who).status_code == expected
        assert node.read((b"time",), who=who).status_code == 200
