"""Large bodies and answers: streamed to disk, uploaded in parts, read again; quotas, expiry, full disks."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import httpx
import pytest

from cannery.node.gateway.http import Refusal
from cannery.node.gateway.large_envelopes import find_blob
from cannery.node.gateway.spool import Spool, clear_spool
from cannery.node.gateway.spool_accounts import SpoolLimits
from cannery.protocol import cbor
from cannery.protocol.envelope import CallContent, request_id_of
from cannery.protocol.principal import MANAGEMENT
from cannery.protocol.query_signature import QueryReplied, decode_query_response, verify_query_answer
from cannery.protocol.request_status import Replied, read_request_status
from tests.gateway.conftest import (
    ALICE,
    CANISTER,
    NODE_KEY,
    QUICK,
    Node,
    call_content,
    certificate_of,
    envelope,
    expiry_ns,
    query_content,
    raw_request,
)

CALL = f"/api/v4/canister/{CANISTER}/call"
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _no_scratch_is_left(node: Node) -> Iterator[None]:
    yield
    assert [path.name for path in node.directory.iterdir() if path.suffix == ".tmp"] == []


@pytest.mark.parametrize("size", [MIB - 1000, MIB, 3 * MIB, 20 * MIB])
def test_a_large_argument_arrives_whole(node: Node, size: int) -> None:
    arg = os.urandom(1024) * (size // 1024)
    response = node.post(CALL, envelope(call_content("swallow", arg)))
    assert response.status_code == 200, response.text
    assert node.script.args[-1] == arg
    assert (node.script.submitted[-1].spooled is not None) == (size > MIB)


def test_a_large_body_may_come_in_chunks(node: Node) -> None:
    arg = os.urandom(3 * MIB)
    body = envelope(call_content("echo", arg))
    parts = (body[start : start + 100_000] for start in range(0, len(body), 100_000))
    response = node.http.post(CALL, content=parts, headers={"content-type": "application/cbor"})
    assert response.status_code == 200, response.text
    assert node.script.args[-1] == arg


def test_a_large_query_and_its_large_answer(node: Node) -> None:
    content = query_content("echo", os.urandom(2 * MIB))
    response = node.post(f"/api/v3/canister/{CANISTER}/query", envelope(content))
    answer = decode_query_response(response.content)
    assert answer.answer == QueryReplied(content.arg)
    assert verify_query_answer(
        NODE_KEY.public_key_der, answer.answer, request_id_of(content), answer.signatures[0]
    )


def test_a_large_management_call_is_held_against_its_url(node: Node) -> None:
    content = CallContent(ALICE.principal, MANAGEMENT, "install_code", bytes(2 * MIB), expiry_ns())
    response = node.post(CALL, envelope(content))
    assert response.status_code == 200, response.text


def test_a_body_over_the_limit_is_refused_before_it_is_read(node: Node) -> None:
    too_long = f"content-length: {QUICK.body_size_bytes_max + 1}\r\n"
    response = node.send(b"POST " + CALL.encode() + b" HTTP/1.1\r\nhost: x\r\n" + too_long.encode() + b"\r\n")
    assert response.status_code == 413
    assert str(QUICK.body_size_bytes_max) in response.text


def test_chunks_over_the_limit_are_refused(tmp_path: Path) -> None:
    node = Node(tmp_path, replace(QUICK, body_size_bytes_max=2 * MIB))
    try:
        chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
        head = b"POST " + CALL.encode() + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        assert node.send(head + chunk * 3).status_code == 413
        assert list(node.directory.iterdir()) == []
    finally:
        node.close()


@pytest.mark.parametrize("size", [2 * MIB, 6 * MIB])
def test_a_large_reply_is_certified(node: Node, size: int) -> None:
    content = call_content(f"large:{size}")
    response = node.post(CALL, envelope(content))
    tree = certificate_of(response).tree
    assert read_request_status(tree, request_id_of(content)) == Replied(bytes(size))
    assert ("cannery-body" in response.headers) == (size > 4 * MIB)


def test_the_subnets_reply_file_is_deleted(node: Node) -> None:
    content = call_content(f"large:{2 * MIB}")
    node.post(CALL, envelope(content))
    answer = node.script.statuses[request_id_of(content)][1]
    assert answer is not None
    assert answer.spooled is not None
    assert not os.path.exists(answer.spooled.path)


def test_a_large_answer_is_read_again_in_ranges(node: Node) -> None:
    response = node.query(f"large:{5 * MIB}")
    name = response.headers["cannery-body"]
    assert sha256(response.content).hexdigest() == name
    path = f"/cannery/body/{name}"
    whole = node.http.get(path)
    assert (whole.status_code, whole.content) == (200, response.content)
    assert whole.headers["accept-ranges"] == "bytes"
    size = len(response.content)
    for asked, first, last in (
        ("0-9", 0, 9),
        ("100-", 100, size - 1),
        ("-7", size - 7, size - 1),
        ("5-99999999", 5, size - 1),
    ):
        part = node.http.get(path, headers={"range": f"bytes={asked}"})
        assert part.status_code == 206
        assert part.content == response.content[first : last + 1]
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    outside = node.http.get(path, headers={"range": f"bytes={size}-"})
    assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{size}")
    assert node.http.get(path, headers={"range": "lines=1-2"}).status_code == 200


# --- uploads --------------------------------------------------------------------------------------


def _patch(node: Node, name: str, offset: int, total: int, data: bytes) -> httpx.Response:
    headers = {"upload-offset": str(offset), "upload-length": str(total)}
    return node.http.patch(f"/cannery/body/{name}", content=data, headers=headers)


def test_an_upload_in_parts_is_called_by_its_hash(node: Node) -> None:
    content = call_content("echo", os.urandom(2 * MIB))
    body = envelope(content)
    name, half = sha256(body).hexdigest(), len(body) // 2
    path = f"/cannery/body/{name}"
    assert node.http.head(path).status_code == 404
    missing = node.post(CALL, b"", {"cannery-body": name})
    assert (missing.status_code, name in missing.text) == (404, True)
    first = _patch(node, name, 0, len(body), body[:half])
    assert (first.status_code, first.headers["upload-offset"]) == (204, str(half))
    assert node.http.head(path).headers["upload-offset"] == str(half)
    assert node.http.get(path).status_code == 404
    again = _patch(node, name, 0, len(body), body[:half])
    assert (again.status_code, again.headers["upload-offset"]) == (409, str(half))
    assert _patch(node, name, half, len(body), body[half:]).status_code == 204
    assert node.http.head(path).headers["upload-offset"] == str(len(body))
    assert _patch(node, name, 0, len(body), b"").headers["upload-offset"] == str(len(body))
    response = node.post(CALL, b"", {"cannery-body": name})
    tree = certificate_of(response).tree
    assert read_request_status(tree, request_id_of(content)) == Replied(content.arg)
    assert node.http.get(path).content == body


def test_an_upload_with_the_wrong_hash_is_thrown_away(node: Node) -> None:
    name = sha256(b"promised").hexdigest()
    response = _patch(node, name, 0, 5, b"other")
    assert response.status_code == 400
    assert sha256(b"other").hexdigest() in response.text
    assert node.http.head(f"/cannery/body/{name}").status_code == 404


def test_an_uploaded_body_that_is_no_request(node: Node) -> None:
    name = sha256(b"no request").hexdigest()
    assert _patch(node, name, 0, 10, b"no request").status_code == 204
    response = node.post(CALL, b"", {"cannery-body": name})
    assert (response.status_code, "not a request" in response.text) == (400, True)


@pytest.mark.parametrize(
    ("headers", "data", "status"),
    [
        ({}, b"x", 400),
        ({"upload-offset": "0"}, b"x", 400),
        ({"upload-offset": "-1", "upload-length": "3"}, b"x", 400),
        ({"upload-offset": "0", "upload-length": "many"}, b"x", 400),
        ({"upload-offset": "0", "upload-length": "9" * 30}, b"x", 400),
        ({"upload-offset": "0", "upload-length": str(10**12)}, b"x", 413),
        ({"upload-offset": "0", "upload-length": "3"}, b"four", 400),
        ({"upload-offset": "2", "upload-length": "9"}, b"x", 409),
    ],
)
def test_uploads_that_make_no_sense(node: Node, headers: dict[str, str], data: bytes, status: int) -> None:
    response = node.http.patch(f"/cannery/body/{'ab' * 32}", content=data, headers=headers)
    assert response.status_code == status, response.text
    assert response.text


def test_a_body_is_named_or_sent_not_both(node: Node) -> None:
    response = node.post(CALL, b"body", {"cannery-body": "00" * 32})
    assert (response.status_code, "empty body" in response.text) == (400, True)
    assert node.post(CALL, b"", {"cannery-body": "short"}).status_code == 400


# --- the spool itself -----------------------------------------------------------------------------

LIMITS = SpoolLimits(10 * MIB, 6 * MIB, 100 * MIB, 1_000)


def _spool(directory: Path, now_ns: int = 0) -> Spool:
    return Spool(directory, LIMITS, lambda: now_ns or time.time_ns())


def test_quotas_by_address_and_in_total(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    first = spool.open_scratch("192.0.2.1")
    first.write(bytes(4 * MIB))
    with pytest.raises(Refusal, match="your address has used its share"):
        first.write(bytes(2 * MIB))
    second = spool.open_scratch("192.0.2.2")
    second.write(bytes(4 * MIB))
    third = spool.open_scratch("192.0.2.3")
    with pytest.raises(Refusal, match="the node's spool for large bodies is full"):
        third.write(bytes(MIB))
    second.discard()
    third.write(bytes(MIB))
    first.discard()
    third.discard()
    assert (spool.bytes_used, spool.file_count) == (0, 0)


def test_the_number_of_files_is_bounded_by_what_they_cost(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    for number in range(6):
        spool.open_upload(number.to_bytes(32, "big"), "192.0.2.1", 0, 10).close()
    with pytest.raises(Refusal, match="your address has used its share"):
        spool.open_upload(bytes(31) + b"\xff", "192.0.2.1", 0, 10)
    assert spool.file_count == 6


def test_what_is_old_is_swept(tmp_path: Path) -> None:
    kept = _spool(tmp_path)
    digest, _file = kept.keep([b"answer"], "192.0.2.1")
    kept.sweep()
    assert kept.body(digest) is not None
    late = Spool(tmp_path, LIMITS, lambda: time.time_ns() + 2 * 10**9)
    late.sweep()
    assert kept.body(digest) is None
    kept.sweep()
    assert (kept.bytes_used, kept.file_count) == (0, 0)


def test_use_prolongs_a_body(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    digest, _file = spool.keep([b"answer"], "192.0.2.1")
    late = Spool(tmp_path, LIMITS, lambda: time.time_ns() + 2 * 10**9)
    assert late.use_body(digest) is not None
    late.sweep()
    assert spool.body(digest) is not None


def test_what_did_its_work_makes_room_the_longest_unused_first(tmp_path: Path) -> None:
    now = [time.time_ns()]
    spool = Spool(tmp_path, SpoolLimits(100 * MIB, 3 * MIB + 1_000, 100 * MIB, 60_000), lambda: now[0])
    kept = []
    for answer in (b"first", b"second", b"third"):
        kept.append(spool.keep([answer], "1.1.1.1")[0])
        now[0] += 10**9
    now[0] += 5 * 10**9
    spool.use_body(kept[0])
    scratch = spool.open_scratch("1.1.1.1")
    scratch.write(bytes(MIB))
    assert [spool.body(digest) is not None for digest in kept] == [True, False, False]
    with pytest.raises(Refusal, match="share of the node's spool"):
        scratch.write(bytes(MIB))
    spool.spend(Path(spool.body(kept[0]).path))  # type: ignore[union-attr]
    with pytest.raises(Refusal, match="share of the node's spool"):
        scratch.write(bytes(MIB))
    now[0] += 5 * 10**9
    scratch.write(bytes(MIB))
    assert spool.body(kept[0]) is None
    scratch.discard()
    assert spool.bytes_used == 0


def test_one_process_makes_room_of_what_another_has_spent_and_leaves_what_it_uses(tmp_path: Path) -> None:
    now = [time.time_ns()]
    limits = SpoolLimits(100 * MIB, 2 * MIB + 1_000, 100 * MIB, 60_000)
    first, second = (Spool(tmp_path, limits, lambda: now[0]) for _ in range(2))
    spent, used = (first.keep([answer], "1.1.1.1")[0] for answer in (b"spent", b"used"))
    now[0] += 10 * 10**9
    # The other process hands both out once more, and is done with one of them.
    for digest in (spent, used):
        assert second.use_body(digest) is not None
    with pytest.raises(Refusal, match="share of the node's spool"):
        first.open_scratch("1.1.1.1").write(b"x")
    second.spend(Path(second.body(spent).path))  # type: ignore[union-attr]
    now[0] += 10 * 10**9
    first.open_scratch("1.1.1.1").write(b"x")
    assert first.body(spent) is None
    assert first.body(used) is not None


def test_the_same_answer_is_kept_once(tmp_path: Path) -> None:
    spool = _spool(tmp_path)
    assert spool.keep([b"ans", b"wer"], "192.0.2.1") == spool.keep([b"answer"], "192.0.2.2")
    assert spool.file_count == 1


def test_a_start_empties_the_spool(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    clear_spool(directory)
    (directory / "reply-1-2").write_bytes(b"left over")
    clear_spool(directory)
    assert list(directory.iterdir()) == []


def test_a_full_disk_is_507(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("cannery.node.gateway.spool.os.write", full)
    response = node.post(CALL, envelope(call_content("echo", bytes(2 * MIB))))
    assert response.status_code == 507
    assert "disk is full" in response.text
    upload = _patch(node, sha256(b"x").hexdigest(), 0, 1, b"x")
    assert upload.status_code == 507
    kept = node.query(f"large:{5 * MIB}")
    assert kept.status_code == 507


def test_the_place_of_a_blob_is_found_or_given_up() -> None:
    blob = os.urandom(70_000)
    body = cbor.encode({"before": blob[:-1] + b"\x00", "arg": blob}, self_describe=True)
    place = find_blob(body, blob)
    assert place is not None
    assert body[place : place + len(blob)] == blob
    decoys = b"\x5a" + len(blob).to_bytes(4, "big")
    assert find_blob(decoys * 100 + blob, blob) is None


def test_many_uploads_of_one_body_take_turns(node: Node) -> None:
    """An upload holds its file: a second one is told to wait, and the first is not disturbed."""
    data = os.urandom(1000)
    name = sha256(data).hexdigest()
    head = "upload-offset: 0\r\nupload-length: 1000\r\ncontent-length: 1000\r\nexpect: 100-continue\r\n"
    connection = node.connect()
    connection.sendall(f"PATCH /cannery/body/{name} HTTP/1.1\r\nhost: x\r\n{head}\r\n".encode())
    assert connection.recv(100).startswith(b"HTTP/1.1 100 Continue")
    second = _patch(node, name, 0, 1000, data)
    assert (second.status_code, "another request" in second.text) == (409, True)
    connection.sendall(data)
    assert node.answer_of(connection).status_code == 204
    assert node.http.get(f"/cannery/body/{name}").content == data


def test_an_upload_that_breaks_off_goes_on(node: Node) -> None:
    data = os.urandom(200_000)
    name = sha256(data).hexdigest()
    headers = "upload-offset: 0\r\nupload-length: 200000\r\n"
    whole = raw_request("PATCH", f"/cannery/body/{name}", data, headers)
    connection = node.connect()
    connection.sendall(whole[: len(whole) - 100_000])
    connection.close()
    offset = node.wait_for(
        lambda: int(node.http.head(f"/cannery/body/{name}").headers.get("upload-offset", 0))
    )
    assert 0 < offset <= 100_000
    assert _patch(node, name, offset, len(data), data[offset:]).status_code == 204
    assert node.http.get(f"/cannery/body/{name}").content == data
