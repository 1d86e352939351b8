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

from tests.sim.plan import LATER_FROM, Company

ROOT = Path(__file__).resolve().parents[2]
SEED_COUNT = 400
SEEDS_FROM = {Company.TOWN: 1_000, Company.TWINS: 2_000, Company.COMMONS: 4_000}
TIMEOUT_S = 400


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: one text replaced by another in one file of the product, and which company may find it.

    `is_later`: by the seeds that know the faults which came later.
    """

    name: str
    path: str
    old: str
    new: str
    company: Company = Company.TOWN
    is_later: bool = False


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
        "        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched, carried))",
        "        self._durable.reader = snapshot\n"
        "        self._unsynced.append(Executed(outcome, inputs, snapshot, fetched, carried))",
    ),
    Mutant(
        "queries read an old round",
        "node/durable_state.py",
        "        self.reader = executed.snapshot\n",
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
        "self._abandoned[-1].outcome.head.number > self._head.number",
        "self._abandoned[-1].outcome.head.number",
    ),
    Mutant(
        "a pruning keeps the oldest backups",
        "node/backup/format/prune_plan.py",
        "key=lambda head: head.number, reverse=True",
        "key=lambda head: head.number",
        Company.COMMONS,
        is_later=True,
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
        "node/head.py",
        "    if head.number < number:",
        "    if False:",
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
        "        self.names.delete(profile.username.lower())\n",
        "",
    ),
    Mutant(
        "an alarm outlives its child",
        "fleet/waves.py",
        'or child is None or child.state.tag != "active":',
        "or child is None:",
    ),
    Mutant(
        "a stream gives what is not durable",
        "node/service.py",
        "        return self._durable.slice_for(self._config.subnet, peer, first)",
        "        from cannery.node.links import read_slice\n\n"
        "        return read_slice(self._store, self._config.subnet, peer, first)",
        Company.TWINS,
    ),
    Mutant(
        "a stream forgets what was received before that is durable",
        "node/service.py",
        "        return self._durable.stream(peer).received",
        "        from cannery.node.links import find_stream_head\n\n"
        "        return find_stream_head(self._store, peer).received",
        Company.TWINS,
    ),
    Mutant(
        "a stream that broke off is not begun again where it was",
        "node/links.py",
        "    first = max(first, head.first)\n",
        "    first = max(first, head.first) + (first % 7 == 6)\n",
        Company.TWINS,
    ),
    Mutant(
        "cycles that go to another subnet are not counted",
        "replica/streams.py",
        "    state.subnet.cycles_out += cycles_of(message)\n",
        "",
        Company.TWINS,
    ),
    Mutant(
        "a member on another subnet is not told of",
        "replica/fleets_away.py",
        '        message.put(key, b"" if joined else None)\n',
        "",
        Company.TWINS,
    ),
    Mutant(
        "a history does not tell its gaps",
        "apps/zones/history.py",
        "gaps = [HistoryGap(gap.topic, gap.start, gap.end - 1) for gap in page.gaps]",
        "gaps: list[HistoryGap] = []",
        Company.COMMONS,
    ),
    Mutant(
        "a zone shows itself to anybody",
        "apps/zones/members.py",
        "        if role >= least:\n            return role\n        if role > NONE",
        "        if role >= least or least == LOWEST:\n            return role\n        if role > NONE",
        Company.COMMONS,
    ),
    Mutant(
        "who is put out of a zone stays in",
        "apps/zones/members.py",
        "        self.people.delete(who)\n        self.mailbox",
        "        self.mailbox",
        Company.COMMONS,
    ),
    Mutant(
        "a zone grows beyond its limits",
        "cdk/topic_log.py",
        "id < until and not _fits(change.state, rule, count, size)",
        "False",
        Company.COMMONS,
    ),
    Mutant(
        "an acknowledgement is forgotten",
        "apps/zones/history.py",
        "return self.mailbox.messages.acknowledge(ctx.caller.raw, through=through)",
        "return through + 1",
        Company.COMMONS,
    ),
    Mutant(
        "a cursor forgets how far it was",
        "apps/zones/cursor.py",
        "return TopicPosition(topic, id if flags & _HAS_ID else None,",
        "return TopicPosition(topic, id - 1 if flags & _HAS_ID else None,",
        Company.COMMONS,
    ),
    Mutant(
        "a message is posted twice",
        "apps/zones/messages.py",
        "            posted = self.mailbox.messages.post_many(messages)\n",
        "            posted = self.mailbox.messages.post_many(messages)\n"
        "            self.mailbox.messages.post_many([(k, b'~0~' + c) for k, c in messages[:1]])\n",
        Company.COMMONS,
    ),
    Mutant(
        "events of the past are read before they are durable",
        "node/service.py",
        "        return self._durable.events(canister_id, since, count_max, size_bytes_max)",
        "        from cannery.replica.events import read_events\n\n"
        "        return read_events(self._store, canister_id, since, count_max, size_bytes_max)",
        Company.COMMONS,
    ),
    Mutant(
        "a gateway that was slow is not told of what it missed",
        "node/watches.py",
        "            if outlet in self._missing:",
        "            if False:",
        Company.COMMONS,
    ),
    Mutant(
        "a decision that is stale is not told",
        "node/watches.py",
        "            outlet.post(Stale(tuple(each)))",
        "            pass",
        Company.COMMONS,
    ),
    Mutant(
        "who was not decided waits behind the others",
        "node/watches.py",
        "            self._stale.extend([entry for entry in entries if entry.is_stale])\n"
        "            if outlet in self._missing:\n"
        "                self._missing.discard(outlet)\n"
        "                self._make_stale(entries)\n",
        "            waiting = [entry for entry in entries if entry.is_stale]\n"
        "            self._make_stale(entries)\n"
        "            self._stale.extend(waiting)\n",
        Company.COMMONS,
    ),
    Mutant(
        "a gap of events is not told",
        "node/gateway/push/subscriptions.py",
        "        if page.first > since:\n"
        "            self._gaps.add()\n"
        "            subscription.next = subscription.told = page.first\n",
        "        if page.first > since:\n            subscription.next = page.first\n        if False:\n",
        Company.COMMONS,
    ),
    Mutant(
        "an event is pushed twice",
        "node/gateway/push/subscriptions.py",
        "            subscription.next = number + 1\n",
        "            subscription.next = number + (number % 5 != 4)\n",
        Company.COMMONS,
    ),
    Mutant(
        "an answer from outside is taken twice",
        "replica/outcall_records.py",
        "    record = OUTCALL.decode(stored)\n    message.put(key, None)\n",
        "    record = OUTCALL.decode(stored)\n",
        Company.COMMONS,
    ),
    Mutant(
        "a request to the outside is performed twice",
        "node/outcalls.py",
        "            if name not in self._running and name not in answered:",
        "            if True:",
        Company.COMMONS,
    ),
    Mutant(
        "a request without an answer never expires",
        "replica/outcalls.py",
        "    record = take_outcall(message, canister_id, number)\n"
        "    if record is None:\n"
        "        return\n"
        "    text = (",
        "    record = None\n    if record is None:\n        return\n    text = (",
        Company.COMMONS,
    ),
    Mutant(
        "quotas hold nothing back",
        "fleet/top_up_quota.py",
        '    match quota.tag:\n        case "unlimited":',
        '    match "unlimited":\n        case "unlimited":',
        Company.COMMONS,
    ),
    Mutant(
        "a top-up is sent twice",
        "fleet/treasury.py",
        "            sent = deposit(call, number, plan.cycles)\n",
        "            sent = deposit(call, number, plan.cycles)\n"
        "            ctx.notify(call, cycles=plan.cycles)\n",
        Company.COMMONS,
    ),
    Mutant(
        "who is due is not topped up",
        "fleet/treasury.py",
        "        elif rule is not None and is_low:\n",
        "        elif False:\n",
        Company.COMMONS,
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
        str(SEEDS_FROM[mutant.company] + LATER_FROM * mutant.is_later),
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
