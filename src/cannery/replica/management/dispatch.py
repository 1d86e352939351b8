"""The front door of the management canister: finds the method, decodes, asks who may, runs it, encodes.

Called by the round for updates of users and canisters, by queries, and by admission before a signed call is
ordered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cannery.errors import Reject, RejectCode
from cannery.replica.management import (
    alarm,
    chunks,
    compare,
    creation,
    empty,
    fleets,
    install,
    modules,
    names,
    operators,
    outcalls,
    replace,
    running,
    snapshot_load,
    snapshot_transfer,
    snapshots,
    status,
    status_many,
    subnets,
    upgrade_many,
    watching,
)
from cannery.replica.management.absent import ABSENT
from cannery.replica.management.methods import Method
from cannery.replica.management.request import Change, Pending, Request
from cannery.replica.management.running import expire_stops, settle_stop
from cannery.replica.records import IngressOrigin, Origin
from cannery.replica.state import MessageOverlay, RoundState
from cannery.replica.view import StateView

__all__ = [
    "METHODS",
    "ManagementCall",
    "Pending",
    "Rejected",
    "Replied",
    "admit_management",
    "check_management",
    "execute_management",
    "expire_stops",
    "query_management",
    "settle_stop",
]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: method
        for group in (
            creation,
            install,
            empty,
            running,
            chunks,
            compare,
            snapshots,
            snapshot_load,
            snapshot_transfer,
            status,
            status_many,
            subnets,
            alarm,
            modules,
            names,
            operators,
            outcalls,
            replace,
            fleets,
            watching,
            upgrade_many,
        )
        for method in group.METHODS
    }
)


@dataclass(frozen=True, slots=True)
class ManagementCall:
    """A call of the management canister; the attached cycles are off the caller's balance already."""

    caller: bytes
    method: str
    arg: bytes
    cycles: int
    origin: Origin


@dataclass(frozen=True, slots=True)
class Replied:
    """The call succeeded; `refund` goes back to the caller."""

    data: bytes
    refund: int


@dataclass(frozen=True, slots=True)
class Rejected:
    """The call failed and leaves no trace; all cycles go back."""

    code: int
    text: str
    error_code: str | None


def execute_management(message: MessageOverlay, call: ManagementCall) -> Replied | Rejected | Pending:
    """Run a call on a message's overlay, which is dropped where the answer is a reject."""
    from_user = isinstance(call.origin, IngressOrigin)
    try:
        method = _find(call.method)
        if method.update is None:
            raise _not_so(method, "is a query: an update call cannot call it")
        if from_user and not method.from_users:
            raise _not_so(method, "is for canisters: it cannot be called over HTTP")
        request = Request(
            call.method,
            call.caller,
            from_user,
            message.state.time_ns,
            message.state.view.config,
            message,
            message.layer,
        )
        args = method.decode(call.arg)
        method.check(request, args)
        change = Change(request, message, call.origin, call.cycles)
        result = method.update(change, args)
    except Reject as reject:
        return Rejected(reject.code, reject.message, reject.error_code)
    if isinstance(result, Pending):
        return result
    return Replied(method.encode(result), change.cycles)


def check_management(state: RoundState, call: ManagementCall) -> None:
    """Raise `Reject` where the caller may not make a call as a whole."""
    from_user = isinstance(call.origin, IngressOrigin)
    message = MessageOverlay(state)
    method = _find(call.method)
    view = state.view
    request = Request(call.method, call.caller, from_user, state.time_ns, view.config, message, message.layer)
    method.check(request, method.decode(call.arg))


def query_management(
    view: StateView, caller: bytes, method: str, arg: bytes, now_ns: int, from_canister: bool
) -> bytes:
    """Answer a query; raises `Reject`."""
    found = _find(method)
    if found.query is None:
        raise _not_so(found, "cannot be called as a query")
    request = Request(method, caller, not from_canister, now_ns, view.config, view, view.reader)
    args = found.decode(arg)
    found.check(request, args)
    return found.encode(found.query(request, args))


def admit_management(view: StateView, sender: bytes, method: str, arg: bytes) -> None:
    """Check a signed update before it is ordered; raises `Reject`. Whether it succeeds, its round decides."""
    found = _find(method)
    if found.update is None:
        raise _not_so(found, "is a query: an update call cannot call it")
    if not found.from_users:
        raise _not_so(found, "is for canisters: it cannot be called over HTTP")
    request = Request(method, sender, True, 0, view.config, view, view.reader)
    found.check(request, found.decode(arg))


def _find(name: str) -> Method:
    method = METHODS.get(name)
    if method is not None:
        return method
    reason = ABSENT.get(name)
    if reason is not None:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"The management canister of this node lacks {name}: {reason}",
            "IC0406",
        )
    raise Reject(RejectCode.CANISTER_ERROR, f"The management canister has no method {name!r:.200}", "IC0536")


def _not_so(method: Method, text: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, f"{method.name} {text}", "IC0406")
