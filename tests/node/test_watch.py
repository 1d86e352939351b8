"""The watch: it stops what runs too long, nothing else, and leaves the culprit's name behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from cannery.node.watch import CpuWatch, Running, RunningFile
from cannery.ports import Stopped

IDENTITY = bytes(range(32))


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[CpuWatch]:
    found = CpuWatch(RunningFile(str(tmp_path / "running")))
    yield found
    found.close()


def spin(seconds: float) -> None:
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def canister(source: str) -> object:
    space = {"__name__": "_cannery_module_x.main"}
    exec(source, space)
    return space["run"]


def test_an_endless_loop_is_stopped_and_a_second_one_too(watch: CpuWatch) -> None:
    run = canister("def run():\n while True: pass")
    for _ in range(2):
        watch.begin(IDENTITY, 30_000_000)
        with pytest.raises(Stopped, match=r"0\.03 s of CPU time"):
            run()  # type: ignore[operator]
        watch.end()


STUBBORN = """
def run():
    for _ in range(3):
        try:
            while True:
                x = [1 for _ in range(10)]
        except BaseException:
            pass
"""


def test_a_program_that_catches_everything_is_stopped_in_the_end(watch: CpuWatch) -> None:
    run = canister(STUBBORN)
    watch.begin(IDENTITY, 20_000_000)
    with suppress(Stopped):
        # A tick may also fall between the attempts; either way the run comes to its end.
        run()  # type: ignore[operator]
    assert watch.end() is True, "caught or not, it was stopped"


def test_nothing_is_raised_when_nothing_runs_or_within_the_limit(watch: CpuWatch) -> None:
    watch.begin(IDENTITY, 20_000_000)
    watch.end()
    spin(0.08)
    watch.begin(IDENTITY, 10_000_000_000)
    spin(0.05)
    assert watch.end() is False


def test_the_state_machine_is_never_interrupted(watch: CpuWatch) -> None:
    space = {"__name__": "cannery.replica.execute", "time": time}
    exec(
        "def run():\n end = time.thread_time() + .08\n while time.thread_time() < end: pass\n return 1", space
    )
    watch.begin(IDENTITY, 10_000_000)
    assert space["run"]() == 1  # type: ignore[operator]
    watch.end()


MS = 1_000_000


@pytest.mark.parametrize(
    ("gaps_ms", "is_stopped"),
    [
        ([10, 10, 10, 70], False),
        ([10] * 20, True),
        ([10, 1_000, 20], False),
        ([10, 3_000, 20], True),
        ([10, 130, 60], False),
        ([600, 90], False),
        ([90, 90, 90], True),
        ([400, 400, 400, 90], True),
        ([600, 600, 10], True),
    ],
)
def test_of_a_time_without_ticks_a_part_counts_as_far_as_that_is_bounded(
    watch: CpuWatch, monkeypatch: pytest.MonkeyPatch, gaps_ms: list[int], is_stopped: bool
) -> None:
    """The machine stood still, or a library was at work: 200 ms are the limit here."""
    now = [10**12]
    watch.begin(IDENTITY, 10**12)
    with monkeypatch.context() as patched:
        patched.setattr(time, "thread_time_ns", lambda: now[0])
        watch._on_tick(0, None)
        watch.begin(IDENTITY, 200 * MS)
        watch._on_tick(0, None)
        with suppress(Stopped):
            for gap_ms in gaps_ms:
                now[0] += gap_ms * MS
                watch._on_tick(0, None)
        assert watch.end() is is_stopped
    watch.end()


def test_an_inner_activation_has_its_own_limit_and_the_outer_one_goes_on(watch: CpuWatch) -> None:
    run = canister("def run():\n while True: pass")
    watch.begin(IDENTITY, 10_000_000_000)
    watch.begin(bytes(32), 20_000_000)
    with pytest.raises(Stopped, match=r"0\.02 s"):
        run()  # type: ignore[operator]
    assert watch.end() is True
    spin(0.05)
    assert watch.end() is False


def test_the_mark_survives_its_process_and_condemnation_too(tmp_path: Path) -> None:
    path = str(tmp_path / "running")
    first = RunningFile(path)
    assert first.read().state is Running.NOTHING
    first.begin(IDENTITY)
    second = RunningFile(path)
    mark = second.read()
    assert (mark.state, mark.identity, mark.is_condemned) == (Running.ACTIVATION, IDENTITY, False)
    second.condemn(Running.KILLED_MEMORY)
    assert RunningFile(path).read().is_condemned
    first.end()
    first.begin(IDENTITY)
    assert second.read().count == mark.count + 1
    first.end()
    assert second.read().state is Running.NOTHING
