"""The thin path: a call from outside is run, answered and kept; a query reads it."""

from __future__ import annotations

from tests.replica.world import Script, World


def _put(system):
    system.put(b"\x01k", system.arg)
    system.reply(b"done " + system.arg)


def _get(system):
    system.reply(system.get(b"\x01k") or b"")


def test_an_update_is_answered_and_a_query_reads_what_it_wrote() -> None:
    world = World()
    canister = world.add(Script({"put": _put}, {"get": _get}))
    answer = world.call(canister, "put", b"hello")
    assert answer is not None
    assert answer.reply == b"done hello"
    assert world.query(canister, "get").reply == b"hello"
