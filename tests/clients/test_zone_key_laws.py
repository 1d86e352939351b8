"""The laws of an encrypted zone's keys: whatever is posted while keys are made, whoever joins, is removed,
or opens the zone anew, everybody reads what they hold a key for, and nothing else.

One running node serves all plans, each with a zone of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cannery.client.zone import Zone, join_zone, open_zone
from tests.clients.zone_town import ANN, BOB, CAROL, EVE, Town
from tests.node_under_test import NodeUnderTest

T = TypeVar("T")
PEOPLE = {"ann": ANN, "bob": BOB, "carol": CAROL, "eve": EVE}
peers = st.sampled_from([name for name in PEOPLE if name != "ann"])


@dataclass
class Peer:
    """A member as their client has them: the versions that it knows of, and those that it can open."""

    zone: Zone
    is_admin: bool
    known: int = 0
    ring: set[int] = field(default_factory=set)


class Machine(RuleBasedStateMachine):
    """A zone beside the model of who holds which key."""

    node: NodeUnderTest

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.town = Town(self.node)
        # Versions from 1 on: whether each opens the one before, and for whom it lies in a box.
        self.links = [False]
        self.boxes: list[set[str]] = [{"ann"}]
        self.peers: dict[str, Peer] = {}
        self.posted: list[tuple[int, bytes]] = []
        zone = self.run(self.opened("ann"))
        self.run(zone.encrypt())
        self.peers["ann"] = Peer(zone, True, 1, {1})

    def run(self, work: Coroutine[object, object, T]) -> T:
        return self.runner.run(work)

    async def opened(self, name: str) -> Zone:
        return await open_zone(await self.agent(name), self.town.id)

    async def agent(self, name: str):  # type: ignore[no-untyped-def]  # an agent that is closed in the end
        return await self.stack.enter_async_context(self.town.agent(PEOPLE[name]))

    def teardown(self) -> None:
        self.run(self.stack.aclose())
        self.runner.close()

    # the model

    def learn(self, name: str) -> None:
        """Look for newer keys, as a client does: open the boxes, follow the links."""
        peer = self.peers[name]
        peer.known = len(self.boxes)
        peer.ring |= {version for version, boxed in enumerate(self.boxes, 1) if name in boxed}
        for version in range(peer.known, 1, -1):
            if version in peer.ring and self.links[version - 1]:
                peer.ring.add(version - 1)

    def made(self, is_linked: bool, without: str | None = None) -> None:
        """A key is made for all who hold the newest one."""
        newest = {name for name in self.boxes[-1] if name in self.peers and name != without}
        for boxed in self.boxes if is_linked else []:
            boxed -= newest
        self.links.append(is_linked)
        self.boxes.append(newest)

    # what they do

    @rule(name=st.sampled_from(sorted(PEOPLE)))
    def post(self, name: str) -> None:
        peer = self.peers.get(name)
        if peer is None or peer.known not in peer.ring:
            return
        body = f"{name} {len(self.posted)}".encode()
        self.run(peer.zone.post("a", body))
        self.posted.append((peer.known, body))

    @rule(is_linked=st.booleans())
    def rotate(self, is_linked: bool) -> None:
        assert self.run(self.peers["ann"].zone.keys.rotate(is_linked=is_linked)) == len(self.boxes) + 1
        self.made(is_linked)
        self.learn("ann")

    @precondition(lambda self: any(self.can_rotate(name) for name in self.peers if name != "ann"))
    @rule()
    def rotate_at_the_same_time(self) -> None:
        """Two admins make a key each: one comes after the other."""
        other = next(name for name in self.peers if name != "ann" and self.can_rotate(name))
        both = ("ann", other)

        async def go() -> set[int]:
            return set(await asyncio.gather(*(self.peers[name].zone.keys.rotate() for name in both)))

        count = len(self.boxes)
        assert self.run(go()) == {count + 1, count + 2}
        for _ in both:
            self.made(True)
        for name in both:
            self.run(self.peers[name].zone.keys.load())
            self.learn(name)

    def can_rotate(self, name: str) -> bool:
        return self.peers[name].is_admin and name in self.boxes[-1]

    @rule(name=peers, is_linked=st.booleans())
    def post_while_a_key_is_made(self, name: str, is_linked: bool) -> None:
        peer = self.peers.get(name)
        if peer is None or peer.known not in peer.ring:
            return
        body = f"racing {name} {len(self.posted)}".encode()

        async def go() -> None:
            await asyncio.gather(
                peer.zone.post("a", body), self.peers["ann"].zone.keys.rotate(is_linked=is_linked)
            )

        self.run(go())
        self.posted.append((peer.known, body))
        self.made(is_linked)
        self.learn("ann")

    @rule(name=peers, with_past=st.booleans(), is_admin=st.booleans())
    def join(self, name: str, with_past: bool, is_admin: bool) -> None:
        if name in self.peers:
            return
        ann = self.peers["ann"].zone
        text = self.run(ann.invite("admin" if is_admin else "member", with_past=with_past))
        if not with_past:
            self.made(False)
        self.learn("ann")

        async def go() -> Zone:
            return await join_zone(await self.agent(name), self.town.id, text)

        newest = len(self.boxes)
        self.peers[name] = Peer(self.run(go()), is_admin)
        self.boxes[newest - 1].add(name)
        self.learn(name)
        # Who is an admin now may make keys from the next one on, whose record names them.
        self.peers[name].is_admin = False
        if is_admin:
            self.rotate(True)
            self.peers[name].is_admin = True

    @rule(name=peers)
    def remove(self, name: str) -> None:
        was_member = name in self.peers
        is_holder = was_member and name in self.boxes[-1]
        assert self.run(self.peers["ann"].zone.remove_member(PEOPLE[name].principal)) == was_member
        if was_member:
            del self.peers[name]
            self.made(True, without=name)
            for boxed in self.boxes:
                boxed.discard(name)
        assert is_holder or not was_member or name not in self.peers
        self.learn("ann")

    @rule(name=st.sampled_from(sorted(PEOPLE)))
    def open_anew(self, name: str) -> None:
        """A new program on another machine knows what lies in boxes and records, and no more."""
        if name not in self.peers:
            return
        old = self.peers[name]
        self.peers[name] = Peer(self.run(self.opened(name)), old.is_admin)
        self.learn(name)

    # what always holds

    @invariant()
    def everybody_reads_what_they_hold_a_key_for(self) -> None:
        for name, peer in self.peers.items():
            self.run(peer.zone.keys.load())
            self.learn(name)
            found = self.run(peer.zone.history().all())
            assert [m.body for m in found] == [
                body if version in peer.ring else None for version, body in self.posted
            ], name

    @invariant()
    def holders_are_the_models(self) -> None:
        holders = self.run(self.peers["ann"].zone.keys.holders())
        assert holders == {PEOPLE[name].principal for name in self.boxes[-1]}


SETTINGS = settings(max_examples=6, stateful_step_count=12, deadline=None, phases=[Phase.generate])


def test_everybody_reads_what_they_hold_a_key_for(running_node: NodeUnderTest) -> None:
    Machine.node = running_node
    run_state_machine_as_test(Machine, settings=SETTINGS)  # type: ignore[no-untyped-call]
