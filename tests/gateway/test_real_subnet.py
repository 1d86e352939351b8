"""The gateway before a real subnet, both in processes of their own: create, read, refuse, large arguments."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cannery.candid.codec import decode_dynamic, encoder
from cannery.candid.text import parse_values
from cannery.node.data_dir import NodeKeys, load_keys, open_data_dir
from cannery.protocol import cbor
from cannery.protocol.certificate import Certificate, decode_certificate, verify_certificate
from cannery.protocol.envelope import CallContent, ReadStateContent, build_envelope, request_id_of
from cannery.protocol.hash_tree import Found, lookup
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.protocol.request_status import Rejected, Replied, RequestStatus, read_request_status
from tests.gateway.conftest import CBOR, MINUTE_NS, NOBODY, nonce
from tests.gateway.test_process import Child
from tests.waiting import NEVER_S


class RealNode:
    """Subnet and gateway of a data directory."""

    def __init__(self, path: Path) -> None:
        _folder, self._lock = open_data_dir(path)
        self.keys: NodeKeys = load_keys(path)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._children = [Child("cannery.node.subnet_process", "--data", str(path))]
        assert self._children[0].ready()
        self._children.append(Child("cannery.node.gateway", "--data", str(path), listener=self._listener))
        assert self._children[1].ready()
        self.http = httpx.Client(
            base_url=f"http://127.0.0.1:{self._listener.getsockname()[1]}", timeout=NEVER_S
        )

    def close(self) -> None:
        self.http.close()
        for child in reversed(self._children):
            child.end()
        self._listener.close()
        self._lock.release()

    def post(self, content: CallContent | ReadStateContent, place: str, version: int = 4) -> httpx.Response:
        verb = "call" if isinstance(content, CallContent) else "read_state"
        body = build_envelope(content, self.keys.operator)
        return self.http.post(f"/api/v{version}/canister/{place}/{verb}", content=body, headers=CBOR)

    def content(self, callee: Principal, method: str, arg: bytes) -> CallContent:
        expiry_ns = time.time_ns() + 4 * MINUTE_NS
        return CallContent(self.keys.operator.principal, callee, method, arg, expiry_ns, nonce())

    def certificate(self, response: httpx.Response) -> Certificate:
        assert response.status_code == 200, response.text
        fields, _tagged = cbor.decode(response.content)
        assert isinstance(fields, dict)
        encoded = fields["certificate"]
        assert isinstance(encoded, bytes)
        certificate = decode_certificate(encoded)
        verify_certificate(certificate, self.keys.root.public_key_der, now_ns=time.time_ns())
        return certificate

    def manage(self, method: str, text: str, place: Principal = MANAGEMENT) -> RequestStatus | None:
        types, values = parse_values(text)
        content = self.content(MANAGEMENT, method, encoder(tuple(types))(values))
        certificate = self.certificate(self.post(content, str(place)))
        return read_request_status(certificate.tree, request_id_of(content))

    def read(self, path: tuple[bytes, ...], place: Principal) -> Certificate:
        expiry_ns = time.time_ns() + 4 * MINUTE_NS
        content = ReadStateContent(self.keys.operator.principal, (path,), expiry_ns)
        return self.certificate(self.post(content, str(place), 3))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """A node that runs."""
    node = RealNode(tmp_path_factory.mktemp("real"))
    yield node
    node.close()


@pytest.fixture(scope="module")
def canister(real: RealNode) -> Principal:
    status = real.manage("provisional_create_canister_with_cycles", "(record {})")
    assert isinstance(status, Replied)
    (created,) = decode_dynamic(status.reply)[1][0].values()  # type: ignore[attr-defined]
    assert isinstance(created, Principal)
    return created


def test_a_canister_is_created_and_looked_at(real: RealNode, canister: Principal) -> None:
    about = f'(record {{ canister_id = principal "{canister}" }})'
    assert isinstance(real.manage("canister_status", about, canister), Replied)
    found = lookup(real.read((b"canister", canister.raw, b"controllers"), canister).tree, (
        b"canister", canister.raw, b"controllers"))  # fmt: skip
    assert isinstance(found, Found)
    assert cbor.decode(found.value) == ([real.keys.operator.principal.raw], True)


def test_a_refused_call_can_be_polled_for(real: RealNode, canister: Principal) -> None:
    """Some clients do not look at the answer to an asynchronous call and poll for ever."""
    content = real.content(canister, "hello", b"DIDL\x00\x00")
    response = real.post(content, str(canister), 2)
    fields, _tagged = cbor.decode(response.content)
    assert isinstance(fields, dict)
    certificate = real.read((b"request_status", request_id_of(content)), canister)
    status = read_request_status(certificate.tree, request_id_of(content))
    assert status == Rejected(fields["reject_code"], fields["reject_message"], fields["error_code"])  # type: ignore[arg-type]


def test_a_large_argument_reaches_the_subnet(real: RealNode, canister: Principal) -> None:
    types, values = parse_values(
        f'(record {{ mode = variant {{ install }}; canister_id = principal "{canister}"; arg = blob "";'
        f' wasm_module = blob "" }})'
    )
    types[0], values[0] = types[0], values[0] | {"wasm_module": b"\x00asm" + os.urandom(3 * 2**20)}  # type: ignore[operator]
    content = real.content(MANAGEMENT, "install_code", encoder(tuple(types))(values))
    certificate = real.certificate(real.post(content, str(canister)))
    status = read_request_status(certificate.tree, request_id_of(content))
    assert isinstance(status, Rejected)
    assert "wasm" in status.reject_message.lower()


def test_the_names_of_a_node_are_those_of_its_management_canister(
    real: RealNode, canister: Principal
) -> None:
    named = f'(record {{ name = "guestbook"; canister_id = opt principal "{canister}" }})'
    assert isinstance(real.manage("cannery_name_set", named), Replied)
    assert real.http.get("/cannery.json").json()["canisters"] == {"guestbook": str(canister)}


def test_anonymous_reads_of_a_fresh_node(real: RealNode) -> None:
    content = ReadStateContent(NOBODY.principal, ((b"subnet",),), 0)
    body = build_envelope(content, NOBODY)
    place = Principal.self_authenticating(real.keys.root.public_key_der)
    response = real.http.post(f"/api/v3/subnet/{place}/read_state", content=body, headers=CBOR)
    tree = real.certificate(response).tree
    assert lookup(tree, (b"subnet", place.raw, b"type")) == Found(b"cloud_engine")
