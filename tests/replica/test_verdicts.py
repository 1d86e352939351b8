"""What clock and memory decide is recorded in the block, and a replay obeys it without measuring."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cannery.errors import RejectCode
from cannery.limits import QUERY_CPU_NS_MAX
from cannery.ports import Stopped
from cannery.replica import keys
from cannery.replica.block import ReplicaConfig, Verdict, message_identity
from cannery.replica.logs import read_log
from cannery.replica.rounds import run_round
from tests.replica.puppet import pack, puppet
from tests.replica.world import ALICE, Script, World


class Stopwatch:
    """A watch that notes what it is asked to watch."""

    def __init__(self) -> None:
        self.began: list[tuple[bytes, int]] = []
        self.running = 0
        self.stops = False

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        self.began.append((identity, cpu_ns_max))
        self.running += 1

    def end(self) -> bool:
        self.running -= 1
        return self.stops


@pytest.mark.parametrize(
    ("act", "words"),
    [
        ("stop", ("used more than 1 s of CPU time", "work in pages")),
        ("memory", ("too much memory", "work in pages")),
        ("recurse", ("recursed too deeply", "loop")),
    ],
)
def test_a_runaway_message_gets_a_verdict_that_says_what_to_do(act: str, words: tuple[str, ...]) -> None:
    world = World()
    canister = world.add(puppet())
    ingress = world.ingress(canister, "run", pack([["put", b"k", b"v"], [act]]))
    outcome = world.round(world.ingress(canister, "run", pack([["reply", b""]])), ingress)
    assert outcome.block.verdicts == (Verdict(2, world.answers[ingress.request_id].reject_message),)
    answer = world.answers[ingress.request_id]
    assert answer.reject_code == RejectCode.CANISTER_ERROR
    assert answer.error_code == "IC0522"
    for word in words:
        assert word in answer.reject_message
    assert world.value(canister, b"k") is None
    assert [entry.content.decode() for _, entry in read_log(world.store, canister)] == [answer.reject_message]


def test_system_exit_is_a_trap_like_any_other() -> None:
    world = World()
    canister = world.add(puppet())
    answer = world.call(canister, "run", pack([["put", b"k", b"v"], ["exit"]]))
    assert answer is not None
    assert "SystemExit: 3" in answer.reject_message
    assert world.last.block.verdicts == ()
    assert world.value(canister, b"k") is None


def test_a_replay_obeys_verdicts_and_does_not_run_what_they_stopped() -> None:
    world = World()
    runs: list[int] = []

    def slow(system) -> None:
        runs.append(1)
        system.get(b"read")
        if len(runs) == 1:
            raise Stopped
        system.put(b"k", b"v")
        system.reply(b"done")

    canister = world.add(Script({"slow": slow}))
    ingress = world.ingress(canister, "slow")
    before = world.store.copy()
    outcome = world.round(ingress)
    assert len(runs) == 1, "the replay within the world ran nothing"
    again = run_round(before, outcome.block, world.shelf, Stopwatch())
    assert again.root == outcome.root
    assert len(runs) == 1, "a verdict is obeyed under a watch too"


@pytest.mark.parametrize("act", [["reply", b"survived"], ["trap", "in its own words"]])
def test_a_program_that_catches_its_stop_is_stopped_all_the_same(act: list[object]) -> None:
    world = World()
    canister = world.add(puppet())
    world.watch = watch = Stopwatch()
    watch.stops = True
    answer = world.call(canister, "run", pack([["put", b"k", b"v"], act]))
    assert answer is not None
    assert "used more than 1 s of CPU time" in answer.reject_message
    assert world.last.block.verdicts == (Verdict(1, answer.reject_message),)
    assert world.value(canister, b"k") is None


def test_every_activation_is_watched_under_its_identity_and_the_watch_is_let_go() -> None:
    world = World()
    watch = Stopwatch()
    world.watch = watch
    a, b = world.add(puppet()), world.add(puppet())
    arg = pack([["call", b, "run", [["reply", b""]], 0, [["trap", "x"]]], ["later", 0]])
    ingress = world.ingress(a, "run", arg)
    world.round(ingress)
    assert [limit for _, limit in watch.began] == [1_000_000_000] * 3
    assert watch.began[0][0] == ingress.request_id
    inner = pack([["reply", b""]])
    assert watch.began[1][0] == message_identity(6, a, b, "run", inner, world.canister(b).module_hash)
    assert all(len(identity) == 32 for identity, _ in watch.began)
    assert watch.running == 0
    world.query(a, "read", pack([["reply", b""]]))
    assert watch.began[3] == (b"q" * 32, QUERY_CPU_NS_MAX)
    assert watch.running == 0


def test_a_poisoned_message_is_rejected_and_the_rest_runs() -> None:
    world = World()
    canister = world.add(puppet())
    bad = world.ingress(canister, "run", pack([["reply", b"bad"]]))
    good = world.ingress(canister, "run", pack([["reply", b"good"]]))
    world.round(bad, good, poisoned=(bad.request_id,))
    assert world.answers[good.request_id].reply == b"good"
    answer = world.answers[bad.request_id]
    assert "process ended" in answer.reject_message
    assert answer.reject_code == RejectCode.CANISTER_ERROR


def test_a_poisoned_call_between_canisters_is_rejected_to_its_caller() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    inner = pack([["reply", b"x"]])
    poison = message_identity(6, a, b, "run", inner, world.canister(b).module_hash)
    arg = pack([["call", b, "run", [["reply", b"x"]], 0, [["note", b"n"], ["reply", b""]]], ["later", 0]])
    world.round(world.ingress(a, "run", arg), poisoned=(poison,))
    assert (world.value(a, b"n") or b"").startswith(b"5:")


def test_what_one_module_is_condemned_for_a_mended_one_may_run_at_once() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    deed = [["count", b"call"], ["reply", b""]]
    acts = [["call", b, "run", deed, 0, [["count", b"then"]]], ["timer", 0, 0, [["count", b"tick"]]]]
    world.watch = watch = Stopwatch()

    def counts() -> list[bytes | None]:
        return [world.value(b, b"call"), world.value(a, b"then"), world.value(a, b"tick")]

    def run(*poisoned: bytes) -> None:
        for inputs in ([world.ingress(a, "run", pack(acts))], [], []):
            world.round(*inputs, poisoned=poisoned)

    run()
    poison = [identity for identity, _ in watch.began[1:]]
    assert (len(poison), counts()) == (3, [b"1"] * 3)
    run(*poison)
    assert counts() == [b"1"] * 3, "the same modules run none of them again"
    mended = world.canister(world.add(puppet())).module_hash
    for canister in (a, b):
        world.put_canister(canister, replace(world.canister(canister), module_hash=mended))
    run(*poison)
    assert counts() == [b"2"] * 3, "what was mended runs"


def test_identities_name_every_part_of_a_message() -> None:
    base = (6, b"a", b"b", "m", b"arg")
    others = [(7, b"a", b"b", "m", b"arg"), (6, b"ab", b"", "m", b"arg"), (6, b"a", b"b", "marg", b"")]
    assert len({message_identity(*parts) for parts in [base, *others, (*base, b"module")]}) == 5


def test_a_trap_keeps_the_log_and_only_the_log() -> None:
    world = World()
    canister = world.add(puppet())
    world.call(canister, "run", pack([["log", "on my way"], ["put", b"k", b"v"], ["trap", "boom"]]))
    lines = [entry.content.decode() for _, entry in read_log(world.store, canister)]
    assert lines[0] == "on my way"
    assert "boom" in lines[1]
    assert list(world.store.scan(*keys.space_range(keys.STABLE))) == []


def test_a_log_keeps_the_newest_lines_within_its_bytes() -> None:
    world = World()
    canister = world.add(puppet())
    for number in range(60):
        world.call(canister, "run", pack([["log", f"{number:03}" + "x" * 197], ["reply", b""]]))
    found = list(read_log(world.store, canister))
    assert [number for number, _ in found] == list(range(40, 60))
    assert world.account(canister).log_bytes == 4000
    assert sum(len(entry.content) for _, entry in found) == 4000


def test_random_bytes_differ_between_messages_and_repeat_in_a_replay() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    acts = pack([["random", b"1"], ["random", b"2"], ["reply", b""]])
    world.round(world.ingress(a, "run", acts), world.ingress(b, "run", acts))
    drawn = [world.value(canister, key) for canister in (a, b) for key in (b"1", b"2")]
    again = pack([["random", b"3"], ["reply", b""]])
    more = pack([["random", b"4"], ["reply", b""]])
    world.round(world.ingress(a, "run", again), world.ingress(a, "run", more))
    drawn += [world.value(a, b"3"), world.value(a, b"4")]
    assert len(set(drawn)) == 6
    assert all(value is not None and len(value) == 40 for value in drawn)
    assert ALICE not in drawn


def test_a_verdict_ends_its_round_and_the_others_follow_in_the_next() -> None:
    world = World(ReplicaConfig(work_count_max=20))
    canister, other, third = (world.add(puppet()) for _ in range(3))
    busy = [["put", b"%d" % number, b"v"] for number in range(100)]
    before = world.ingress(other, "run", pack([["reply", b"first"]]))
    stopped = world.ingress(canister, "run", pack([*busy, ["stop"]]))
    after = [world.ingress(each, "run", pack([["reply", b"next"]])) for each in (canister, third, canister)]
    first = world.round(before, stopped, *after)
    assert set(world.answers) == {before.request_id, stopped.request_id}
    assert first.backlog
    second = world.round(seconds=0.001)
    assert [world.answers[each.request_id].reply for each in after] == [b"next"] * 3
    assert second.block.verdicts == ()


def test_each_of_many_runaways_has_a_round_of_its_own() -> None:
    world = World()
    canisters = [world.add(puppet()) for _ in range(4)]
    calls = [world.ingress(canister, "run", pack([["stop"]])) for canister in canisters]
    timer = pack([["timer", 1, 0, [["stop"]]], ["reply", b""]])
    world.round(*calls, world.ingress(canisters[0], "run", timer))
    for count in range(1, 5):
        assert [call.request_id in world.answers for call in calls] == [True] * count + [False] * (4 - count)
        assert len(world.last.block.verdicts) == 1
        world.round(seconds=0.001)
    world.round(seconds=0.001)
    assert len(world.last.block.verdicts) == 1, "timers that run away are no different"
