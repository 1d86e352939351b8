"""Who may do what with the management canister; each rule raises a `Reject` that says why and what to do.

Python canisters are trusted code, so operators (the IC's subnet admins) alone bring modules, and over HTTP
they alone create canisters and mint cycles. A controller manages its canisters; an operator may also start,
stop, uninstall and delete any canister and see its status, as the specification grants subnet admins.
"""

from __future__ import annotations

from typing import Protocol

from cannery.errors import Reject, RejectCode
from cannery.protocol.principal import Principal
from cannery.replica.management.request import Request
from cannery.replica.records import Visibility, VisibilityKind
from cannery.replica.state import MANAGEMENT_ID
from cannery.replica.view import show


class Targeted(Protocol):
    """Arguments that name the canister they are about."""

    @property
    def canister_id(self) -> Principal: ...


def anyone(request: Request, args: object) -> None:
    """Let everybody in."""


def canister_exists(request: Request, args: Targeted) -> None:
    """Let everybody in, for a canister that is there."""
    request.canister(args.canister_id.raw)


def operators(request: Request, _args: object) -> None:
    """Let operators in alone."""
    if not request.state.is_operator(request.caller):
        raise _refused(
            request,
            "Only operators of the node may do this",
            "an operator adds others with `cannery operator add`",
        )


def operators_or_node(request: Request, args: object) -> None:
    """Let operators in, and the node: it asks as the management canister, which no signed request is from."""
    if not (request.from_user and request.caller == MANAGEMENT_ID):
        operators(request, args)


def minting_operators(request: Request, _args: object) -> None:
    """Let operators in alone: cycles are made out of nothing."""
    if not request.state.is_operator(request.caller):
        raise _refused(
            request, "Only operators mint cycles", "ask an operator, or send cycles with deposit_cycles"
        )


def creators(request: Request, _args: object) -> None:
    """Let operators and canisters create canisters; a canister's quota is looked at in the creation."""
    if request.from_user and not request.state.is_operator(request.caller):
        raise _refused(
            request,
            "Over HTTP only operators create canisters",
            "an operator adds others with `cannery operator add`; a canister may create others in its quota",
        )


def canisters_or_operators(request: Request, _args: object) -> None:
    """Let canisters in, and operators; over whom they may decide is asked for each of them."""
    if request.from_user and not request.state.is_operator(request.caller):
        raise _refused(
            request,
            "Over HTTP only operators may do this",
            "ask the canister that controls them, or an operator",
        )


def controllers(request: Request, args: Targeted) -> None:
    """Let the canister's controllers in."""
    check_controller(request, args.canister_id.raw)


def controllers_or_itself(request: Request, args: Targeted) -> None:
    """Let the canister's controllers in, and the canister."""
    if request.caller != args.canister_id.raw:
        check_controller(request, args.canister_id.raw)


def controllers_or_operators(request: Request, args: Targeted) -> None:
    """Let the canister's controllers in, and operators."""
    request.canister(args.canister_id.raw)
    if not request.state.is_operator(request.caller):
        check_controller(request, args.canister_id.raw)


def status_readers(request: Request, args: Targeted) -> None:
    """Let in whom `status_visibility` lets in, the canister itself, and operators."""
    canister_id = args.canister_id.raw
    visibility = request.canister(canister_id).settings.status_visibility
    if request.caller != canister_id and not request.state.is_operator(request.caller):
        _check_visibility(request, canister_id, visibility, "status_visibility")


def log_readers(request: Request, args: Targeted) -> None:
    """Let in whom `log_visibility` lets in, and operators, who look after fleets."""
    canister_id = args.canister_id.raw
    visibility = request.canister(canister_id).settings.log_visibility
    if not request.state.is_operator(request.caller):
        _check_visibility(request, canister_id, visibility, "log_visibility")


def snapshot_readers(request: Request, args: Targeted) -> None:
    """Let in whom `snapshot_visibility` lets in."""
    canister_id = args.canister_id.raw
    visibility = request.canister(canister_id).settings.snapshot_visibility
    _check_visibility(request, canister_id, visibility, "snapshot_visibility")


def check_controller(request: Request, canister_id: bytes) -> None:
    """Raise `Reject` where the caller does not control the canister."""
    controllers = request.canister(canister_id).controllers
    if request.caller not in controllers:
        names = ", ".join(show(c) for c in controllers) or "nobody"
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Only controllers of canister {show(canister_id)} may call {request.method} on it: "
            f"that is {names}, and you are {show(request.caller)}",
            "IC0512",
        )


def _check_visibility(request: Request, canister_id: bytes, visibility: Visibility, setting: str) -> None:
    if visibility.kind is VisibilityKind.PUBLIC:
        return
    if visibility.kind is VisibilityKind.ALLOWED_VIEWERS and request.caller in visibility.viewers:
        return
    if request.caller not in request.canister(canister_id).controllers:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"{show(request.caller)} may not call {request.method} on canister {show(canister_id)}: "
            f"its setting {setting} does not let you in; ask a controller to change it",
            "IC0406",
        )


def _refused(request: Request, rule: str, what_to_do: str) -> Reject:
    return Reject(
        RejectCode.CANISTER_REJECT,
        f"{rule}: {show(request.caller)} is no operator and may not call {request.method}; {what_to_do}",
        "IC0406",
    )
