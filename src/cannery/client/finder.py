"""Find canisters of a spread fleet: the root index is asked once for each owner, then the canister directly.

    finder = Finder(agent, agent_names["library"])
    found = await finder.find("shelf", ann)
    titles = await finder.ask("shelf", ann, lambda canister: agent.query(canister, "titles", arg))

A canister keeps its id as long as it lives, whatever the index does with its map, so what was found is
remembered; where it turns out to be gone or replaced, the root is asked again, once. docs/scaling.md, "Local
indexes".
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import record, type_of
from cannery.client.agent import AsyncAgent
from cannery.client.errors import ClientError, Rejected, Unverified
from cannery.errors import DecodeError
from cannery.limits import FINDER_CACHE_COUNT_MAX, FINDER_TRY_COUNT_MAX
from cannery.protocol.principal import Principal

T = TypeVar("T")

METHOD: Final = "fleet_find"
GONE: Final = frozenset({"IC0301", "IC0537", "CNRY0301"})
"""Rejects of a canister that was deleted, emptied, or has moved to another id."""
MOVING: Final = "ask again in a moment"
PAUSE_S: Final = 0.1


@record
class Found:
    """An owner's canister, and the index that made it and looks after it."""

    canister: Principal
    index: Principal


class NotFound(ClientError):
    """The owner has no canister of this kind."""


_encode: Final = encoder((type_of(str), type_of(Principal)))
_decode: Final = decoder((type_of(Found | None),))


class Finder:
    """Where owners' canisters are, as far as this client has asked."""

    def __init__(self, agent: AsyncAgent, index: Principal) -> None:
        self._agent = agent
        self._index = index
        self._known: dict[tuple[str, Principal], Found] = {}

    async def find(self, kind: str, owner: Principal, *, fresh: bool = False) -> Found | None:
        """Tell where an owner's canister of a kind is; `fresh` asks the root even where that is known.

        None where there is none; that is not remembered.
        """
        known = self._known.get((kind, owner))
        if known is not None and not fresh:
            return known
        found = await self._look_up(kind, owner)
        self.forget(kind, owner)
        if found is not None:
            self._known[(kind, owner)] = found
            if len(self._known) > FINDER_CACHE_COUNT_MAX:
                del self._known[next(iter(self._known))]
        return found

    async def ask(self, kind: str, owner: Principal, act: Callable[[Principal], Awaitable[T]]) -> T:
        """Do something with an owner's canister, wherever it is by now; raises `NotFound`.

        Where the one that was known is gone, nothing ran there, and `act` is tried with the present one.
        """
        was_known = (kind, owner) in self._known
        found = await self._require(kind, owner, fresh=False)
        try:
            return await act(found.canister)
        except Rejected as error:
            if not was_known or error.error_code not in GONE:
                raise
        return await act((await self._require(kind, owner, fresh=True)).canister)

    def forget(self, kind: str, owner: Principal) -> None:
        """Ask the root again next time."""
        self._known.pop((kind, owner), None)

    async def _require(self, kind: str, owner: Principal, *, fresh: bool) -> Found:
        found = await self.find(kind, owner, fresh=fresh)
        if found is None:
            raise NotFound(f"{owner} has no {kind}")
        return found

    async def _look_up(self, kind: str, owner: Principal) -> Found | None:
        for left in reversed(range(FINDER_TRY_COUNT_MAX)):
            try:
                reply = await self._agent.query(self._index, METHOD, _encode((kind, owner)))
            except Rejected as error:
                if MOVING not in error.message or not left:
                    raise
                await asyncio.sleep(PAUSE_S)
                continue
            try:
                (found,) = _decode(reply)
            except DecodeError as error:
                raise Unverified(f"{self._index} answers {METHOD} as no index does: {error}") from None
            assert found is None or isinstance(found, Found), "that is the hint"
            return found
        raise AssertionError("the last try returns or raises")
