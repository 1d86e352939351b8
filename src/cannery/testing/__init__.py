"""A harness for authors of canisters: an in-process node on the real round loop, with a manual clock.

    from cannery.testing import Node

    def test_signing() -> None:
        with Node() as node:
            book = node.install(Guestbook)
            assert book.as_("ann").sign("hi") == 0

See `Node` for time, upgrades, restarts and faults; `FaultyStore` for stores that crash, fail and fill up.
"""

from cannery.client.errors import Rejected
from cannery.testing.actor import Actor
from cannery.testing.clock import ManualClock
from cannery.testing.http_script import HttpFailure, HttpRequest, HttpResponse, HttpSilence
from cannery.testing.node import Node, Unanswered
from cannery.testing.store import Crashed, FaultyStore, MemoryStore

__all__ = [
    "Actor",
    "Crashed",
    "FaultyStore",
    "HttpFailure",
    "HttpRequest",
    "HttpResponse",
    "HttpSilence",
    "ManualClock",
    "MemoryStore",
    "Node",
    "Rejected",
    "Unanswered",
]
