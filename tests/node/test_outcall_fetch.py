"""The node's side of HTTP outcalls, against real sockets: what is connected to, and what is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.node.outcall_fetch import CheckedBackend, Fetcher, OutcallRefused
from cannery.node.outcall_rules import OutcallRules
from cannery.node.outcalls import Outcall
from cannery.replica.block import OutcallAnswer
from cannery.replica.outcall_records import OutcallRecord
from tests.waiting import NEVER_S

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nserver: x\r\n\r\n42"
WAIT_MS = int(NEVER_S * 1000)

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def record(port: int, host: str = "127.0.0.1", limit: int = 10_000, **changes: object) -> OutcallRecord:
    fields: dict[str, object] = {
        "scheme": "http",
        "host": host,
        "port": port,
        "target": "/x?y=1",
        "method": "GET",
        "headers": (("accept", "*/*"),),
        "body": b"",
        "response_size_bytes_max": limit,
        "transform": "",
        "context": b"",
        "cycles": 0,
        "created_ns": 1,
        "deadline_ns": 2,
    }
    return OutcallRecord(**(fields | changes))  # type: ignore[arg-type]  # names and types are the record's


class World:
    """A server that answers with given bytes, and a fetcher that may call it."""

    def __init__(self, reply: bytes | None, *, end: bool = True) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._reply = reply
        self._end = end

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            size = next(
                (int(h[15:]) for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")), 0
            )
            self.requests.append(head + await reader.readexactly(size))
            if self._reply is not None:
                writer.write(self._reply)
                await writer.drain()
            if not self._end:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def fetch(
        self,
        *,
        allow: str = "http://*",
        networks: tuple[str, ...] = ("127.0.0.0/8",),
        names: dict[str, list[list[str]]] | None = None,
        wait_ms: int = WAIT_MS,
        **changes: object,
    ) -> OutcallAnswer:
        """Perform one request; `names` gives what each look-up of a name answers, in turn."""
        answers = {name: list(found) for name, found in (names or {}).items()}

        async def resolve(host: str, port: int) -> list[str]:
            return answers[host].pop(0) if host in answers else [host]

        async def run() -> OutcallAnswer:
            server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
            port = server.sockets[0].getsockname()[1]
            rules = OutcallRules.of((allow.format(port=port),), networks)
            fetcher = Fetcher(rules, resolve=resolve, wait_ms_max=wait_ms)
            asked = record(**({"port": port} | changes))  # type: ignore[arg-type]  # names are the record's
            try:
                return await fetcher.fetch(Outcall(b"\x01", 7, asked))
            finally:
                server.close()

        return asyncio.run(run())


def test_a_request_goes_out_and_its_response_comes_in() -> None:
    world = World(OK)
    answer = world.fetch()
    assert answer == OutcallAnswer(b"\x01", 7, 200, (("content-length", "2"), ("server", "x")), b"42")
    (request,) = world.requests
    lines = request.decode().split("\r\n")
    assert lines[0] == "GET /x?y=1 HTTP/1.1"
    assert {line.partition(":")[0].lower() for line in lines[1:] if line} == {
        "host",
        "accept",
        "user-agent",
        "connection",
    }


def test_a_body_goes_out_whole() -> None:
    world = World(OK)
    world.fetch(method="POST", body=b"{}", headers=(("User-Agent", "mine"),))
    assert world.requests[0].endswith(b"\r\n\r\n{}")
    assert b"user-agent: cannery" not in world.requests[0].lower()


def test_redirects_are_given_and_not_followed() -> None:
    world = World(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1/secret\r\ncontent-length: 0\r\n\r\n")
    answer = world.fetch()
    assert (answer.status, answer.reject_code) == (302, 0)
    assert world.connections == 1


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (
            b"HTTP/1.1 200 OK\r\ncontent-length: 20000\r\n\r\n" + b"x" * 20_000,
            "larger than max_response_bytes",
        ),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 20_000, "larger than max_response_bytes"),
        (
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
            + b"fff\r\n" * 1
            + b"x" * 4_095
            + b"\r\n"
            + (b"fff\r\n" + b"x" * 4_095 + b"\r\n") * 4,
            "larger than max_response_bytes",
        ),
        (b"HTTP/1.1 200 OK\r\n" + b"".join(b"h%d: x\r\n" % n for n in range(70)) + b"\r\n", "has 70 headers"),
        (b"HTTP/1.1 200 OK\r\na: " + b"x" * 200_000 + b"\r\n\r\n", "gave no answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf", "gave no answer"),
        (b"nonsense\r\n\r\n", "gave no answer"),
        (b"", "gave no answer"),
    ],
)
def test_what_cannot_be_taken_is_a_reject(reply: bytes, text: str) -> None:
    answer = World(reply).fetch()
    assert (answer.reject_code > 0, answer.body) == (True, b"")
    assert text in answer.reject_message


@pytest.mark.parametrize("reply", [None, b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nha"])
def test_a_slow_server_is_given_up(reply: bytes | None) -> None:
    answer = World(reply, end=False).fetch(wait_ms=200)
    assert (answer.reject_code, "gave no whole answer within 0.2 s" in answer.reject_message) == (2, True)


def test_a_port_where_nobody_listens_is_a_reject() -> None:
    answer = World(OK).fetch(port=1)
    assert answer.reject_code == 2
    assert "gave no answer" in answer.reject_message


def test_loopback_is_refused_unless_it_is_named() -> None:
    world = World(OK)
    answer = world.fetch(networks=())
    assert (answer.reject_code, world.connections) == (1, 0)
    assert "127.0.0.1 leads to 127.0.0.1, which is not a public address" in answer.reject_message
    assert world.fetch(networks=(), allow="http://127.0.0.1:{port}").status == 200


def test_a_host_that_is_not_allowed_any_more_is_not_called() -> None:
    world = World(OK)
    answer = world.fetch(allow="http://127.0.0.1:1")
    assert (answer.reject_code, world.connections) == (1, 0)
    assert "any more" in answer.reject_message


def test_a_name_that_leads_inside_is_refused_also_the_second_time() -> None:
    world = World(OK)
    inside = world.fetch(networks=(), host="a.org", names={"a.org": [["127.0.0.1"]]})
    assert (inside.reject_code, world.connections) == (1, 0)
    # Rebinding: a public address at the first look, a private one at the next. There is no next look.
    names = {"a.org": [["127.0.0.1"], ["10.0.0.1"]]}
    assert world.fetch(host="a.org", names=names).status == 200
    # Public and private ones together: only what may be connected to is tried.
    mixed = world.fetch(host="a.org", names={"a.org": [["10.0.0.1", "127.0.0.1"]]})
    assert (mixed.status, world.connections) == (200, 2)


class Elsewhere(httpcore.AsyncNetworkBackend):
    """Connects to another address than it was told."""

    async def connect_tcp(self, *args: object, **kwargs: object) -> httpcore.AsyncNetworkStream:
        return Peer()


class Peer(httpcore.AsyncNetworkStream):
    def get_extra_info(self, info: str) -> object:
        return ("10.0.0.1", 80) if info == "server_addr" else None

    async def aclose(self) -> None:
        return None


def test_the_other_end_of_the_connection_itself_is_looked_at() -> None:
    async def resolve(host: str, port: int) -> list[str]:
        return ["1.1.1.1"]

    backend = CheckedBackend(OutcallRules(), resolve, Elsewhere())
    with pytest.raises(OutcallRefused, match="led to an address that may not be called"):
        asyncio.run(backend.connect_tcp("a.org", 80))


PRIVATE = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.168.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fc00::1",
    "fec0::1",
    "::127.0.0.1",
    "::ffff:0:10.0.0.1",
    "64:ff9b:1::a00:1",
    "3fff::1",
    "5f00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "nonsense",
    "",
]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_inside_are_refused(address: str) -> None:
    assert not OutcallRules().may_connect(address)


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_let_through(address: str) -> None:
    assert OutcallRules().may_connect(address)


def test_a_named_network_covers_its_mapped_form_too() -> None:
    rules = OutcallRules.of((), ("10.0.0.0/24",))
    assert rules.may_connect("10.0.0.9")
    assert rules.may_connect("::ffff:10.0.0.9")
    assert not rules.may_connect("10.0.1.9")


@given(st.ip_addresses())
def test_an_address_and_its_mapped_form_are_judged_alike(address: IPv4Address | IPv6Address) -> None:
    rules = OutcallRules()
    may = rules.may_connect(str(address))
    if isinstance(address, IPv4Address):
        assert rules.may_connect(f"::ffff:{address}") == may
    if may:
        assert ip_address(str(address)).is_global or "::ffff:" in str(address)
