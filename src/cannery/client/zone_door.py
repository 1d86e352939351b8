"""A zone's methods, asked until they answer: waits where the zone says when to come back, confirms one's role
with its provider where the zone asks for that, and turns every refusal into `ZoneRefused`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from cannery.candid.values import Variant
from cannery.client.actor import AsyncActor, open_async_actor
from cannery.client.agent import AsyncAgent
from cannery.client.errors import Rejected
from cannery.client.exchange import WaitReport
from cannery.client.zone_values import NoZone, ZoneRefused, refusal_of
from cannery.protocol.principal import Principal

_CONFIRM = "call refresh_role"
# SubjectPublicKeyInfo of an uncompressed secp256k1 point (SEC 1, RFC 5480), up to the point.
_SECP256K1_DER_HEAD = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200")
_METHODS = ("arrivals", "history", "key_records", "members_page", "usage")


class ZoneDoor:
    """One zone, as one identity sees it."""

    def __init__(
        self, agent: AsyncAgent, zone_id: Principal, actor: AsyncActor, patience_s: float, on_wait: WaitReport
    ) -> None:
        self.agent = agent
        self.id = zone_id
        self.patience_s = patience_s
        self.on_wait = on_wait
        self._actor = actor

    @classmethod
    async def open(
        cls, agent: AsyncAgent, zone_id: Principal, patience_s: float, on_wait: WaitReport
    ) -> ZoneDoor:
        """Read the zone's interface, certified. Raises `NoZone`."""
        actor = await open_async_actor(agent, zone_id)
        lacking = [name for name in _METHODS if name not in dir(actor)]
        if lacking:
            raise NoZone(f"canister {zone_id} is no zone: it has no method {lacking[0]!r}")
        return cls(agent, zone_id, actor, patience_s, on_wait)

    async def ask(self, method: str, *args: object) -> Any:  # of the zone's types, known at run time only
        """Ask a query; a result `err` is a refusal too. Raises `ZoneRefused`."""
        return await self._until_answered(lambda: self._actor[method].query(*args))

    async def tell(self, method: str, *args: object) -> Any:  # of the zone's types, known at run time only
        """Call an update; a result `err` is a refusal too. Raises `ZoneRefused`."""
        return await self._until_answered(lambda: self._actor[method].call(*args))

    async def _until_answered(self, act: Callable[[], Awaitable[Any]]) -> Any:  # what `act` gives
        left_s, was_confirmed = self.patience_s, False
        while True:
            try:
                return checked(await act())
            except Rejected as error:
                refusal = refusal_of(error.message)
            except ZoneRefused as error:
                refusal = error
            if _CONFIRM in refusal.reason and not was_confirmed:
                was_confirmed = True
                await self.confirm_role()
                continue
            if refusal.retry_after_s is None or refusal.retry_after_s > left_s:
                raise refusal
            left_s -= refusal.retry_after_s
            self.on_wait(str(refusal))
            await asyncio.sleep(refusal.retry_after_s)

    async def confirm_role(self) -> int:
        """Have the zone ask its role provider about oneself; return the role's number."""
        key = self.agent.identity.public_key_der or b""
        try:
            role: int
            if key.startswith(_SECP256K1_DER_HEAD):
                # A contract knows addresses, which come from such keys.
                role = await self._actor["update_role"].call(key[len(_SECP256K1_DER_HEAD) :])
            else:
                role = await self._actor["refresh_role"].call()
        except Rejected as error:
            raise refusal_of(error.message) from None
        return role


def checked(result: Any) -> Any:  # of the zone's types, known at run time only
    """Give what a result holds; raise `ZoneRefused` with its text where it is an error."""
    if isinstance(result, Variant) and result.tag == "err":
        raise refusal_of(str(result.value))
    return result.value if isinstance(result, Variant) and result.tag == "ok" else result
