"""Questions that the node itself asks its subnet: management queries, and the queries of fleets' indexes.

They are asked as the management canister, which no signed request can be from: that is how an index knows the
node. What a canister answers is foreign: it is decoded within limits, and whatever goes wrong (a reject, a
reply of another type, silence) is one `AskError` with its reason.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import nat32, nat64, record, type_of
from cannery.errors import CanneryError, DecodeError
from cannery.node.answers import discard_spooled
from cannery.node.gateway.names import NAME_LIST_ARG, NAME_LIST_METHOD, NameListError, decode_name_list
from cannery.node.handover import QueryMessage
from cannery.node.subnet_port import SubnetPort
from cannery.protocol.principal import MANAGEMENT, Principal

Decode = Callable[[bytes], tuple[object, ...]]

_NOTHING: Final = encoder(())(())


class AskError(CanneryError):
    """A question of the node has no answer; the text says why."""


@record
class FleetSample:
    """One number that an index gives for `/metrics`."""

    name: str
    help: str
    labels: list[tuple[str, str]]
    value: float


@record
class FleetAlarm:
    """An alarm of a fleet, or its end; `index` rises by one with each."""

    index: nat64
    at_ns: nat64
    kind: str
    subject: str
    text: str
    is_over: bool


@dataclass(frozen=True, slots=True)
class Fleet:
    """A fleet: its index, and that one's name on the node, else its id."""

    index: Principal
    name: str


_decode_fleets: Final = decoder((type_of(list[Principal]),))
_decode_samples: Final = decoder((type_of(list[FleetSample]),))
_decode_alarms: Final = decoder((type_of(list[FleetAlarm]),))
_encode_page: Final = encoder((type_of(nat64 | None), type_of(nat32)))


class Questions:
    """Asks the subnet, each question with a time limit."""

    def __init__(self, port: SubnetPort, wait_s: float) -> None:
        self._port = port
        self._wait_s = wait_s

    async def names(self) -> list[tuple[str, Principal]]:
        """Give the named canisters."""
        try:
            return decode_name_list(await self.ask(MANAGEMENT, NAME_LIST_METHOD, NAME_LIST_ARG))
        except NameListError as error:
            raise AskError(f"the list of canister names does not decode: {error}") from error

    async def fleets(self, count_max: int) -> tuple[list[Fleet], int]:
        """Give the fleets with their names, in the order of their ids, and how many were left out."""
        reply = await self.ask(MANAGEMENT, "cannery_fleet_list", _NOTHING)
        indexes = self._decoded("cannery_fleet_list", _decode_fleets, reply)
        names = {canister_id: name for name, canister_id in reversed(await self.names())}
        found = [
            Fleet(index, names.get(index, str(index))) for index in indexes if isinstance(index, Principal)
        ]
        return found[:count_max], max(0, len(found) - count_max)

    async def samples(self, index: Principal) -> list[FleetSample]:
        """Give what an index tells for `/metrics`; its names and numbers are not checked yet."""
        reply = await self.ask(index, "fleet_metrics", _NOTHING)
        found = self._decoded("fleet_metrics", _decode_samples, reply)
        return [sample for sample in found if isinstance(sample, FleetSample)]

    async def alarms(self, index: Principal, after: int | None, limit: int) -> list[FleetAlarm]:
        """Give an index's alarms behind a number, oldest first; those whose numbers do not rise are left."""
        reply = await self.ask(index, "fleet_alarms", _encode_page((after, limit)))
        found: list[FleetAlarm] = []
        last = -1 if after is None else after
        for alarm in self._decoded("fleet_alarms", _decode_alarms, reply)[:limit]:
            if isinstance(alarm, FleetAlarm) and alarm.index > last:
                found.append(alarm)
                last = alarm.index
        return found

    async def ask(self, canister_id: Principal, method: str, arg: bytes) -> bytes:
        """Ask a query and give its reply. Raises `AskError`."""
        # The same question has the same id: one that brought the subnet's process down is not run again.
        request_id = sha256(b"cannery-node-asks:" + canister_id.raw + method.encode()).digest()
        query = QueryMessage(request_id, MANAGEMENT.raw, canister_id.raw, method, arg)
        try:
            async with asyncio.timeout(self._wait_s):
                answer = (await self._port.ask(query)).answer
        except TimeoutError:
            raise AskError(
                f"the subnet has not answered {method} in {self._wait_s:g} s: it may be restarting"
            ) from None
        if answer.spooled is not None:
            discard_spooled(answer.spooled)
            raise AskError(f"the reply to {method} has {answer.spooled.size_bytes} bytes, too many")
        if answer.reject_code:
            raise AskError(f"{method} was rejected: {answer.reject_message}")
        return answer.reply

    def _decoded(self, method: str, decode: Decode, reply: bytes) -> list[object]:
        try:
            (value,) = decode(reply)
        except DecodeError as error:
            raise AskError(f"the reply to {method} does not decode: {error}") from None
        return value if isinstance(value, list) else []
