"""Talking to a zone from a command: find it, open it as an identity, run what is asked, end in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from cannery.cli.output import Progress
from cannery.cli.problem import Problem
from cannery.cli.session import Session, open_session, user_identity
from cannery.cli.zone_create import find_zone
from cannery.client.agent import AsyncAgent
from cannery.client.zone import Zone, open_zone
from cannery.client.zone_anchors import ZoneAnchors
from cannery.client.zone_invitation import BadInvitation, Invitation
from cannery.protocol.principal import Principal

T = TypeVar("T")
Act = Callable[[Zone, Progress], Awaitable[T]]
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class ZoneSession:
    """A session with the node, and the zone that is meant."""

    session: Session
    zone_id: Principal

    def run(self, act: Act[T]) -> T:
        """Open the zone and do something with it."""
        return self.run_with(_opened, act)

    def run_with(self, open: Callable[[AsyncAgent, Principal, Progress], Awaitable[Zone]], act: Act[T]) -> T:
        """Open the zone in a way of one's own and do something with it."""
        agent, line = self.session.agent, self.session.line

        async def go() -> T:
            options = {"root_key": agent.root_key(), "on_wait": line.say, "on_progress": line.bytes_done}
            async with AsyncAgent(agent.url, agent.identity, **options) as door:  # type: ignore[arg-type]
                return await act(await open(door, self.zone_id, line), line)

        return asyncio.run(go())


async def _opened(agent: AsyncAgent, zone_id: Principal, line: Progress) -> Zone:
    return await open_zone(agent, zone_id, anchors=ZoneAnchors(), on_wait=line.say)


@contextmanager
def open_zone_session(node: str, identity: str | None, zone: str, label: str) -> Iterator[ZoneSession]:
    """Talk to a node about one of its zones."""
    with open_session(node, user_identity(identity), label) as session:
        yield ZoneSession(session, find_zone(session, zone))


def run_zone(node: str, identity: str | None, zone: str, label: str, act: Act[T]) -> T:
    """Do one thing with a zone."""
    with open_zone_session(node, identity, zone, label) as session:
        return session.run(act)


def read_invitation(text: str) -> Invitation:
    """Read an invitation."""
    try:
        return Invitation.parse(text)
    except BadInvitation as error:
        raise Problem(str(error)) from None
