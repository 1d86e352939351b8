"""System calls of the subnet's process: no answer is sent before the sync that covers it has returned.

A killed process keeps its page cache, so no test that kills one can see a missing sync; this one traces. The
same trace of a node whose sync does nothing must find answers that were sent too early.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cannery import Canister, Context, StableCell, nat64, update
from tests.node.process_node import ProcessNode
from tests.node.test_processes import module_of

pytestmark = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")

EMPTY = b"DIDL\x00\x00"
CALLS = 12
LINE = re.compile(r"^(?:\[pid\s+)?(\d+)\]?\s+(.*)$")
WITHOUT_SYNC = """
from cannery.node import store_rocksdb
store_rocksdb.RocksStore.sync = lambda self: None
"""


class Counter(Canister):
    count = StableCell(nat64, 0)

    @update
    def add(self, ctx: Context) -> nat64:
        self.count.set(self.count.get() + 1)
        return self.count.get()


def trace_calls(node: ProcessNode, folder: Path) -> list[str]:
    """Make updates one after the other under strace; give its lines."""
    canister_id = node.install(module_of(Counter))
    node.agent.call(canister_id, "add", EMPTY)
    output = folder / "trace"
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(output)]
    command += ["-e", "trace=write,writev,pwrite64,sendto,sendmsg,fdatasync,fsync"]
    tracer = subprocess.Popen(
        [*command, "-p", str(node.child("subnet_process").pid)], stderr=subprocess.PIPE, text=True
    )
    assert tracer.stderr is not None
    if "attached" not in tracer.stderr.readline():
        pytest.skip("this process may not trace others")
    for _ in range(CALLS):
        node.agent.call(canister_id, "add", EMPTY)
    tracer.terminate()
    tracer.communicate()
    return output.read_text().splitlines()


def early_answers(lines: list[str]) -> tuple[int, int]:
    """Count answers sent while the log had unsynced writes, and all answers."""
    is_unsynced = False
    syncing: dict[str, bool] = {}
    early = answers = 0
    for line in lines:
        found = LINE.match(line)
        if found is None:
            continue
        thread, call = found.groups()
        if ".log>" in call and call.startswith(("write(", "writev(", "pwrite64(")):
            is_unsynced = True
            syncing = dict.fromkeys(syncing, False)
        elif call.startswith(("fdatasync(", "fsync(")) and ".log>" in call:
            if call.endswith("= 0"):
                is_unsynced = False
            else:
                syncing[thread] = True
        elif "fdatasync resumed" in call or "fsync resumed" in call:
            if syncing.pop(thread, False):
                is_unsynced = False
        elif "<UNIX" in call or "<socket:" in call:
            answers += 1
            early += is_unsynced
    return early, answers


def test_no_answer_is_sent_before_its_sync(tmp_path: Path) -> None:
    node = ProcessNode(tmp_path / "data")
    try:
        early, answers = early_answers(trace_calls(node, tmp_path))
    finally:
        node.stop()
    assert answers >= CALLS
    assert early == 0


def test_the_trace_finds_a_missing_sync(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_SYNC)
    node = ProcessNode(tmp_path / "data", first_on_path=str(tmp_path / "site"))
    try:
        early, answers = early_answers(trace_calls(node, tmp_path))
    finally:
        node.stop()
    assert answers >= CALLS
    assert early >= CALLS
