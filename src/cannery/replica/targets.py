"""What a message may reach: is the canister there, does it run, does its module have the method.

The same rule serves admission, execution and queries. Reject codes and error codes are those of the IC; the
texts say what to do.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.ports import EntryKind
from cannery.replica.cycles import shortage
from cannery.replica.prices import FREE
from cannery.replica.records import AccountRecord, CanisterRecord, CanisterStatus, ModuleRecord
from cannery.replica.view import StateView, show


def require_canister(view: StateView, canister_id: bytes) -> CanisterRecord:
    """Give a canister's record; raises `Reject` where it does not exist, or moved to another id."""
    canister = view.canister(canister_id)
    if canister is None:
        raise Reject(
            RejectCode.DESTINATION_INVALID,
            f"Canister {show(canister_id)} not found: check its id, or whether it was deleted",
            "IC0301",
        )
    if canister.replaced_by:
        raise replaced(canister_id, canister)
    return canister


def replaced(canister_id: bytes, canister: CanisterRecord) -> Reject:
    """Make the reject of a canister that moved to another id."""
    new_id = show(canister.replaced_by)
    text = f"Canister {show(canister_id)} was replaced by {new_id}: call {new_id}"
    return Reject(RejectCode.DESTINATION_INVALID, text, "CNRY0301")


def require_running(canister_id: bytes, canister: CanisterRecord) -> None:
    """Raise `Reject` where a canister is stopped or on its way there."""
    if canister.status is CanisterStatus.RUNNING:
        return
    if canister.status is CanisterStatus.STOPPED:
        text = f"Canister {show(canister_id)} is stopped: a controller can start it again"
        raise Reject(RejectCode.CANISTER_ERROR, text, "IC0508")
    raise Reject(RejectCode.CANISTER_ERROR, f"Canister {show(canister_id)} is stopping", "IC0509")


def require_module(view: StateView, canister_id: bytes, canister: CanisterRecord) -> ModuleRecord:
    """Give a canister's module; raises `Reject` where none is installed."""
    module = None if canister.module_hash is None else view.module(canister.module_hash)
    if module is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(canister_id)} has no wasm module: a controller has to install one",
            "IC0537",
        )
    return module


def require_attached(canister_id: bytes, canister: CanisterRecord, caller: bytes, cycles: int) -> None:
    """Raise `Reject` where another canister's call carries fewer cycles than the callee wants."""
    wanted = canister.settings.minimum_incoming_canister_call_cycles
    if cycles < wanted and caller != canister_id:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(canister_id)} wants {wanted} cycles with a call, this one carries {cycles}",
            "IC0520",
        )


def update_kind(canister_id: bytes, module: ModuleRecord, method: str) -> EntryKind:
    """Give the kind of a method called as an update: UPDATE, or QUERY, which then keeps nothing."""
    kind = module.methods.get(method)
    if kind == EntryKind.UPDATE or kind == EntryKind.QUERY:
        return EntryKind(kind)
    if kind == EntryKind.COMPOSITE_QUERY:
        text = f"Canister {show(canister_id)} has '{method}' as a composite query: call it as a query"
        raise Reject(RejectCode.CANISTER_ERROR, text, "IC0536")
    raise Reject(RejectCode.CANISTER_ERROR, _lacks(canister_id, "update", method), "IC0536")


def query_kind(canister_id: bytes, module: ModuleRecord, method: str) -> EntryKind:
    """Give the kind of a method that is called as a query: QUERY or COMPOSITE_QUERY."""
    kind = module.methods.get(method)
    if kind == EntryKind.QUERY or kind == EntryKind.COMPOSITE_QUERY:
        return EntryKind(kind)
    raise Reject(RejectCode.CANISTER_ERROR, _lacks(canister_id, "query", method), "IC0536")


def require_cycles(
    view: StateView,
    canister_id: bytes,
    canister: CanisterRecord,
    account: AccountRecord,
    now_ns: int,
    fee: int,
) -> None:
    """Raise `Reject` where a canister is frozen or cannot pay a message's fee."""
    config = view.config
    if config.prices == FREE:
        return
    priced_from_ns = view.subnet().priced_from_ns
    lacking = shortage(config, canister, account, now_ns, priced_from_ns, fee)
    if lacking:
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"Canister {show(canister_id)} is out of cycles: please top up the canister with at least "
            f"{lacking} additional cycles. Its state is kept and its queries are answered",
            "IC0207",
        )


def _lacks(canister_id: bytes, kind: str, method: str) -> str:
    shown = method if len(method) <= 100 else method[:100] + "..."
    return f"Canister {show(canister_id)} has no {kind} method '{shown}'"
