"""Effective ids: does the id in a URL fit the request in its body.

IC interface specification, sections "Effective canister id" and "Effective subnet id". Whether the
canister exists is for its subnet to say.
"""

from __future__ import annotations

from http import HTTPStatus

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


class EffectiveIds:
    """Checks effective ids against the subnet that this gateway answers for."""

    __slots__ = ("_ranges", "_subnet_id")

    def __init__(self, subnet_id: Principal, ranges: CanisterRanges) -> None:
        self._subnet_id = subnet_id
        self._ranges = ranges

    def check(self, content: CallContent | QueryContent, target: bytes | None, route: Route) -> None:
        """Raise `Refusal` (400) where the URL does not fit the call or query (`target`: see above)."""
        effective = route.effective
        if route.subnet:
            self.check_place(route)
            self._check_subnet_scope(content)
        elif content.canister_id != MANAGEMENT:
            if content.canister_id != effective:
                raise _refuse(f"the URL names canister {effective}, the request calls {content.canister_id}")
            self.check_place(route)
        else:
            self._check_management(content, target, route)

    def check_place(self, route: Route) -> None:
        """Raise `Refusal` (400) where the URL's canister or subnet is not this node's."""
        effective = route.effective
        if route.subnet:
            if effective != self._subnet_id:
                raise _refuse(f"subnet {effective} is not here: this node's subnet is {self._subnet_id}")
        elif not effective.is_management and not self._in_ranges(effective):
            raise _refuse(
                f"canister {effective} is not in this node's canister ranges: look for a mistyped id"
            )

    def _in_ranges(self, canister_id: Principal) -> bool:
        return any(low <= canister_id <= high for low, high in self._ranges)

    def _check_subnet_scope(self, content: CallContent | QueryContent) -> None:
        methods = subnet_call_methods if isinstance(content, CallContent) else subnet_query_methods
        if content.canister_id != MANAGEMENT or content.method_name not in methods:
            raise _refuse(
                f"a subnet URL takes only {', '.join(sorted(methods))} of aaaaa-aa: use /api/.../canister/ID"
            )

    def _check_management(
        self, content: CallContent | QueryContent, target: bytes | None, route: Route
    ) -> None:
        if content.method_name in subnet_call_methods or content.method_name in subnet_query_methods:
            # Any principal will do as the place of a canister that does not exist yet.
            return
        self.check_place(route)
        if target is not None and target != route.effective.raw:
            raise _refuse(
                f"{content.method_name} is about canister {Principal(target)}: "
                f"its URL must name that canister, not {route.effective}"
            )


def _refuse(text: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, text)
