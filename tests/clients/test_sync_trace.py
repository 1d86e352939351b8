"""No answer leaves before the sync that covers it has returned, seen from outside: by the system calls.

A killed process keeps its page cache, so no kill can show this. The node runs under strace; each update
carries a marker, and the trace says when it was written to the store's log, when that was synced, and when
the subnet and the gateway sent the answer. The same with a store that does not sync, or syncs late, must
fail.
"""

from __future__ import annotations

import re
import secrets
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from cannery.candid.codec import encoder
from cannery.candid.types import Nat8, Nat64, Vec
from cannery.protocol.principal import Principal
from tests.clients import weak_subnet
from tests.clients.conftest import NO_ARGUMENTS, deploy_probe
from tests.clients.system_calls import (
    ARGUMENTS,
    TRACED,
    SystemCall,
    find_marked,
    is_synced_before,
    read_trace,
)
from tests.node_under_test import PROGRAM, ROOT, NodeUnderTest
from tests.waiting import NEVER_S, wait_until

CLIENTS = 4
CALLS_EACH = 8
ACCEPTED_CALLS = 8
encode_blob = encoder((Vec(Nat8()),))
encode_nat64 = encoder((Nat64(),))


@pytest.fixture(scope="module")
def strace() -> str:
    """The tracer; `.ci/prepare test` installs it where it may."""
    program = shutil.which("strace")
    if program is None:
        pytest.skip("strace is missing: apt-get install strace")
    tried = subprocess.run([program, "-e", "trace=none", "true"], capture_output=True, text=True, check=False)
    if tried.returncode != 0:
        pytest.skip(f"this machine lets nobody trace: {tried.stderr.strip()}")
    return program


class TracedNode:
    """A node under strace, the probe canister on it, and the markers of the updates that it answered."""

    def __init__(self, folder: Path, strace: str, program: str) -> None:
        self.trace = folder / "trace"
        prefix = (strace, "-D", *ARGUMENTS, *TRACED, "-o", str(self.trace))
        self.node = NodeUnderTest(folder / "data", folder / "home", prefix=prefix, program=program)
        self.node.start()
        self.probe = deploy_probe(self.node)
        self.answered: list[str] = []
        self.accepted: list[str] = []

    def work(self) -> None:
        """Send updates: some at once by several clients, then some that are only accepted."""
        with ThreadPoolExecutor(CLIENTS) as pool:
            for markers in pool.map(lambda _: self._call(), range(CLIENTS)):
                self.answered.extend(markers)
        self._call_accepted()

    def _call(self) -> list[str]:
        markers = [_marker() for _ in range(CALLS_EACH)]
        with self.node.agent() as agent:
            for marker in markers:
                reply = agent.call(self.probe, "echo", encode_blob((marker.encode(),)))
                assert marker.encode() in reply
        return markers

    def _call_accepted(self) -> None:
        for _ in range(ACCEPTED_CALLS):
            marker = _marker()
            call_accepted(self.node, self.probe, encode_blob((marker.encode(),)), "echo")
            self.accepted.append(marker)

    def calls(self) -> list[SystemCall]:
        """Stop the node and read the trace, whose last line tells the end of the supervisor."""
        assert self.node.process is not None
        last_line = re.compile(rf"^{self.node.process.pid} +\+\+\+ exited", re.MULTILINE)
        self.node.stop()
        wait_until(lambda: last_line.search(self.trace.read_text(errors="replace")) is not None)
        return read_trace(self.trace.read_text(errors="replace").splitlines())


def call_accepted(node: NodeUnderTest, probe: Principal, arg: bytes, method: str = "increment") -> None:
    """Send an update that is answered as soon as it is accepted."""
    url = f"{node.url}/api/v2/canister/{probe}/call"
    with node.agent() as agent:
        call = agent.sign_call(probe, method, arg)
        answer = httpx.post(url, content=call.body, headers={"content-type": "application/cbor"})
    assert answer.status_code == 202, answer.text


def _marker() -> str:
    return f"marker-{secrets.token_hex(8)}"


def judge_answers(calls: list[SystemCall], traced: TracedNode) -> dict[str, bool]:
    """Say for each marker whether everything that answered it came after its sync."""
    found = find_marked(calls, traced.answered)
    for marked in found:
        targets = [sent.target[:4] for sent in marked.sent]
        assert "TCP:" in targets, f"{marked.marker} was not seen leaving the gateway"
        assert "UNIX" in targets, f"{marked.marker} was not seen leaving the subnet"
    verdicts = {
        marked.marker: all(is_synced_before(calls, marked.written, sent) for sent in marked.sent)
        for marked in found
    }
    accepted = [call for call in calls if call.target.startswith("TCP") and "HTTP/1.1 202" in call.text]
    assert len(accepted) == len(traced.accepted), "each accepted call has one answer"
    for marked, sent in zip(find_marked(calls, traced.accepted), accepted, strict=True):
        verdicts[marked.marker] = is_synced_before(calls, marked.written, sent)
    return verdicts


def run_traced(folder: Path, strace: str, program: str) -> dict[str, bool]:
    traced = TracedNode(folder, strace, program)
    try:
        traced.work()
        return judge_answers(traced.calls(), traced)
    finally:
        traced.node.close()


def test_a_sync_that_does_not_return_holds_all_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEAK_SYNC", "held")
    monkeypatch.setenv("SYNC_GATE", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    node = NodeUnderTest(tmp_path / "data", tmp_path / "home", program=weak_subnet.LAUNCHER)
    try:
        node.start()
        probe = deploy_probe(node)
        hold, begun = tmp_path / "hold", tmp_path / "begun"
        with node.agent() as agent, node.agent() as reader, ThreadPoolExecutor(2) as pool:
            hold.touch()
            answers = [
                pool.submit(agent.call, probe, "increment", NO_ARGUMENTS),
                pool.submit(call_accepted, node, probe, NO_ARGUMENTS),
            ]
            try:
                wait_until(begun.exists)
                # The node goes on and answers queries, which do not see what is not durable.
                for _ in range(50):
                    assert reader.query(probe, "value", NO_ARGUMENTS) == encode_nat64((0,))
                assert not any(answer.done() for answer in answers)
            finally:
                hold.unlink()
            for answer in answers:
                answer.result(timeout=NEVER_S)
            wait_until(lambda: reader.query(probe, "value", NO_ARGUMENTS) == encode_nat64((2,)))
    finally:
        node.close()


def test_no_answer_leaves_before_its_sync(tmp_path: Path, strace: str) -> None:
    verdicts = run_traced(tmp_path, strace, PROGRAM)
    assert len(verdicts) == CLIENTS * CALLS_EACH + ACCEPTED_CALLS
    assert all(verdicts.values()), [marker for marker, is_after in verdicts.items() if not is_after]


@pytest.mark.parametrize("kind", ["removed", "late"])
def test_a_weak_store_is_seen(
    kind: str, tmp_path: Path, strace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WEAK_SYNC", kind)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    verdicts = run_traced(tmp_path, strace, weak_subnet.LAUNCHER)
    # A sync that comes late still comes in time for some answers of later rounds.
    assert not (any if kind == "removed" else all)(verdicts.values()), "unsafe answers were taken for safe"
