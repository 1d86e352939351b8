"""The harness for authors: installing from anywhere, calling as anybody, time, upgrades, restarts, faults."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from cannery import (
    Canister,
    Context,
    Principal,
    StableCell,
    StableLog,
    StableMap,
    init,
    nat32,
    nat64,
    query,
    record,
    timer,
    update,
)
from cannery.cdk.build import BuildError
from cannery.replica.block import ReplicaConfig
from cannery.replica.state import RoundState
from cannery.replica.view import load_config
from cannery.testing import Crashed, FaultyStore, Node, Rejected, Unanswered

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@record
class Entry:
    author: Principal
    at_ns: nat64
    text: str


class Guestbook(Canister):
    entries = StableLog(Entry)

    @update
    def sign(self, ctx: Context, text: str) -> nat64:
        if not text:
            ctx.reject("say something")
        return self.entries.append(Entry(ctx.caller, ctx.now_ns, text))

    @update
    def break_it(self, ctx: Context) -> nat64:
        self.entries.append(Entry(ctx.caller, ctx.now_ns, "lost"))
        raise ValueError("broken")

    @query
    def latest(self, ctx: Context, limit: nat32) -> list[Entry]:
        return [entry for _, entry in self.entries.page(limit=limit, reverse=True).items]


class Ticker(Canister):
    count = StableCell(nat64, 0)

    @init
    def start(self, ctx: Context, every_s: nat64) -> None:
        ctx.timer_set(self.tick, every_s=every_s)
        ctx.log(f"every {every_s} s")

    @timer
    def tick(self, ctx: Context) -> None:
        self.count.set(self.count.get() + 1)

    @query
    def ticks(self, ctx: Context) -> nat64:
        return self.count.get()


def test_a_class_in_a_test_file_is_built_and_speaks_its_own_types() -> None:
    with Node() as node:
        book = node.install(Guestbook)
        assert book.as_("ann").sign("hi") == 0
        assert book.as_("bob").sign("ho") == 1
        first, second = book.latest(10)
        assert isinstance(first, Entry)
        assert (second.author, second.text) == (node.principal("ann"), "hi")
        assert node.principal("ann") != node.principal("bob")


def test_rejects_and_traps_are_raised_and_a_trap_leaves_nothing() -> None:
    with Node() as node:
        book = node.install(Guestbook)
        with pytest.raises(Rejected, match="say something") as caught:
            book.sign("")
        assert caught.value.code == 4
        with pytest.raises(Rejected, match=r"ValueError: broken \(test_node.py:\d+ in break_it\)"):
            book.break_it()
        assert book.latest(10) == []
        with pytest.raises(AttributeError, match=r"no method 'signs'.*did you mean 'sign'"):
            book.signs("x")
        with pytest.raises(TypeError, match="takes 1 argument"):
            book.sign("a", "b")


def test_time_fires_timers_each_at_its_own_time() -> None:
    with Node() as node:
        ticker = node.install(Ticker, 10)
        node.advance(seconds=35)
        assert ticker.ticks() == 3
        node.restart()
        assert ticker.ticks() == 3
        node.advance(seconds=5)
        assert ticker.ticks() == 4
        assert node.logs(ticker) == ["every 10 s"]
        node.stop(ticker)
        node.advance(seconds=60)
        assert ticker.id == node.actor(ticker.id, Ticker).id
        node.start(ticker)
        node.advance(seconds=10)
        assert ticker.ticks() > 4


def test_files_and_modules_install_too() -> None:
    with Node() as node:
        book = node.install(EXAMPLES / "guestbook.py")
        book.sign("hi")
        assert book.latest(1)[0]["text"] == "hi"
        again = node.install(node.build(EXAMPLES / "guestbook.py"))
        assert again.size() == 0
        node.reinstall(book, EXAMPLES / "guestbook.py")
        assert book.size() == 0


def test_an_upgrade_keeps_the_state_and_local_classes_work() -> None:
    class Guestbook2(Guestbook):
        pass

    def make() -> type[Canister]:
        class Notes(Canister):
            notes = StableMap(str, str)

            @update
            def put(self, ctx: Context, key: str, value: str) -> None:
                self.notes[key] = value

            @query
            def get(self, ctx: Context, key: str) -> str | None:
                return self.notes.get(key)

        return Notes

    class Notes(Canister):
        notes = StableMap(str, str)

        @query
        def get(self, ctx: Context, key: str) -> str | None:
            return "new " + self.notes.get(key, "")

    with Node() as node:
        notes = node.install(make())
        notes.put("a", "1")
        assert notes.get("a") == "1"
        newer = node.upgrade(notes, Notes)
        assert newer.get("a") == "new 1"
        book = node.install(Guestbook)
        book.sign("x")
        assert len(node.upgrade(book, Guestbook2).latest(10)) == 1


def test_a_class_that_does_not_build_says_where() -> None:
    class Bad(Canister):
        @query
        def now(self, ctx: Context) -> nat64:
            import time

            return time.time_ns()

    with (
        Node() as node,
        pytest.raises(BuildError, match=r"test_node\.py:\d+: import of time: use ctx.now_ns"),
    ):
        node.install(Bad)


def test_a_crash_loses_nothing_that_was_answered() -> None:
    for operation in range(1, 40):
        store = FaultyStore(seed=operation)
        with Node(store) as node:
            book = node.install(Guestbook)
            store.crash_at(store.operation_count + operation)
            answered = 0
            try:
                while answered < 30:
                    book.sign(f"entry {answered}")
                    answered += 1
            except Crashed:
                node.restart()
            texts = [entry.text for entry in reversed(book.latest(100))]
            assert texts[:answered] == [f"entry {number}" for number in range(answered)]
            assert len(texts) - answered in (0, 1)


def test_a_repeated_call_after_a_crash_runs_once() -> None:
    for operation in range(1, 8):
        store = FaultyStore(seed=operation)
        with Node(store) as node:
            book = node.install(Guestbook)
            method = book.sign.submit("once")
            arg = book.sign._shape.encode_args(("once",))
            store.crash_at(store.operation_count + operation)
            request_id = bytes([operation]) * 32
            try:
                node.submit_raw(book.id, "sign", arg, book.sender, request_id)
                node.run()
            except Crashed:
                pass
            store.crash_at(0)
            node.restart()
            ticket = node.submit_raw(book.id, "sign", arg, book.sender, request_id)
            node.run()
            assert node.take_answer(ticket) is not None
            texts = [entry.text for entry in book.latest(10)]
            assert texts.count("once") in (1, 2)
            ticket = node.submit_raw(book.id, "sign", arg, book.sender, request_id)
            assert node.take_answer(ticket) is not None
            assert [entry.text for entry in book.latest(10)] == texts
            del method


def test_a_full_disk_refuses_updates_and_goes_on_when_there_is_room() -> None:
    store = FaultyStore()
    with Node(store) as node:
        book = node.install(Guestbook)
        book.sign("before")
        waiting = book.sign.submit("meanwhile")
        store.fill_disk()
        node.run()
        assert not waiting.is_answered
        with pytest.raises(Rejected, match="disk is full: make room") as caught:
            book.sign("refused")
        assert caught.value.code == 2
        assert len(book.latest(10)) == 1
        assert not node.recover()
        store.free_disk()
        assert node.recover()
        node.run()
        assert waiting.result() == 1
        assert book.sign("after") == 2


def test_a_runaway_program_is_stopped_and_others_go_on() -> None:
    class Runaway(Canister):
        @update
        def spin(self, ctx: Context) -> None:
            while True:
                pass

        @update
        def recurse(self, ctx: Context) -> None:
            self.recurse(ctx)

        @update
        def leave(self, ctx: Context) -> None:
            raise SystemExit(1)

        @query
        def spin_query(self, ctx: Context) -> None:
            while True:
                pass

        @update
        def fine(self, ctx: Context) -> nat64:
            return 7

    soon = ReplicaConfig(message_cpu_ns_max=50_000_000, query_cpu_ns_max=40_000_000)
    with Node(config=soon) as node:
        canister = node.install(Runaway)
        with pytest.raises(Rejected, match=r"more than 0\.05 s of CPU time"):
            canister.spin()
        with pytest.raises(Rejected, match=r"more than 0\.04 s of CPU time"):
            canister.spin_query()
        assert canister.fine() == 7
    with Node() as node:
        canister = node.install(Runaway)
        with pytest.raises(Rejected, match="recursed too deeply"):
            canister.recurse()
        with pytest.raises(Rejected, match="SystemExit"):
            canister.leave()
        assert canister.fine() == 7


def test_limits_on_cpu_time_are_longer_unless_a_config_sets_them() -> None:
    def limits_of(config: ReplicaConfig | None) -> tuple[int, int, int, int]:
        with Node(config=config) as node:
            kept = load_config(node.store)
        return (
            kept.message_cpu_ns_max, kept.hook_cpu_ns_max, kept.query_cpu_ns_max, kept.composite_cpu_ns_max
        )  # fmt: skip

    second = 10**9
    assert limits_of(None) == (10 * second, 2 * second, 5 * second, 10 * second)
    some = ReplicaConfig(canister_quota_count=7, hook_cpu_ns_max=second, message_cpu_ns_max=second // 2)
    assert limits_of(some) == (second // 2, second, 5 * second, 10 * second)


def test_a_call_that_waits_for_time_says_so() -> None:
    class Later(Canister):
        @update
        def fine(self, ctx: Context) -> nat64:
            return 1

    with Node() as node:
        canister = node.install(Later)
        sent = canister.fine.submit()
        with pytest.raises(LookupError):
            sent.result()
        node.run()
        assert sent.result() == 1
    assert issubclass(Unanswered, Exception)


def test_data_on_disk_outlives_the_node(tmp_path: Path) -> None:
    with Node(data=tmp_path / "store") as node:
        book = node.install(Guestbook)
        book.sign("kept")
        node.restart()
        assert book.latest(1)[0].text == "kept"
        canister_id = book.id
    with Node(data=tmp_path / "store") as node:
        assert node.actor(canister_id, Guestbook).latest(1)[0].text == "kept"


def test_a_round_holds_nothing_when_it_is_over() -> None:
    class Keeper(Canister):
        kept = StableCell(bytes, b"")

        @update
        def keep(self, ctx: Context, data: bytes) -> None:
            self.kept.set(data)
            if not data:
                ctx.trap("nothing to keep")

    with Node() as node:
        keeper = node.install(Keeper)
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            keeper.keep(b"large")
            with pytest.raises(Rejected, match="nothing to keep"):
                keeper.keep(b"")
            gc.collect()
            left = [value for value in gc.garbage if isinstance(value, RoundState)]
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
    assert not left, "what a round read and was given stays until a collection of garbage, however large"


class Bell(Canister):
    @update
    def ring(self, ctx: Context, text: str) -> nat64:
        return ctx.emit("rings", text.encode())

    @update
    def ring_and_break(self, ctx: Context) -> None:
        ctx.emit("rings", b"lost")
        ctx.trap("broken")

    @query
    def ring_in_a_query(self, ctx: Context) -> None:
        ctx.emit("rings", b"lost")


def test_a_test_sees_the_events_of_a_canister_also_after_a_crash_and_a_reinstallation() -> None:
    with Node(FaultyStore()) as node:
        bell = node.install(Bell)
        assert [bell.ring("one"), bell.ring("two")] == [0, 1]
        for refused in (bell.ring_and_break, bell.ring_in_a_query):
            with pytest.raises(Rejected):
                refused()
        node.restart()
        assert [(each.number, each.topic, each.payload) for each in node.events(bell)] == [
            (0, "rings", b"one"),
            (1, "rings", b"two"),
        ]
        assert [each.number for each in node.events(bell, since=1)] == [1]
        bell = node.reinstall(bell, Bell)
        assert node.events(bell) == []
        assert bell.ring("three") == 2
