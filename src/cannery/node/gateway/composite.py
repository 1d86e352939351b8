"""Queries over several subnets: a run ends with what it wants of another one, and begins anew with it.

No subnet waits for another: only the gateway does, and not for long. A subnet that does not answer in time is
a reject to the canister that asks it, which may go on without.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from cannery.errors import RejectCode, StoreError
from cannery.limits import COMPOSITE_CALL_COUNT_MAX
from cannery.node.answers import discard_spooled, load_spooled
from cannery.node.handover import Answered, QueryDone, QueryMessage
from cannery.node.subnet_port import SubnetPort
from cannery.replica.elsewhere import Elsewhere, KnownAnswer

_WAIT_S: Final = 5.0


class CompositeQueries:
    """Asks queries to their end. `ports`: those of the subnets, by number."""

    def __init__(self, ports: Sequence[SubnetPort]) -> None:
        self._ports = tuple(ports)

    async def ask(self, message: QueryMessage, number: int) -> QueryDone:
        """Ask a subnet, and whichever others its canisters ask."""
        known: list[KnownAnswer] = []
        while True:
            done = await self._ports[number].ask(message)
            wanted = done.wanted
            if wanted is None or len(known) >= COMPOSITE_CALL_COUNT_MAX:
                return done
            known.append(await self._ask_other(message.request_id, wanted))
            message = replace(message, known=tuple(known))

    async def _ask_other(self, request_id: bytes, wanted: Elsewhere) -> KnownAnswer:
        name = wanted.canister_id, wanted.method, wanted.arg
        message = QueryMessage(
            request_id, wanted.caller, wanted.canister_id, wanted.method, wanted.arg, asked_by=wanted.asked_by
        )
        try:
            async with asyncio.timeout(_WAIT_S):
                answer = (await self.ask(message, wanted.subnet)).answer
            reply = _bytes_of(answer)
        except TimeoutError:
            text = (
                f"subnet {wanted.subnet} has not answered in {_WAIT_S:.0f} s: it may be restarting, ask again"
            )
            return KnownAnswer(*name, reject_code=int(RejectCode.SYS_TRANSIENT), reject_message=text)
        except StoreError as error:
            return KnownAnswer(*name, reject_code=int(RejectCode.SYS_TRANSIENT), reject_message=str(error))
        return KnownAnswer(*name, reply, answer.reject_code, answer.reject_message, answer.error_code)


def _bytes_of(answer: Answered) -> bytes:
    if answer.spooled is None:
        return answer.reply
    try:
        return load_spooled(answer.spooled)
    finally:
        discard_spooled(answer.spooled)
