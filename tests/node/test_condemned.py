"""What brought a process down is not run again, for a while; everything else is."""

from __future__ import annotations

from pathlib import Path

from cannery import Canister, Context, nat64, query, update
from cannery.limits import CONDEMNED_COUNT_MAX, CONDEMNED_NS_MAX
from cannery.node.condemned import take_condemned
from cannery.node.service import Subnet
from cannery.node.watch import Running, RunningFile
from cannery.replica.queries import Query
from cannery.testing import Node


class Plain(Canister):
    @update
    def run(self, ctx: Context) -> nat64:
        return 1

    @query
    def ask(self, ctx: Context, number: nat64) -> nat64:
        return number


def test_only_condemned_marks_count_and_they_last_a_while(tmp_path: Path) -> None:
    running, path = RunningFile(str(tmp_path / "running")), tmp_path / "condemned"
    running.begin(b"a" * 32)
    assert take_condemned(running, path, 1) == {}, "a process that somebody killed condemns nothing"
    running.begin(b"b" * 32)
    running.condemn(Running.KILLED_MEMORY)
    assert take_condemned(running, path, 1) == {b"b" * 32: 1 + CONDEMNED_NS_MAX}
    assert take_condemned(running, path, 2) == {b"b" * 32: 1 + CONDEMNED_NS_MAX}
    assert take_condemned(running, path, 2 + CONDEMNED_NS_MAX) == {}
    for number in range(CONDEMNED_COUNT_MAX + 5):
        running.begin(number.to_bytes(32, "big"))
        running.condemn(Running.KILLED_CRASH)
        found = take_condemned(running, path, 3 + number)
    assert len(found) == CONDEMNED_COUNT_MAX
    path.write_bytes(b"\x01nonsense")
    assert take_condemned(running, path, 1) == {}


def test_condemned_messages_and_queries_are_refused_and_others_run() -> None:
    with Node() as node:
        canister = node.install(Plain)
        arg = canister.ask._shape.encode_args((5,))
        query_identity = b"q" * 32
        condemned = Query(query_identity, canister.sender.raw, canister.id.raw, "ask", arg)
        update_identity = b"u" * 32
        until = node.now_ns + 10**10
        node.subnet.close()
        node.subnet = Subnet(
            node.subnet._doors, node._config, condemned={query_identity: until, update_identity: until}
        )
        node.run()
        found = node.subnet.query(condemned)
        assert found.reject is not None
        assert "brought the node's process down" in found.reject.message
        assert canister.ask(5) == 5
        ticket = node.submit_raw(
            canister.id, "run", b"DIDL\x00\x00", canister.sender, request_id=update_identity
        )
        node.run()
        answer = node.take_answer(ticket)
        assert answer is not None
        assert "too much time or memory" in answer.reject_message
        assert canister.run() == 1
        node.clock.set_ns(until + 1)
        assert node.subnet.query(condemned).reject is None
