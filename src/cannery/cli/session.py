"""What a command needs to talk to a node: an agent with a pinned root key, and canister ids by name.

A node's root key is pinned at first use (`client.identity_store`); one that changed is refused before
anything is sent. The identity is one of the store's, or, for those who run the node, the operator's in the
data directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cannery.cli.options import DEFAULT_DATA
from cannery.cli.output import Progress, progress
from cannery.cli.problem import Problem
from cannery.client.actor import Actor, open_actor
from cannery.client.agent import Agent
from cannery.client.errors import ClientError, Unreachable
from cannery.client.identity_store import IdentityStore, PinStore, load_pem, origin_of
from cannery.protocol.identity import AnonymousIdentity, Identity
from cannery.protocol.principal import Principal, PrincipalError

OPERATOR_FILE = "operator.pem"
FIRST_CONTACT_S = 2.0


@dataclass(frozen=True, slots=True)
class Session:
    """An agent, and the line that tells how it is doing."""

    agent: Agent
    line: Progress

    def canister(self, text: str) -> Principal:
        """Read a canister id, or look a name up on the node."""
        try:
            return Principal.parse(text)
        except PrincipalError as error:
            if text.count("-") > 1:
                raise Problem(f"{text!r} is no canister id: {error}") from None
        found = self.agent.names().get(text)
        if found is None:
            raise Problem(
                f"no canister is named {text!r} on {self.agent.url}; see {self.agent.url}/cannery.json"
            )
        return found

    def actor(self, canister_id: Principal) -> Actor:
        """Give the methods of a canister as its own interface tells them."""
        return open_actor(self.agent, canister_id)


@contextmanager
def open_session(url: str, identity: Identity, label: str) -> Iterator[Session]:
    """Talk to a node whose root key is pinned, or is pinned now."""
    pins = PinStore()
    origin = origin_of(url)
    with progress(label) as line:
        agent = Agent(
            origin,
            identity,
            root_key=pins.find(origin),
            on_wait=line.say,
            on_progress=line.bytes_done,
        )
        with agent:
            _meet(agent, pins)
            yield Session(agent, line)


def _meet(agent: Agent, pins: PinStore) -> None:
    """See that the node is there and shows the pinned root key."""
    agent.trust(pins.check(agent.url, _shown_root_key(agent)))


def shown_root_key(origin: str) -> bytes:
    """Ask a node for the root key that it shows."""
    with progress("asking the node"), Agent(origin) as agent:
        return _shown_root_key(agent)


def _shown_root_key(agent: Agent) -> bytes:
    try:
        status = agent.status(patience_s=FIRST_CONTACT_S)
    except Unreachable as error:
        raise Unreachable(
            f"no node answers at {agent.url} ({error}); "
            "start one with 'cannery start' or name one with --node URL"
        ) from None
    except ClientError as error:
        raise Problem(f"{agent.url} is no node: {error}", exit_code=3) from None
    if status.root_key is None:
        raise Problem(f"{agent.url} is no node: it shows no root key", exit_code=3)
    return status.root_key


def user_identity(name: str | None) -> Identity:
    """Give the named identity, or the only one there is."""
    store = IdentityStore()
    if name is not None:
        return store.load(name)
    names = store.names()
    if len(names) == 1:
        return store.load(names[0])
    if not names:
        raise Problem("you have no identity yet; make one: cannery identity new NAME")
    raise Problem(f"say who you are: --identity NAME, with one of {', '.join(names)}")


def operator_path() -> Path:
    """Say where the operator identity of the local node lies."""
    return Path(os.environ.get("CANNERY_DATA") or DEFAULT_DATA) / OPERATOR_FILE


def operator_identity(name: str | None) -> Identity:
    """Give the named identity, else the local node's operator."""
    if name is not None:
        return IdentityStore().load(name)
    path = operator_path()
    if not path.exists():
        raise Problem(
            f"there is no operator identity at {path}; run this where the node was started, "
            "set CANNERY_DATA to its data directory, or say --identity NAME"
        )
    return load_pem(path)


def read_principal(text: str) -> Principal:
    """Read a principal, or take that of one of the store's identities."""
    try:
        return Principal.parse(text)
    except PrincipalError:
        if text in IdentityStore().names():
            return IdentityStore().load(text).principal
        raise Problem(f"{text!r} is neither a principal nor one of your identities") from None


def caller_identity(name: str | None) -> Identity:
    """Give the named identity, else the local node's operator, else nobody."""
    if name is None and not operator_path().exists():
        return AnonymousIdentity()
    return operator_identity(name)
