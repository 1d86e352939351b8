"""Effective ids: does the id in a URL fit the request in its body.

IC interface specification, sections "Effective canister id" and "Effective subnet id". Whether the
canister exists is for its subnet to say.
"""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from cannery.node.gateway.http import Refusal
from cannery.node.gateway.routes import Route
from cannery.protocol.envelope import CallContent, QueryContent
from cannery.protocol.principal import MANAGEMENT, Principal

CanisterRanges = tuple[tuple[Principal, Principal], ...]

# Which canister a management method is about: its id, or None where the method or argument names none.
ManagementTarget = Callable[[str, bytes], bytes | None]

_SUBNET_CALLS = ("create_canister", "provisional_create_canister_with_cycles")
_SUBNET_QUERIES = ("list_canisters",)
_ANYWHERE = frozenset((*_SUBNET_CALLS, *_SUBNET_QUERIES))


class EffectiveIds:
    """Checks effective ids against the subnet that this gateway answers for."""

    __slots__ = ("_management_target", "_ranges", "_subnet_id")

    def __init__(
        self, subnet_id: Principal, ranges: CanisterRanges, management_target: ManagementTarget
    ) -> None:
        self._subnet_id = subnet_id
        self._ranges = ranges
        self._management_target = management_target

    def check(self, content: CallContent | QueryContent, route: Route) -> None:
        """Raise `Refusal` (400) where the URL does not fit the call or query."""
        effective = route.effective
        if route.subnet:
            self.check_place(route)
            self._check_subnet_scope(content)
        elif content.canister_id != MANAGEMENT:
            if content.canister_id != effective:
                raise _refuse(f"the URL names canister {effective}, the request calls {content.canister_id}")
            self.check_place(route)
        else:
            self._check_management(content, route)

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
        methods = _SUBNET_CALLS if isinstance(content, CallContent) else _SUBNET_QUERIES
        if content.canister_id != MANAGEMENT or content.method_name not in methods:
            raise _refuse(
                f"a subnet URL takes {' and '.join(methods)} of aaaaa-aa only: use /api/.../canister/ID"
            )

    def _check_management(self, content: CallContent | QueryContent, route: Route) -> None:
        if content.method_name in _ANYWHERE:
            # Any principal will do as the place of a canister that does not exist yet.
            return
        self.check_place(route)
        target = self._management_target(content.method_name, content.arg)
        if target is not None and target != route.effective.raw:
            raise _refuse(
                f"{content.method_name} is about canister {Principal(target)}: "
                f"its URL must name that canister, not {route.effective}"
            )


def _refuse(text: str) -> Refusal:
    return Refusal(HTTPStatus.BAD_REQUEST, text)
