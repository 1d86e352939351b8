"""What clients read of a node's answers, of canisters' interfaces and replies, and of their own small files.

`tests/test_fuzz.py` has the laws. Answers arrive in the conversations that ask for them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cannery.candid.codec import encoder
from cannery.client.actor import InterfaceError, interface_of, parse_interface, shape_of
from cannery.client.conversation import Conversation
from cannery.client.errors import ClientError, Unverified
from cannery.client.exchange import Answer, Send
from cannery.client.identity_store import IdentityStore, PinStore, StoreProblem, load_pem, origin_of
from cannery.client.retry import Backoff, retry_after_s
from cannery.client.transfer import deliver
from cannery.client.zone_anchors import ZoneAnchors
from cannery.limits import CLIENT_UPLOAD_SIZE_BYTES_MIN
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.pem import format_pem
from tests.client.fake_node import CANISTER, FakeNode
from tests.fuzzing import Decoder, NeverRefused

Ask = Callable[[FakeNode, Conversation], object]

URL = "http://127.0.0.1:4943"
DID = (
    "type entry = record { at : nat64; text : opt text; who : vec principal };"
    " service : (nat) -> { latest : (nat32, variant { a; b : int }) -> (vec entry) query;"
    " f : (func () -> ()) -> () }"
)
SHAPE = shape_of("latest", parse_interface(DID).methods["latest"])
LARGE = bytes(CLIENT_UPLOAD_SIZE_BYTES_MIN)


def _status(node: FakeNode, talk: Conversation) -> object:
    return node.hold(talk.status())


def _names(node: FakeNode, talk: Conversation) -> object:
    return node.hold(talk.names())


def _call(node: FakeNode, talk: Conversation) -> object:
    return node.hold(talk.call(talk.sign_call(CANISTER, "greet", b"x")))


def _query(node: FakeNode, talk: Conversation) -> object:
    return node.hold(talk.query(CANISTER, "greet", b"x", None))


def _read(node: FakeNode, talk: Conversation) -> object:
    return node.hold(talk.read_state([[b"time"]], CANISTER))


def _answer_of(ask: Ask) -> bytes:
    """Give the body that an honest node ends such a conversation with."""
    node, bodies = FakeNode(), list[bytes]()

    def note(answer: Answer) -> Answer:
        bodies.append(answer.body)
        return answer

    node.damage = note
    talk = node.conversation()
    ask(node, talk)
    # By now it knows the keys of the subnet, and asks for nothing else.
    ask(node, talk)
    return bodies[-1]


def _told(ask: Ask) -> Callable[[bytes], object]:
    """Hold such a conversation with a node that answers the last request with any bytes."""
    node = FakeNode()
    talk = node.conversation()
    ask(node, talk)

    def run(data: bytes) -> object:
        fresh = FakeNode(damage=lambda answer: replace(answer, body=data))
        known = fresh.conversation(node_keys=talk.node_keys)
        return ask(fresh, known)

    return run


def _asked(ask: Ask) -> Decoder:
    return Decoder(_told(ask), ClientError, (_answer_of(ask),))


def _names_told(data: bytes) -> object:
    node = FakeNode()
    node.outages = [Answer(200, {}, data)]
    return _names(node, node.conversation())


def _uploaded(data: bytes) -> None:
    """Begin a large upload at a node that says how much of it is there."""
    backoff = Backoff(lambda: 0, 1)
    exchange = deliver(Send("POST", "/x", LARGE), backoff, None)
    next(exchange)
    exchange.send(Answer(200, {"upload-offset": data.decode("latin-1")}, b""))


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(data)
            return read(Path(folder))

    return run


def _written(name: str, write: Callable[[Path], object]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        return (Path(folder) / name).read_bytes()


ANN = Ed25519Identity(bytes(31) + b"\x01")
DECODERS = {
    "status of a node": _asked(_status),
    "names of a node": Decoder(
        _names_told, ClientError, (b'{"canisters": {"user_index": "%s"}}' % str(CANISTER).encode(),)
    ),
    "answer to a call": _asked(_call),
    "answer to a query": _asked(_query),
    "answer to read_state": _asked(_read),
    "bytes that have arrived": Decoder(_uploaded, ClientError, (b"0", b"%d" % len(LARGE))),
    "retry-after": Decoder(
        lambda data: retry_after_s(Answer(429, {"retry-after": data.decode("latin-1")}, b"")),
        NeverRefused,
        (b"3",),
    ),
    "interface in metadata": Decoder(
        lambda data: interface_of(CANISTER, data), InterfaceError, (DID.encode(),), long_bytes=50_000
    ),
    "reply": Decoder(
        SHAPE.decode_results,
        Unverified,
        (encoder(SHAPE.func.results)(([{"at": 5, "text": "x", "who": [CANISTER]}],)),),
    ),
    "pins": Decoder(
        _in_file("pins.json", lambda folder: PinStore(folder).find(URL)),
        StoreProblem,
        (_written("pins.json", lambda folder: PinStore(folder).set(URL, b"key")),),
    ),
    "anchors of zones": Decoder(
        _in_file("zones.json", lambda folder: ZoneAnchors(folder).find(CANISTER, CANISTER)),
        StoreProblem,
        (b'{"aaaaa-aa aaaaa-aa": [1, "00ff"]}',),
    ),
    "pem file": Decoder(
        _in_file("x.pem", lambda folder: load_pem(folder / "x.pem")),
        StoreProblem,
        (format_pem(ANN).encode(),),
    ),
    "url of a node": Decoder(
        lambda data: origin_of(data.decode("latin-1")), StoreProblem, (URL.encode(), b"https://[::1]:80/x")
    ),
    "name of an identity": Decoder(
        lambda data: IdentityStore(Path("/nowhere")).path(data.decode("latin-1")), StoreProblem, (b"ann",)
    ),
}
