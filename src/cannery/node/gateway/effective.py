"""Effective ids: does the id in a URL fit the request in its body.

IC interface specification, sections "Effective canister id" and "Effective subnet id". Whether the
canister exists is for its subnet to say.
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

import msgspec

from cannery.errors import Reject
from cannery.node.gateway.http import Refusal
from cannery.node.gateway.routes import Route
from cannery.protocol.envelope import CallContent, QueryContent
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.routing import (
    effective_canister_id,
    subnet_call_methods,
    subnet_query_methods,
)
from cannery.replica.places import Anywhere, make_route, place_of_management

CanisterRanges = tuple[tuple[Principal, Principal], ...]


def management_target(content: CallContent | QueryContent) -> bytes | None:
    """Give the canister that a call of the management canister is about; None for all other calls.

    None too where the argument names no canister: the subnet's reject says so.
    """
    if content.canister_id != MANAGEMENT:
        return None
    try:
        return effective_canister_id(content.method_name, content.arg)
    except Reject:
        return None


class Places(msgspec.Struct, frozen=True):
    """Where a call or query goes: the subnet whose name stands under its answer, and the one that runs it."""

    answers: int
    runs: int


class EffectiveIds:
    """Checks effective ids against the node's subnets, and says which of them a request is for."""

    __slots__ = ("_ranges", "_routes", "_subnet_ids")

    def __init__(self, subnet_ids: Sequence[Principal], ranges: CanisterRanges) -> None:
        """`ranges`: the canister ids of each subnet."""
        self._subnet_ids = tuple(subnet_ids)
        self._ranges = ranges
        self._routes = tuple(make_route(number, each.raw) for number, each in enumerate(subnet_ids))

    def check(
        self, content: CallContent | QueryContent, target: bytes | None, route: Route, request_id: bytes = b""
    ) -> Places:
        """Raise `Refusal` (400) where the URL does not fit the call or query (`target`: see above).

        The same request (`request_id`) goes to the same subnet each time.
        """
        effective = route.effective
        if route.subnet:
            number = self.check_place(route)
            self._check_subnet_scope(content)
            return Places(number, number)
        if content.canister_id != MANAGEMENT:
            if content.canister_id != effective:
                raise _refuse(f"the URL names canister {effective}, the request calls {content.canister_id}")
            number = self.check_place(route)
            return Places(number, number)
        return self._check_management(content, target, route, request_id)

    def check_place(self, route: Route) -> int:
        """Give the subnet of the URL's canister or subnet; raise `Refusal` (400) where it is not here."""
        effective = route.effective
        if route.subnet:
            if effective not in self._subnet_ids:
                own = ", ".join(map(str, self._subnet_ids))
                name = "subnet is" if len(self._subnet_ids) == 1 else "subnets are"
                raise _refuse(f"subnet {effective} is not here: this node's {name} {own}")
            return self._subnet_ids.index(effective)
        if effective.is_management:
            return 0
        number = self._number_of(effective)
        if number is None:
            raise _refuse(
                f"canister {effective} is not in this node's canister ranges: look for a mistyped id"
            )
        return number

    def _number_of(self, canister_id: Principal) -> int | None:
        for number, (low, high) in enumerate(self._ranges):
            if low <= canister_id <= high:
                return number
        return None

    def _check_subnet_scope(self, content: CallContent | QueryContent) -> None:
        methods = subnet_call_methods if isinstance(content, CallContent) else subnet_query_methods
        if content.canister_id != MANAGEMENT or content.method_name not in methods:
            raise _refuse(
                f"a subnet URL takes only {', '.join(sorted(methods))} of aaaaa-aa: use /api/.../canister/ID"
            )

    def _check_management(
        self, content: CallContent | QueryContent, target: bytes | None, route: Route, request_id: bytes
    ) -> Places:
        method = content.method_name
        if method in subnet_call_methods or method in subnet_query_methods:
            # Any principal will do as the place of a canister that does not exist yet.
            answers = self._number_of(route.effective) or 0
        else:
            answers = self.check_place(route)
        if target is not None and target != route.effective.raw:
            raise _refuse(
                f"{method} is about canister {Principal(target)}: "
                f"its URL must name that canister, not {route.effective}"
            )
        if len(self._routes) == 1:
            return Places(0, 0)
        place = place_of_management(self._routes, method, content.arg) if target is None else answers
        if isinstance(place, Anywhere):
            place = int.from_bytes(request_id[:4], "big") % len(self._routes)
        return Places(answers, answers if place is None else place)


def _refuse(text: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, text)
