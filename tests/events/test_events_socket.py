"""Events over a real WebSocket of a real node: who gets which, from where on, and who gets none."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed

from cannery.candid.codec import encoder
from cannery.candid.python import nat32, type_of
from cannery.cdk.build import build_module
from cannery.node.python_runtime import SourceLoader
from cannery.node.source_files import read_source
from cannery.protocol.identity import AnonymousIdentity, Ed25519Identity, delegated
from cannery.protocol.principal import Principal
from tests.events.sockets import Socket
from tests.node.process_node import ProcessNode

ANN = Ed25519Identity(bytes(31) + b"\x0a")
BEN = Ed25519Identity(bytes(31) + b"\x0b")
SESSION = Ed25519Identity(bytes(31) + b"\x0c")
SOURCE = Path(__file__).parent / "club.py"


def club_module() -> bytes:
    source = read_source(f"{SOURCE}:Club")
    loader = SourceLoader(frozenset())
    try:
        return build_module(source.files, source.entry, loader.load).module
    finally:
        loader.discard()


class Club:
    """A club's canister on a node, with the calls that tests make."""

    def __init__(self, node: ProcessNode, module: bytes) -> None:
        self.node = node
        self.id = node.install(module)
        self.call("join", (Principal,), node.agent.principal)

    def call(self, method: str, types: tuple[object, ...], *args: object) -> None:
        self.node.agent.call(self.id, method, encoder(tuple(map(type_of, types)))(args))

    def say(self, topic: str, text: str) -> None:
        self.call("say", (str, str), topic, text)

    def join(self, who: Ed25519Identity) -> None:
        self.call("join", (Principal,), who.principal)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessNode]:
    running = ProcessNode(tmp_path_factory.mktemp("events") / "data")
    yield running
    _, errors = running.stop()
    assert "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def module() -> bytes:
    return club_module()


@pytest.fixture
def club(node: ProcessNode, module: bytes) -> Club:
    return Club(node, module)


def test_a_member_hears_what_was_said_and_what_is_said_in_order(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    club.say("chat", "one")
    club.say("other", "two")
    with Socket(node.url) as socket:
        told = socket.subscribe(ANN, club.id, ["chat", "secret"], 0)
        assert told["type"] == "subscribed"
        assert told["topics"] == ["chat"]
        assert socket.events(1) == [(0, "chat", b"one")]
        club.say("chat", "three")
        with pytest.raises(Exception, match="broken"):
            club.call("say_and_break", ())
        club.say("chat", "four")
        assert socket.events(2) == [(2, "chat", b"three"), (3, "chat", b"four")]
    with Socket(node.url) as socket:
        assert socket.subscribe(ANN, club.id, ["chat"])["next"] == 4
        club.say("chat", "five")
        assert socket.events(1) == [(4, "chat", b"five")]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"challenge": bytes(32)}, "the challenge is not the one of this connection"),
        ({"origin": "https://elsewhere.example"}, "the origin is not this connection's"),
        ({"method": "say"}, "must be for events_allowed"),
        ({"arg": b"DIDL\x00\x00"}, "is not what docs/events.md says"),
        ({"expiry_ns": 1}, "Invalid request expiry"),
    ],
)
def test_what_was_not_signed_for_this_connection_is_refused(
    node: ProcessNode, club: Club, options: dict[str, object], text: str
) -> None:
    club.join(ANN)
    with Socket(node.url) as socket:
        told = socket.subscribe(ANN, club.id, ["chat"], **options)
        assert told["type"] == "refused"
        assert told["reason"] == "invalid"
        assert text in str(told["text"])
        assert socket.subscribe(ANN, club.id, ["chat"])["type"] == "subscribed"


def test_strangers_bad_signatures_and_canisters_without_the_query_are_refused(
    node: ProcessNode, club: Club
) -> None:
    with Socket(node.url) as socket:
        told = socket.subscribe(BEN, club.id, ["chat"])
        assert (told["type"], told["reason"]) == ("refused", "denied")
        told = socket.subscribe(AnonymousIdentity(), club.id, ["chat"])
        assert (told["type"], told["reason"]) == ("refused", "denied")
        envelope = bytearray(socket.envelope(ANN, club.id, ["chat"]))
        envelope[envelope.index(b"sender_sig") + 30] ^= 1
        socket.send({"type": "subscribe", "envelope": bytes(envelope)})
        told = socket.receive()
        assert (told["type"], told["reason"]) == ("refused", "invalid")
        nobody = Principal((0x100000 + 999).to_bytes(8, "big") + b"\x01\x01")
        told = socket.subscribe(ANN, nobody, ["chat"])
        assert (told["type"], told["reason"]) == ("refused", "denied")
        assert socket.subscribe(AnonymousIdentity(), club.id, ["open"])["topics"] == ["open"]


def test_an_envelope_is_of_no_use_on_another_connection(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    with Socket(node.url) as mine, Socket(node.url) as other:
        envelope = mine.envelope(ANN, club.id, ["chat"])
        mine.send({"type": "subscribe", "envelope": envelope})
        assert mine.receive()["type"] == "subscribed"
        other.send({"type": "subscribe", "envelope": envelope})
        told = other.receive()
        assert told["type"] == "refused"
        assert "challenge" in str(told["text"])


def test_a_browser_signs_its_origin(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    with Socket(node.url, "https://app.example") as socket:
        assert socket.subscribe(ANN, club.id, ["chat"], origin="")["type"] == "refused"
        assert socket.subscribe(ANN, club.id, ["chat"])["type"] == "subscribed"


def test_who_leaves_hears_nothing_of_that_round_and_those_who_stay_hear_all(
    node: ProcessNode, club: Club
) -> None:
    club.join(ANN)
    club.join(BEN)
    with Socket(node.url) as ann, Socket(node.url) as ben:
        assert ann.subscribe(ANN, club.id, ["chat"], 0)["type"] == "subscribed"
        assert ben.subscribe(BEN, club.id, ["chat"], 0)["type"] == "subscribed"
        club.say("chat", "hello")
        assert ann.events(1) == ben.events(1) == [(0, "chat", b"hello")]
        club.call("leave_and_say", (Principal, str), ANN.principal, "she is gone")
        club.say("chat", "bye")
        assert ben.events(2) == [(1, "chat", b"she is gone"), (2, "chat", b"bye")]
        told = ann.receive()
        assert (told["type"], told["reason"]) == ("ended", "denied")
        club.join(ANN)
        assert ann.subscribe(ANN, club.id, ["chat"], 3)["next"] == 3


def test_a_delegation_that_expires_ends_the_session(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    with Socket(node.url) as socket:
        # A machine that is slow hears of a short session when it is over: it gets a longer one.
        for lasting_s in (2, 20, 200):
            session = delegated(ANN, SESSION, time.time_ns() + lasting_s * 10**9)
            told = socket.subscribe(session, club.id, ["chat"])
            if told["type"] == "subscribed":
                break
        assert told["type"] == "subscribed"
        told = socket.receive()
        assert (told["type"], told["reason"]) == ("ended", "expired")
        with pytest.raises(ConnectionClosed, match="1008"):
            socket.receive()
    with Socket(node.url) as socket:
        told = socket.subscribe(session, club.id, ["chat"])
        assert (told["type"], told["reason"]) == ("refused", "invalid")
        assert "expired" in str(told["text"])


def test_a_delegation_for_another_canister_is_refused(node: ProcessNode, club: Club, module: bytes) -> None:
    club.join(ANN)
    other = Club(node, module)
    session = delegated(ANN, SESSION, time.time_ns() + 60 * 10**9, (other.id,))
    with Socket(node.url) as socket:
        told = socket.subscribe(session, club.id, ["chat"])
        assert told["type"] == "refused"
        assert "targets" in str(told["text"])


def test_who_comes_back_too_late_is_told_the_gap(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    for _ in range(3):
        club.call("say_many", (str, nat32, nat32), "chat", 50, 50_000)
    with Socket(node.url) as socket:
        assert socket.subscribe(ANN, club.id, ["chat"], 3)["type"] == "subscribed"
        gap = socket.receive()
        assert (gap["type"], gap["from"]) == ("gap", 3)
        first = gap["first"]
        assert isinstance(first, int)
        assert [number for number, _, _ in socket.events(150 - first)] == list(range(first, 150))
    with Socket(node.url) as socket:
        told = socket.subscribe(ANN, club.id, ["chat"], 151)
        assert (told["type"], told["reason"]) == ("refused", "ahead")


def test_a_slow_reader_is_bounded_and_catches_up_with_a_gap(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    count = 0
    with Socket(node.url) as slow:
        assert slow.subscribe(ANN, club.id, ["chat"], 0)["type"] == "subscribed"
        for _ in range(10):
            club.call("say_many", (str, nat32, nat32), "chat", 100, 60_000)
            count += 100
        gateway = node.child("cannery.node.gateway").memory_info().rss
        assert gateway < 400 * 2**20
        expected, gaps = 0, 0
        while expected < count:
            message = slow.receive()
            if message["type"] == "gap":
                gaps += 1
                assert message["from"] == expected
                expected = message["first"]  # type: ignore[assignment]
            else:
                assert message["number"] == expected
                expected += 1
        assert gaps >= 1


def test_messages_that_are_none_close_the_connection(node: ProcessNode, club: Club) -> None:
    for message, code in (("text", "1003"), (b"\xff", "1007"), (b"\xa0", "1007"), (bytes(70_000), "1009")):
        with Socket(node.url) as socket:
            socket.connection.send(message)
            with pytest.raises(ConnectionClosed, match=code):
                socket.receive()


def test_plain_requests_are_told_to_use_a_websocket(node: ProcessNode) -> None:
    answer = httpx.get(node.url + "/api/cannery/v1/events")
    assert answer.status_code == 426
    assert answer.headers["upgrade"] == "websocket"
    headers = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "9"}
    answer = httpx.get(node.url + "/api/cannery/v1/events", headers=headers)
    assert answer.status_code in (400, 426)
    assert httpx.get(node.url + "/api/v2/status").status_code == 200


def test_a_connection_has_one_subscription_for_a_canister_until_it_unsubscribes(
    node: ProcessNode, club: Club
) -> None:
    club.join(ANN)
    with Socket(node.url) as socket:
        assert socket.subscribe(ANN, club.id, ["chat"], 0)["type"] == "subscribed"
        assert "already" in str(socket.subscribe(ANN, club.id, ["chat"], 0)["text"])
        socket.send({"type": "unsubscribe", "canister": club.id.raw})
        assert socket.receive()["reason"] == "unsubscribed"
        club.say("chat", "unheard")
        assert socket.subscribe(ANN, club.id, ["chat"])["type"] == "subscribed"
        club.say("chat", "heard")
        assert socket.events(1) == [(1, "chat", b"heard")]


def test_too_many_topics_are_refused(node: ProcessNode, club: Club) -> None:
    club.join(ANN)
    with Socket(node.url) as socket:
        assert "1 to 256 topics" in str(socket.subscribe(ANN, club.id, [])["text"])
        assert "1 to 256 topics" in str(socket.subscribe(ANN, club.id, ["t"] * 257)["text"])
        assert "longer than 128" in str(socket.subscribe(ANN, club.id, ["t" * 129])["text"])
