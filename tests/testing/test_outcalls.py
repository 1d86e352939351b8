"""Canisters ask the world outside: performed after the round, taken once, replayed by nobody."""

from __future__ import annotations

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    composite_query,
    continuation,
    nat64,
    query,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.management import Management
from cannery.cdk.outcalls import (
    HttpHeader,
    HttpRequestArgs,
    HttpResult,
    TransformArgs,
    http_get,
    http_post,
    transform_by,
)
from cannery.errors import StoreError
from cannery.limits import OUTCALL_PER_CANISTER_COUNT_MAX, OUTCALL_SIZE_BYTES_MAX
from cannery.node.python_runtime import PythonPrograms
from cannery.protocol.principal import MANAGEMENT
from cannery.replica import keys
from cannery.replica.block import OutcallAnswer, PriceSchedule, ReplicaConfig, decode_block
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.outcall_types import HttpMethod
from cannery.replica.management.outcall_types import HttpRequestArgs as NodeArgs
from cannery.replica.management.types import StopArgs
from cannery.replica.rounds import run_round
from cannery.testing import (
    Crashed,
    FaultyStore,
    HttpFailure,
    HttpRequest,
    HttpResponse,
    HttpSilence,
    MemoryStore,
    Node,
    Rejected,
)
from tests.replica.laws import check_laws

URL = "https://rpc.example.org/rate"


class Asker(Canister):
    """Asks, counts the answers, and lets them go through transforms."""

    answers = StableCell(nat64, 0)

    @update
    def ask(self, ctx: Context, url: str, transform: str, most: nat64 | None) -> Pending[str]:
        chosen = transform_by(ctx.id, transform, b"!") if transform else None
        args = http_get(url, {"accept": "text/plain"}, response_bytes_max=most, transform=chosen)
        return ctx.call(Management().http_request(args), then=self.answered, cycles=ctx.balance // 2)

    @update
    def post(self, ctx: Context, url: str, body: bytes) -> Pending[str]:
        return ctx.call(Management().http_request(http_post(url, body)), then=self.answered)

    @update
    def ask_as(self, ctx: Context, other: Principal) -> Pending[str]:
        args = http_get("https://rpc.example.org/", transform=transform_by(other, "shout"))
        return ctx.call(Management().http_request(args), then=self.answered)

    @update
    def ask_with(self, ctx: Context, name: str, value: str) -> Pending[str]:
        args = http_get("https://rpc.example.org/", {name: value})
        return ctx.call(Management().http_request(args), then=self.answered)

    @update
    def ask_often(self, ctx: Context, count: nat64) -> None:
        for _ in range(count):
            ctx.call(Management().http_request(http_get("https://rpc.example.org/")), then=self.answered)

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[HttpResult]) -> str:
        self.answers.set(nat64(self.answers.get() + 1))
        if not outcome.ok:
            return f"{outcome.reject_code} {outcome.reject_message}"
        shown = " ".join(f"{h.name}={h.value}" for h in outcome.value.headers)
        return f"{outcome.value.status} {shown} {outcome.value.body.decode()}"

    @query
    def count(self, ctx: Context) -> nat64:
        return self.answers.get()

    @query
    def shout(self, ctx: Context, args: TransformArgs) -> HttpResult:
        if ctx.caller != Principal(b""):
            ctx.trap("not the management canister")
        body = args.response.body.upper() + args.context + str(self.answers.get()).encode()
        return HttpResult(args.response.status, [], body)

    @query
    def trap(self, ctx: Context, args: TransformArgs) -> HttpResult:
        ctx.trap("cannot read it")

    @query
    def refuse(self, ctx: Context, args: TransformArgs) -> HttpResult:
        ctx.reject("not this one")
        return args.response

    @query
    def grow(self, ctx: Context, args: TransformArgs) -> HttpResult:
        return HttpResult(args.response.status, [], b"x" * 200)

    @query
    def wrong(self, ctx: Context, args: TransformArgs) -> str:
        return "what"

    @query
    def hang(self, ctx: Context, args: TransformArgs) -> HttpResult:
        while True:
            pass

    @composite_query
    def composed(self, ctx: Context, args: TransformArgs) -> HttpResult:
        return args.response


def replayed_root(node: Node) -> bytes:
    """Run every block of a node again, on an empty store and with nobody to ask; give the last root."""
    store, programs = MemoryStore(), PythonPrograms(frozenset())
    root = b""
    for number in range(1, node.subnet.head.number + 1):
        data = node.store.get(keys.block_key(number))
        assert data is not None
        outcome = run_round(store, decode_block(data), programs, None)
        store.write(outcome.batch)
        root = outcome.root
    programs.close()
    return root


def test_an_answer_comes_back_and_a_replay_asks_nobody() -> None:
    with Node() as node:
        asker = node.install(Asker)
        node.answer_http("https://rpc.example.org/*", HttpResponse(b"42", 200, (("server", "x"),)))
        assert asker.ask(URL, "", None) == "200 server=x 42"
        assert asker.ask(URL, "shout", None) == "200  42!1"
        (request, _) = node.http_requests
        assert request == HttpRequest(URL, "GET", (("accept", "text/plain"),), b"")
        check_laws(node.store)
        assert replayed_root(node) == node.subnet.head.root
        assert len(node.http_requests) == 2


def test_the_answer_stands_in_the_block() -> None:
    with Node() as node:
        asker = node.install(Asker)
        node.answer_http("*", b"42")
        asker.ask(URL, "", None)
        found = []
        for number in range(1, node.subnet.head.number + 1):
            data = node.store.get(keys.block_key(number))
            assert data is not None
            found += [item for item in decode_block(data).inputs if isinstance(item, OutcallAnswer)]
        assert [(answer.canister_id, answer.body) for answer in found] == [(asker.id.raw, b"42")]


def test_a_post_carries_its_body() -> None:
    with Node() as node:
        asker = node.install(Asker)

        def echo(request: HttpRequest) -> HttpResponse:
            return HttpResponse(request.method.encode() + b" " + request.body, 201)

        node.answer_http("https://a.org/*", echo)
        assert asker.post("https://a.org/x", b"hello") == "201  POST hello"


@pytest.mark.parametrize(
    ("transform", "text"),
    [
        ("trap", "cannot read it"),
        ("refuse", "not this one"),
        ("wrong", "did not give an http_request_result"),
        ("missing", "has no query method 'missing'"),
        ("ask", "has no query method 'ask'"),
        ("composed", "composite query"),
        ("grow", "gave 200 bytes, max_response_bytes is 100"),
        ("hang", "was stopped"),
    ],
)
def test_a_transform_that_fails_is_a_reject(transform: str, text: str) -> None:
    soon = ReplicaConfig(outcall_hosts=("*",), query_cpu_ns_max=100_000_000)
    with Node(config=soon if transform == "hang" else None) as node:
        asker = node.install(Asker)
        node.answer_http("*", b"42")
        assert text in asker.ask(URL, transform, 100)
        assert asker.ask(URL, "shout", 100) == "200  42!1"
        check_laws(node.store)
        assert replayed_root(node) == node.subnet.head.root


def test_failure_and_silence_are_rejects() -> None:
    with Node() as node:
        asker = node.install(Asker)
        assert "2 no scripted answer" in asker.ask(URL, "", None)
        node.answer_http("*", HttpFailure("down"))
        assert asker.ask(URL, "", None) == "2 down"
        node.answer_http("*", HttpSilence())
        sent = asker.ask.submit(URL, "", None)
        node.advance(seconds=59)
        assert asker.count() == 2
        node.advance(seconds=2)
        assert "2 rpc.example.org gave no answer within 60 s" in sent.result()
        check_laws(node.store)


def test_an_answer_that_comes_too_late_changes_nothing() -> None:
    with Node() as node:
        asker = node.install(Asker)
        node.answer_http("*", HttpSilence())
        asker.ask.submit(URL, "", None)
        node.run()
        (name,) = [
            (keys.owner_of(k), keys.number_of(k))
            for k, _ in node.store.scan(*keys.space_range(keys.OUTCALLS))
        ]
        node.advance(seconds=61)
        assert asker.count() == 1
        before = node.subnet.head.number
        node.subnet.outcalls.answer(OutcallAnswer(*name, 200, (), b"late"))
        node.subnet.outcalls.answer(OutcallAnswer(b"\x07", 9, 200, (), b"never asked for"))
        node.run()
        assert (asker.count(), node.subnet.head.number) == (1, before + 1)


def test_nobody_is_called_unless_the_operator_says_so() -> None:
    with Node(config=ReplicaConfig()) as node:
        asker = node.install(Asker)
        text = asker.ask("https://rpc.example.org:8443/x", "", None)
        assert text == (
            "4 http_request: this node calls nobody outside: its operator adds "
            '"rpc.example.org:8443" to allow under [outcalls] in cannery.toml'
        )
        assert node.http_requests == []
    with Node(config=ReplicaConfig(outcall_hosts=("rpc.example.org",))) as node:
        asker = node.install(Asker)
        node.answer_http("*", b"42")
        assert asker.ask(URL, "", None) == "200  42"
        assert 'does not call http://rpc.example.org: its operator adds "http' in asker.ask(
            "http://rpc.example.org", "", None
        )
        assert len(node.http_requests) == 1


def test_users_and_foreign_transforms_are_refused() -> None:
    with Node() as node:
        asker = node.install(Asker)
        args = NodeArgs(URL, None, HttpMethod.get(), [], None, None)
        with pytest.raises(Rejected, match="is for canisters"):
            node.call_raw(
                MANAGEMENT, "http_request", encoder(METHODS["http_request"].args)((args,)), node.operator
            )
        other = node.install(Asker)
        assert "must be a query of the canister that calls" in asker.ask_as(other.id)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("host", "evil.org", "is set by the node"),
        ("Content-Length", "5", "is set by the node"),
        ("transfer-encoding", "chunked", "is set by the node"),
        ("proxy-authorization", "x", "is set by the node"),
        ("a b", "x", "not printable ASCII"),
        ("", "x", "not printable ASCII"),
        ("a", "x\r\nb: c", "not printable ASCII"),
        ("a", "x" * 9_000, "at most 8192 bytes"),
    ],
)
def test_headers_that_would_change_the_request_are_refused(name: str, value: str, text: str) -> None:
    with Node() as node:
        asker = node.install(Asker)
        node.answer_http("*", b"")
        assert text in asker.ask_with(name, value)
        assert node.http_requests == []


def test_sizes_and_counts_are_bounded() -> None:
    with Node() as node:
        asker = node.install(Asker)
        node.answer_http("*", b"x" * 101)
        assert "larger than max_response_bytes" in asker.ask(URL, "", 100)
        assert "max_response_bytes is at most" in asker.ask(URL, "", OUTCALL_SIZE_BYTES_MAX + 1)
        assert "a request has at most" in asker.post(URL, b"x" * OUTCALL_SIZE_BYTES_MAX)
        node.answer_http("*", HttpSilence())
        asker.ask_often(OUTCALL_PER_CANISTER_COUNT_MAX)
        assert "as many as may be: wait for an answer" in asker.ask(URL, "", None)
        node.advance(seconds=61)
        node.answer_http("*", b"42")
        assert asker.ask(URL, "", None) == "200  42"
        assert list(node.store.scan(*keys.space_range(keys.OUTCALL_COUNTS))) == []


def test_cycles_are_charged_for_what_is_asked() -> None:
    prices = PriceSchedule(per_outcall=1_000, per_outcall_request_byte=10, per_outcall_response_byte=2)
    with Node(config=ReplicaConfig(prices=prices, outcall_hosts=("*",))) as node:
        asker = node.install(Asker, cycles=100_000)
        node.answer_http("*", b"42")
        asked = len(URL) + len("accept") + len("text/plain")
        assert asker.ask(URL, "", 100) == "200  42"
        account = node.manage("cannery_status_many", [asker.id])[0].status  # type: ignore[index]
        assert 100_000 - account.cycles == account.burned == 1_000 + 10 * asked + 2 * 100
        check_laws(node.store)
        assert "costs 4001440 cycles" in asker.ask(URL, "", None)
        assert node.manage("cannery_status_many", [asker.id])[0].status.burned == account.burned  # type: ignore[index]
        node.answer_http("*", HttpSilence())
        asker.ask.submit(URL, "", 100)
        node.run()
        check_laws(node.store)


def test_a_canister_that_is_stopped_by_force_gets_its_cycles_back() -> None:
    with Node(config=ReplicaConfig(outcall_hosts=("*",))) as node:
        asker = node.install(Asker, cycles=1_000)
        node.answer_http("*", HttpSilence())
        asker.ask.submit(URL, "shout", None)
        node.run()
        node.manage("cannery_stop_canister", StopArgs(asker.id, True))
        ((owner, number),) = [
            (keys.owner_of(k), keys.number_of(k))
            for k, _ in node.store.scan(*keys.space_range(keys.OUTCALLS))
        ]
        node.subnet.outcalls.answer(OutcallAnswer(owner, number, 200, (), b"42"))
        node.run()
        assert node.manage("cannery_status_many", [asker.id])[0].status.cycles == 1_000  # type: ignore[index]
        check_laws(node.store)


def test_a_crash_anywhere_performs_again_and_takes_one_answer() -> None:
    performed = [crash_at(place) for place in range(1, 20)]
    count = performed.index(None)
    assert count > 3
    assert {1, 2} == set(performed[:count])


def crash_at(place: int) -> int | None:
    """Ask, go down at an operation of the store, start again and ask the same again; say how often somebody
    outside was called, or None where it did not go down.
    """
    store, sent = FaultyStore(seed=5), b"\x05" * 32
    node = Node(store)
    asker = node.install(Asker)
    store.crash_at(store.operation_count + place)
    arg = encoder((type_of(str), type_of(str), type_of(nat64 | None)))((URL, "shout", None))
    node.answer_http("*", b"42")
    try:
        node.submit_raw(asker.id, "ask", arg, node.operator, sent)
        node.run()
        return None
    except Crashed:
        node.restart()
    node.submit_raw(asker.id, "ask", arg, node.operator, sent)
    node.run()
    assert asker.count() == 1
    check_laws(node.store)
    node.close()
    return len(node.http_requests)


def test_a_request_without_an_answer_is_performed_again_after_a_crash() -> None:
    store = FaultyStore(seed=5)
    with Node(store) as node:
        asker = node.install(Asker)
        node.answer_http("*", HttpSilence())
        asker.ask.submit(URL, "", None)
        node.run()
        assert len(node.http_requests) == 1
        node.answer_http("*", b"42")
        node.restart()
        assert (len(node.http_requests), asker.count()) == (2, 1)


def test_a_failing_disk_keeps_answers_for_later() -> None:
    store = FaultyStore(seed=5)
    with Node(store) as node:
        asker = node.install(Asker)
        node.answer_http("*", HttpSilence())
        asker.ask.submit(URL, "", None)
        node.run()
        ((owner, number),) = [
            (keys.owner_of(k), keys.number_of(k))
            for k, _ in node.store.scan(*keys.space_range(keys.OUTCALLS))
        ]
        store.fail_at(store.operation_count + 1)
        node.subnet.outcalls.answer(OutcallAnswer(owner, number, 200, (), b"42"))
        node.run()
        assert node.subnet.failure is not None
        assert node.recover()
        node.run()
        assert (asker.count(), len(node.http_requests)) == (1, 1)


def test_interfaces_of_author_and_node_are_one() -> None:
    args = HttpRequestArgs(URL, None, http_get(URL).method, [HttpHeader("a", "b")], None, None)
    call = Management().http_request(args)
    decoded = METHODS["http_request"].decode(call.arg)
    assert isinstance(decoded, NodeArgs)
    assert (decoded.url, decoded.headers[0].name, decoded.is_replicated) == (URL, "a", None)


def test_nothing_leaves_before_its_round_is_durable() -> None:
    with Node() as node:
        asker = node.install(Asker)
        asker.ask.submit(URL, "", None)
        node.subnet.run_round()
        assert node.subnet.take_outcalls() == []
        sync = node.subnet.begin_sync()
        assert sync is not None
        sync.run()
        node.subnet.finish_sync(sync)
        (outcall,) = node.subnet.take_outcalls()
        assert (outcall.canister_id, outcall.record.host) == (asker.id.raw, "rpc.example.org")
        assert node.subnet.take_outcalls() == []


def test_what_cannot_be_read_waits_and_holds_up_no_other() -> None:
    with Node() as node:
        askers = [node.install(Asker) for _ in range(2)]
        for asker in askers:
            asker.ask.submit(URL, "", None)
        node.subnet.run_round()
        sync = node.subnet.begin_sync()
        assert sync is not None
        sync.run()
        node.subnet.finish_sync(sync)
        durable = node.subnet._durable.reader

        class Damaged(MemoryStore):
            def get(self, key: bytes) -> bytes | None:
                if keys.owner_of(key) == askers[0].id.raw:
                    raise StoreError("block checksum mismatch")
                return durable.get(key)

        outcalls = node.subnet.outcalls
        assert [outcall.canister_id for outcall in outcalls.take(Damaged())] == [askers[1].id.raw]
        assert [outcall.canister_id for outcall in node.subnet.take_outcalls()] == [askers[0].id.raw]
