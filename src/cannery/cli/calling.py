"""Calling any method of any canister with Candid text, with its interface or without."""

from __future__ import annotations

from cannery.candid.did import Interface
from cannery.candid.types import Func
from cannery.cli.candid_arguments import decode_text, read_arguments
from cannery.cli.problem import Problem
from cannery.cli.session import Session
from cannery.client.actor import effective_target, interface_of, unknown_method
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.interface import management_interface


def call_method(
    session: Session, canister_id: Principal, method: str, text: str, *, as_query: bool
) -> tuple[str, list[object]]:
    """Call a method and return its results as Candid text and as values.

    With an interface, arguments are checked against it; without one, their types follow from the text. A
    composite query can only be asked as a query.
    """
    func = _method(session, canister_id, method)
    arguments = read_arguments(text, None if func is None else func.args, method)
    effective = effective_target(canister_id, arguments.values)
    asks = as_query or (func is not None and "composite_query" in func.modes)
    ask = session.agent.query if asks else session.agent.call
    reply = ask(canister_id, method, arguments.encoded, effective=effective)
    return decode_text(reply, func)


def _method(session: Session, canister_id: Principal, method: str) -> Func | None:
    """Find a method in the canister's interface; None where the canister publishes none."""
    if canister_id == MANAGEMENT:
        return _find(management_interface(), method)
    section = session.agent.metadata(canister_id)
    if section is None:
        return None
    return _find(interface_of(canister_id, section), method)


def _find(interface: Interface, method: str) -> Func:
    func = interface.methods.get(method)
    if func is None:
        raise Problem(unknown_method(method, interface.methods))
    return func
