"""Several subnets in one process: who gets which message, and the carrying of their streams."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import COMPOSITE_CALL_COUNT_MAX
from cannery.node.service import Subnet
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.block import Route, StreamAck
from cannery.replica.elsewhere import KnownAnswer
from cannery.replica.places import Anywhere, make_route, place_of_management, route_of_canister
from cannery.replica.queries import Query, QueryResult


def make_routes(count: int) -> tuple[Route, ...]:
    """Give the registry of a node for tests."""
    return tuple(
        make_route(number, sha256(b"cannery.testing subnet %d" % number).digest()[:28] + b"\x02")
        for number in range(count)
    )


def place_of(
    routes: Sequence[Route], subnets: Sequence[Subnet], canister_id: Principal, method: str, arg: bytes
) -> int:
    """Give the subnet that a message from outside is for."""
    if canister_id != MANAGEMENT:
        route = route_of_canister(tuple(routes), canister_id.raw)
        return 0 if route is None else route.subnet
    place = place_of_management(tuple(routes), method, arg)
    if isinstance(place, Anywhere):
        counts = [subnet.vitals().canister_count for subnet in subnets]
        return counts.index(min(counts))
    return place or 0


def subnet_down(number: int) -> Reject:
    """Give the refusal of what is for a subnet that is down."""
    return Reject(RejectCode.SYS_TRANSIENT, f"subnet {number} is down: try again later")


def run_composite(
    subnets: Sequence[Subnet], subnet: Subnet, query: Query, down: frozenset[int] = frozenset()
) -> QueryResult:
    """Run a query to its end, over whichever subnets its canisters ask, as a gateway does."""
    if subnet.number in down:
        return QueryResult(b"", subnet_down(subnet.number))
    known: list[KnownAnswer] = []
    while True:
        result = subnet.query(replace(query, known=tuple(known)))
        wanted = result.wanted
        if wanted is None or len(known) >= COMPOSITE_CALL_COUNT_MAX:
            return result
        asked = Query(
            query.request_id,
            wanted.caller,
            wanted.canister_id,
            wanted.method,
            wanted.arg,
            asked_by=wanted.asked_by,
        )
        name = wanted.canister_id, wanted.method, wanted.arg
        found = run_composite(subnets, subnets[wanted.subnet], asked, down)
        if found.reject is None:
            known.append(KnownAnswer(*name, found.reply))
        else:
            reject = found.reject
            known.append(KnownAnswer(*name, b"", int(reject.code), reject.message, reject.error_code))


class Carrier:
    """Carries durable messages and acknowledgements from subnet to subnet: behind `links.StreamPort`."""

    def __init__(self) -> None:
        self._carried: dict[tuple[int, int], int] = {}
        self._acknowledged: dict[tuple[int, int], int] = {}

    def forget(self, number: int) -> None:
        """Forget what was brought to a subnet that has lost its memory."""
        for pair in [pair for pair in self._carried if pair[1] == number]:
            del self._carried[pair]
        for pair in [pair for pair in self._acknowledged if pair[1] == number]:
            del self._acknowledged[pair]

    def carry(self, subnets: Sequence[Subnet]) -> None:
        """Bring each subnet what the others have for it and have not brought yet."""
        for sender in subnets:
            for receiver in subnets:
                if sender is not receiver and sender.failure is None and receiver.failure is None:
                    self._carry(sender, receiver)

    def _carry(self, sender: Subnet, receiver: Subnet) -> None:
        way = sender.number, receiver.number
        received = receiver.received_from(sender.number)
        found = sender.slice_for(receiver.number, max(received, self._carried.get(way, 0)))
        if found.entries or way not in self._carried:
            self._carried[way] = found.first + len(found.entries)
            receiver.links.put(found)
        back = receiver.number, sender.number
        if received > self._acknowledged.get(back, 0):
            self._acknowledged[back] = received
            sender.links.put(StreamAck(receiver.number, received))
