"""A real node of two gateway processes: whichever of them a client meets, the node is one.

A client's connection stays with one process, so a test has a connection to each: while one process is
stopped, the other takes what connects.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

from cannery import Canister, Context, StableCell, nat64, query, update
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.limits import RESTART_COUNT_MAX
from cannery.protocol import cbor
from cannery.protocol.certificate import decode_certificate, verify_certificate
from cannery.protocol.envelope import (
    CallContent,
    QueryContent,
    ReadStateContent,
    build_envelope,
    request_id_of,
)
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.protocol.principal import Principal
from cannery.protocol.request_status import Replied, read_request_status
from tests.events.sockets import Socket
from tests.events.test_events_socket import Club, club_module
from tests.node.exposition import Family, read_exposition
from tests.node.process_node import ProcessNode, wait_until_gone
from tests.node.test_processes import EMPTY, module_of
from tests.waiting import NEVER_S, wait_until

ANN = Ed25519Identity(bytes(31) + b"\x0a")
BEN = Ed25519Identity(bytes(31) + b"\x0b")
CAT = Ed25519Identity(bytes(31) + b"\x0c")
CBOR = {"content-type": "application/cbor"}
EXPIRY_NS = 200 * 10**9
nonces = iter(range(10**9))

CONFIG = """
[node]
gateway_count = 2
no_progress_ms_max = 100000
"""
HANGS_SOON = CONFIG.replace("100000", "1000")


class Tally(Canister):
    count = StableCell(nat64, 0)

    @update
    def add(self, ctx: Context) -> nat64:
        self.count.set(self.count.get() + 1)
        return self.count.get()

    @update
    def size(self, ctx: Context, data: bytes) -> nat64:
        return len(data)

    @update
    def fetch(self, ctx: Context, count: nat64) -> bytes:
        return bytes(count)

    @query
    def many(self, ctx: Context, count: nat64) -> bytes:
        return bytes(count)

    @query
    def value(self, ctx: Context) -> nat64:
        return self.count.get()


def nat(value: int) -> bytes:
    return encoder((type_of(nat64),))((value,))


@dataclass
class Pair:
    """A node with two gateways, and a connection to each."""

    node: ProcessNode
    canister: Principal
    clients: list[httpx.Client] = field(default_factory=list)

    def gateway(self, number: int) -> psutil.Process:
        return self.node.child(f"--index {number}")

    @contextmanager
    def only(self, number: int) -> Iterator[None]:
        """Let one of the two answer alone: the other is stopped."""
        other = self.gateway(1 - number)
        other.suspend()
        try:
            yield
        finally:
            other.resume()

    def connect(self) -> None:
        """Connect to each anew."""
        self.close()
        for number in range(2):
            client = httpx.Client(base_url=self.node.url, timeout=NEVER_S)
            with self.only(number):
                assert client.get("/health?verbose").json()["gateway"] == number
            self.clients.append(client)

    def close(self) -> None:
        for client in self.clients:
            client.close()
        self.clients.clear()

    def wait_for_starts(self, count: int) -> None:
        """Ask the first gateway until the second has been started so often, and is up."""

        def is_started() -> bool:
            each = httpx.get(f"{self.node.url}/health?verbose").json()["gateways"][1]
            return each["starts"] == count and each["is_up"]

        wait_until(is_started, "it was not started again")

    # --- requests

    def call(
        self, number: int, content: CallContent, who: Identity = ANN, version: int = 4
    ) -> httpx.Response:
        return self.post_call(self.clients[number], content, who, version)

    def post_call(
        self, client: httpx.Client, content: CallContent, who: Identity = ANN, version: int = 4
    ) -> httpx.Response:
        path = f"/api/v{version}/canister/{self.canister}/call"
        return client.post(path, content=build_envelope(content, who), headers=CBOR)

    def query(self, number: int, method: str, arg: bytes = EMPTY, who: Identity = ANN) -> httpx.Response:
        content = QueryContent(
            who.principal, self.canister, method, arg, time.time_ns() + EXPIRY_NS, next_nonce()
        )
        path = f"/api/v3/canister/{self.canister}/query"
        return self.clients[number].post(path, content=build_envelope(content, who), headers=CBOR)

    def content(self, method: str, arg: bytes = EMPTY, who: Identity = ANN) -> CallContent:
        return CallContent(
            who.principal, self.canister, method, arg, time.time_ns() + EXPIRY_NS, next_nonce()
        )

    def status_of(self, number: int, content: CallContent, who: Identity = ANN) -> object:
        """Read a call's status at a gateway."""
        request_id = request_id_of(content)
        read = ReadStateContent(who.principal, ((b"request_status", request_id),), time.time_ns() + EXPIRY_NS)
        path = f"/api/v3/canister/{self.canister}/read_state"
        answer = self.clients[number].post(path, content=build_envelope(read, who), headers=CBOR)
        assert answer.status_code == 200, answer.text
        return self.proven(answer.content, content)

    def reply_at(self, number: int, content: CallContent) -> Replied:
        """Read a call's status at a gateway until it is replied."""

        def reply() -> Replied | None:
            found = self.status_of(number, content)
            return found if isinstance(found, Replied) else None

        found = wait_until(reply, "no reply comes")
        assert found is not None
        return found

    def proven(self, body: bytes, content: CallContent) -> object:
        fields, _ = cbor.decode(body)
        assert isinstance(fields, dict)
        certificate = decode_certificate(fields["certificate"])  # type: ignore[arg-type]
        verify_certificate(certificate, self.node.agent.root_key(), now_ns=time.time_ns())
        return read_request_status(certificate.tree, request_id_of(content))

    def value(self) -> int:
        (found,) = decoder((type_of(nat64),))(self.node.agent.query(self.canister, "value", EMPTY))
        assert isinstance(found, int)
        return found

    def metrics(self, number: int) -> dict[str, Family]:
        return read_exposition(self.clients[number].get("/metrics").text)

    def counted(self, number: int, name: str, **labels: str) -> dict[str, float]:
        """Give what a gateway's page tells of each gateway, where labels are these."""
        found: dict[str, float] = {}
        for (sample, shown), value in self.metrics(number)[f"cannery_gateway_{name}"].samples.items():
            own = dict(shown)
            if sample == f"cannery_gateway_{name}" and labels.items() <= own.items():
                found[own["gateway"]] = found.get(own["gateway"], 0) + value
        return found


def next_nonce() -> bytes:
    return next(nonces).to_bytes(16, "big")


@contextmanager
def running_pair(data: Path, config: str = CONFIG) -> Iterator[Pair]:
    data.mkdir()
    (data / "cannery.toml").write_text(config)
    node = ProcessNode(data)
    try:
        pair = Pair(node, node.install(module_of(Tally)))
        pair.connect()
        yield pair
        pair.close()
    except BaseException:
        node.kill()
        raise
    code, errors = node.stop()
    assert code == 0, errors
    assert "Traceback" not in errors, errors


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with running_pair(tmp_path_factory.mktemp("pair") / "data") as found:
        yield found


def test_either_gateway_tells_what_both_have_counted(pair: Pair) -> None:
    before = pair.counted(0, "requests_total", verb="query", status="200")
    for number, count in ((0, 3), (1, 5)):
        for _ in range(count):
            assert pair.query(number, "value").status_code == 200
    assert pair.query(1, "absent").status_code == 200
    for number in range(2):
        after = pair.counted(number, "requests_total", verb="query", status="200")
        assert [after[who] - before.get(who, 0) for who in ("0", "1")] == [3, 6]
        assert pair.counted(number, "refusals_total", verb="query", reason="rejected")["1"] >= 1
        assert pair.counted(number, "up") == {"0": 1, "1": 1}
        seconds = pair.metrics(number)["cannery_gateway_request_seconds"].samples
        assert all(
            seconds["cannery_gateway_request_seconds_count", (("gateway", who), ("verb", "query"))]
            >= after[who]
            for who in ("0", "1")
        )
    health = pair.clients[0].get("/health?verbose").json()
    assert [(each["gateway"], each["is_up"]) for each in health["gateways"]] == [(0, True), (1, True)]


def test_one_envelope_at_both_runs_once_and_both_get_its_answer(pair: Pair) -> None:
    before = pair.value()
    with ThreadPoolExecutor(2) as both:
        for _ in range(10):
            content = pair.content("add")
            answers = list(both.map(partial(pair.call, content=content), range(2)))
            first, second = (pair.proven(answer.content, content) for answer in answers)
            assert isinstance(first, Replied)
            assert first == second
    assert pair.value() == before + 10


def test_a_call_at_one_gateway_is_read_at_the_other(pair: Pair) -> None:
    for number in range(2):
        content = pair.content("add")
        assert pair.call(number, content, version=2).status_code == 202
        found = pair.reply_at(1 - number, content)
        again = pair.call(1 - number, content)
        assert pair.proven(again.content, content) == found


def test_a_large_body_may_be_sent_in_parts_to_both(pair: Pair) -> None:
    data = bytes(range(256)) * 12_000
    content = pair.content("size", encoder((type_of(bytes),))((data,)))
    body = build_envelope(content, ANN)
    digest = hashlib.sha256(body).hexdigest()
    path = f"/cannery/body/{digest}"
    half = len(body) // 2
    for number, (begin, end) in enumerate(((0, half), (half, len(body)))):
        answer = pair.clients[number].patch(
            path,
            content=body[begin:end],
            headers={"upload-offset": str(begin), "upload-length": str(len(body))},
        )
        assert answer.status_code == 204, answer.text
        assert pair.clients[1 - number].head(path).headers["upload-offset"] == str(end)
    answer = pair.clients[0].post(
        f"/api/v4/canister/{pair.canister}/call", headers={**CBOR, "cannery-body": digest}
    )
    assert answer.status_code == 200, answer.text
    assert pair.proven(answer.content, content) == Replied(nat(len(data)))


def test_a_large_answer_of_one_is_read_again_at_the_other(pair: Pair) -> None:
    answer = pair.query(0, "many", nat(6 * 2**20))
    digest = answer.headers["cannery-body"]
    assert hashlib.sha256(answer.content).hexdigest() == digest
    assert pair.clients[1].get(f"/cannery/body/{digest}").content == answer.content


def test_a_large_answer_goes_to_all_who_sent_the_same_and_leaves_nothing(pair: Pair) -> None:
    size = 3 * 2**20
    with ExitStack() as opened:
        more = [opened.enter_context(httpx.Client(base_url=pair.node.url, timeout=NEVER_S)) for _ in range(4)]
        with ThreadPoolExecutor(6) as all_of_them:
            for _ in range(4):
                content = pair.content("fetch", nat(size))
                send = partial(pair.post_call, content=content)
                answers = list(all_of_them.map(send, [*pair.clients, *more]))
                assert [answer.status_code for answer in answers] == [200] * 6
                found = [pair.proven(answer.content, content) for answer in answers]
                assert found == [Replied(encoder((type_of(bytes),))((bytes(size),)))] * 6
    # Nor does an answer that is read as a request's status, if at all.
    content = pair.content("fetch", nat(size))
    assert pair.call(0, content, version=2).status_code == 202
    pair.reply_at(1, content)
    wait_until(lambda: not list((pair.node.data / "spool").glob("reply-*")), "a reply stays in the spool")


def test_subscribers_at_either_hear_the_same(pair: Pair) -> None:
    club = Club(pair.node, club_module())
    club.join(ANN)
    with ExitStack() as opened:
        sockets = []
        for number in range(2):
            with pair.only(number):
                socket = opened.enter_context(Socket(pair.node.url))
                assert socket.subscribe(ANN, club.id, ["chat"], 0)["type"] == "subscribed"
                sockets.append(socket)
        for text in ("one", "two"):
            club.say("chat", text)
        heard = [socket.events(2) for socket in sockets]
        assert heard[0] == heard[1]
        assert [payload for _, _, payload in heard[0]] == [b"one", b"two"]
        for number in range(2):
            assert pair.counted(number, "event_subscriptions") == {"0": 1, "1": 1}
            assert pair.counted(number, "events_sent_total") == {"0": 2, "1": 2}


def test_what_a_killed_gateway_had_counted_is_kept(tmp_path: Path) -> None:
    with running_pair(tmp_path / "data") as pair:
        for number in (0, 1, 1, 1):
            pair.query(number, "value")
        before = pair.counted(0, "requests_total", verb="query")
        assert before == {"0": 1, "1": 3}
        killed = pair.gateway(1)
        killed.kill()
        wait_until_gone(killed)
        assert pair.counted(0, "requests_total", verb="query") == before
        assert "gateway 1 ended unexpectedly (signal SIGKILL)" in pair.node.report()
        assert pair.clients[0].get("/health").status_code == 200
        pair.wait_for_starts(2)
        pair.connect()
        pair.query(1, "value")
        after = pair.counted(1, "requests_total", verb="query")
        assert after == {"0": 1, "1": 4}


def test_a_gateway_may_be_killed_more_often_than_one_may_fail(tmp_path: Path) -> None:
    with running_pair(tmp_path / "data") as pair:
        for _ in range(RESTART_COUNT_MAX + 2):
            pair.gateway(1).kill()
            assert "gateway 1 ended unexpectedly" in pair.node.report()
            assert pair.node.report() == "gateway 1 serves again"
        assert pair.query(0, "value").status_code == 200


def test_a_gateway_that_hangs_is_known_and_started_again(tmp_path: Path) -> None:
    with running_pair(tmp_path / "data", HANGS_SOON) as pair:
        hung = pair.gateway(1)
        hung.suspend()
        # Whoever connects meets the other.
        for _ in range(5):
            assert httpx.get(f"{pair.node.url}/health").status_code == 200
        assert "gateway 1 showed no sign of life" in pair.node.report()
        wait_until_gone(hung)
        pair.wait_for_starts(2)
        pair.connect()
        assert pair.query(1, "value").status_code == 200


LIMITS = (
    CONFIG
    + """
[gateway]
requests_per_principal_per_s = 0.01
requests_per_principal_burst = 20
refused_calls_per_address_per_s = 0.01
refused_calls_per_address_burst = 10
"""
)


def test_limits_hold_for_both_together(tmp_path: Path) -> None:
    with running_pair(tmp_path / "data", LIMITS) as pair:
        statuses = [pair.query(turn % 2, "value", who=BEN).status_code for turn in range(40)]
        assert statuses.count(200) == 20
        assert statuses.count(429) == 20
        assert pair.query(0, "value", who=ANN).status_code == 200
        # Calls that the canister refuses: seldom to be heard at one is seldom to be heard at the other.
        answers = [
            pair.call(turn % 2, pair.content("absent", who=CAT), CAT).status_code for turn in range(14)
        ]
        assert answers == [200] * 10 + [429] * 4
