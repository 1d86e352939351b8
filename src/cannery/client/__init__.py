"""The Python client of a Cannery node, or of any endpoint that speaks the IC's HTTPS interface.

`Agent` and `AsyncAgent` send signed calls and queries and verify every answer; `Actor` and `AsyncActor`
turn a canister's own interface into Python methods. Names load on first use, so that importing the package
costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cannery.client.actor import Actor, AsyncActor, open_actor, open_async_actor
    from cannery.client.agent import Agent, AsyncAgent
    from cannery.client.errors import ClientError, Expired, Refused, Rejected, Unreachable, Unverified
    from cannery.client.events import Event, EventsEnded, Gap
    from cannery.client.identity_store import IdentityStore, PinStore

__all__ = [
    "Actor",
    "Agent",
    "AsyncActor",
    "AsyncAgent",
    "ClientError",
    "Event",
    "EventsEnded",
    "Expired",
    "Gap",
    "IdentityStore",
    "PinStore",
    "Refused",
    "Rejected",
    "Unreachable",
    "Unverified",
    "open_actor",
    "open_async_actor",
]

_HOMES = {
    "Actor": "actor",
    "Agent": "agent",
    "AsyncActor": "actor",
    "AsyncAgent": "agent",
    "ClientError": "errors",
    "Event": "events",
    "EventsEnded": "events",
    "Expired": "errors",
    "Gap": "events",
    "IdentityStore": "identity_store",
    "PinStore": "identity_store",
    "Refused": "errors",
    "Rejected": "errors",
    "Unreachable": "errors",
    "Unverified": "errors",
    "open_actor": "actor",
    "open_async_actor": "actor",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
