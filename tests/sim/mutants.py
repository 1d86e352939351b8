"""Break the product on purpose, one defect at a time, and see the simulator's checkers find each.

    python -m tests.sim.mutants [NAME ...]

Works on a copy in a temporary folder. A mutant that no seed finds is a hole in the checkers: exit code 1.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED_COUNT = 400
SEEDS_FROM = 1_000
TIMEOUT_S = 400


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: one text replaced by another in one file of the product."""

    name: str
    path: str
    old: str
    new: str


MUTANTS = (
    Mutant(
        "answers leave before their sync",
        "node/written.py",
        "            self._store.sync()\n        except",
        "            pass\n        except",
    ),
    Mutant(
        "a sync lets out rounds that it does not cover",
        "node/service.py",
        "for _ in range(sync.covers):",
        "for _ in range(len(self._unsynced)):",
    ),
    Mutant(
        "queries read what is not durable",
        "node/service.py",
        "        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched))",
        "        self._durable = snapshot\n"
        "        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched))",
    ),
    Mutant(
        "queries read an old round",
        "node/service.py",
        "        self._durable = executed.snapshot\n",
        "",
    ),
    Mutant(
        "a repeated envelope runs again",
        "replica/request_status.py",
        "return None if data is None else records.REQUEST.decode(data)",
        "return None",
    ),
    Mutant(
        "survivors of a failed round are ordered again",
        "node/service.py",
        "            self._recognize()\n",
        "",
    ),
    Mutant(
        "queues are lost between rounds",
        "replica/scheduler.py",
        "self._next = state.subnet.ring_next",
        "self._next = state.subnet.ring_first",
    ),
    Mutant(
        "queues have no bound",
        "replica/scheduler.py",
        "return self.lanes(receiver, account).count(lane) < count_max",
        "return True",
    ),
    Mutant(
        "a trap keeps the cycles that came with the call",
        "replica/execute.py",
        "calls.answer_now(state, origin, _failed(failure, cycles), canister_id)",
        "calls.answer_now(state, origin, _failed(failure, 0), canister_id)",
    ),
    Mutant(
        "a trap keeps its writes",
        "replica/execute.py",
        "    if failure is not None:\n        calls.answer_now(",
        "    if failure is not None:\n        message.merge()\n        calls.answer_now(",
    ),
    Mutant(
        "verdicts are not obeyed in a replay",
        "replica/run.py",
        "text = self._verdicts.get(self.ordinal)",
        "text = None",
    ),
    Mutant(
        "memory that runs out is a plain trap",
        "replica/run.py",
        "    if isinstance(error, MemoryError):",
        "    if False:",
    ),
    Mutant(
        "a read error is believed",
        "replica/rounds.py",
        "    state.reader.check()\n",
        "",
    ),
    Mutant(
        "lost rounds are not missed",
        "node/service.py",
        "if self._head.number < number:",
        "if False:",
    ),
    Mutant(
        "a timer that has fired stays",
        "replica/timers.py",
        "    else:\n        _remove(message, canister_id, number, timer)\n    return timer",
        "    return timer",
    ),
    Mutant(
        "a response is taken for the end of no call",
        "replica/calls.py",
        "    message.put(keys.numbered(keys.CALLBACKS, canister_id, number), None)\n    account.calls_open",
        "    account.calls_open",
    ),
    Mutant(
        "a forgotten refund",
        "replica/execute.py",
        "    account.cycles += response.cycles_refunded\n",
        "",
    ),
    Mutant(
        "memory is not counted",
        "replica/activation.py",
        "account.memory_bytes +=",
        "account.memory_bytes += 0 *",
    ),
    Mutant(
        "a mailbox shows itself to anybody",
        "apps/users/user.py",
        "        if ctx.caller != self.me.get().owner:\n            ctx.reject",
        "        if False:\n            ctx.reject",
    ),
    Mutant(
        "a late answer settles another batch",
        "cdk/delivery.py",
        "if not lane.in_flight or lane.sent_ns != sent_ns:",
        "if False:",
    ),
    Mutant(
        "a delivery forgets what it sent",
        "cdk/delivery.py",
        '        if how == "none" or is_too_old:',
        "        if True:",
    ),
    Mutant(
        "a rollout sends more than was ordered",
        "fleet/rollout_wave.py",
        "min(rollout.concurrency - len(due), _canary_room(rollout))",
        "min(rollout.concurrency + 5 - len(due), _canary_room(rollout))",
    ),
    Mutant(
        "a child that moved is left on its old place",
        "fleet/replacements.py",
        "        self.directory.set_state(child, ChildState.replaced(successor))\n",
        "",
    ),
    Mutant(
        "an upgrade is not noted in the directory",
        "fleet/waves.py",
        "        self.directory.set_versions(arrived)\n",
        "",
    ),
    Mutant(
        "a canister whose creation was cut off is forgotten",
        "fleet/orphans.py",
        "            self.departures.collect(ctx, canister)\n",
        "",
    ),
    Mutant(
        "a move whose answer was lost is not looked after",
        "fleet/orphans.py",
        "        self.replacements.recover(ctx)\n",
        "",
    ),
    Mutant(
        "a failed upgrade is kept",
        "replica/management/install.py",
        '    if "health" in module.hooks:',
        "    if False:",
    ),
    Mutant(
        "a role that was taken away stays",
        "replica/management/fleets.py",
        "lambda key: message.put(key, None), fleet",
        "lambda key: None, fleet",
    ),
    Mutant(
        "whoever has a member's code passes for a member",
        "cdk/guards.py",
        '    return fleet != b"" and fleet == system.fleet\n',
        "    return True\n",
    ),
    Mutant(
        "a canister's new owner writes in the name of the old one",
        "apps/users/user.py",
        "if sender is not None and all(",
        "if sender is not None or all(",
    ),
    Mutant(
        "a canister's new owner gets the mail of the old one",
        "apps/users/user.py",
        "        if envelope.to not in (None, self.me.get().owner):",
        "        if False:",
    ),
    Mutant(
        "a name that was left stays taken",
        "apps/users/user_index.py",
        "        self._free_name(ctx, username)\n",
        "",
    ),
    Mutant(
        "an alarm outlives its child",
        "fleet/waves.py",
        'or child is None or child.state.tag != "active":',
        "or child is None:",
    ),
)


def find(mutant: Mutant, folder: Path) -> str | None:
    """Run seeds on a broken copy; give the first law that fails, None where none does."""
    copy = folder / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    for name in ("src", "tests"):
        shutil.copytree(
            ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules")
        )
    path = copy / "src" / "cannery" / mutant.path
    text = path.read_text()
    assert mutant.old in text, f"{mutant.name}: {mutant.path} has changed"
    path.write_text(text.replace(mutant.old, mutant.new))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(copy / "src"), str(copy)))}
    command = [
        sys.executable,
        "-m",
        "tests.sim",
        "--seeds",
        str(SEED_COUNT),
        "--from",
        str(SEEDS_FROM),
        "--until-failure",
    ]
    process = subprocess.Popen(
        command,
        cwd=copy,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        out, errors = process.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        return f"seeds do not come to an end within {TIMEOUT_S} s"
    found = re.search(r"^FAILED seed (\d+): (.*)$", out, re.MULTILINE)
    if found is None and process.returncode:
        return f"{out[-300:]}{errors[-300:]}"
    return None if found is None else f"seed {found.group(1)}: {found.group(2)[:150]}"


def main() -> int:
    wanted = sys.argv[1:]
    missed = 0
    with tempfile.TemporaryDirectory(prefix="cannery-mutants-") as folder:
        for mutant in MUTANTS:
            if wanted and not any(word in mutant.name for word in wanted):
                continue
            found = find(mutant, Path(folder))
            missed += found is None
            print(f"{mutant.name}: {found or 'NOT FOUND'}", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
