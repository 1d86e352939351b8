"""Hooks of a module: init, pre_upgrade, post_upgrade and the health query, run inside a management message.

They write into that message's overlay, which is committed or dropped whole: a failed upgrade leaves nothing
behind. Hooks answer nobody and call nobody. IC interface specification, "IC method install_code".
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.ports import EntryKind
from cannery.replica.activation import Activation
from cannery.replica.block import message_identity
from cannery.replica.cycles import burn, message_fee, work_cost
from cannery.replica.logs import append_log
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show


def run_hook(
    message: MessageOverlay,
    canister_id: bytes,
    kind: EntryKind,
    module_hash: bytes,
    schema_id: bytes,
    arg: bytes,
    caller: bytes,
) -> None:
    """Run a hook of a canister's module; raises `Reject` with the text of its trap.

    What ended a process once is known by its module too, so that a mended one may try at once. The canister's
    account must be in the overlay. The whole message is to be dropped where this raises.
    """
    state, program = message.state, message.program(module_hash)
    account = message.account(canister_id)
    assert account is not None, "hooks run in canisters that are there"
    runner = state.runner
    activation = Activation(
        message, account, canister_id, schema_id, kind, "", arg, caller, ordinal=runner.ordinal + 1
    )
    identity = b""
    if runner.needs_identity:
        identity = message_identity(kind, caller, canister_id, "", arg, module_hash)
    failure = runner.run(program, activation, identity, state.view.config.hook_cpu_ns_max)
    state.events.activations += 1
    if failure is not None:
        if failure.measured:
            state.events.verdicts += 1
        raise Reject(RejectCode(failure.code), f"{failure.text} (in {kind.name.lower()})", failure.error_code)
    state.note_work(activation.touched, activation.bytes_moved)
    prices = state.view.config.prices
    cost = message_fee(prices, len(arg)) + work_cost(prices, activation.bytes_moved, activation.touched)
    if burn(message, canister_id, cost) < cost:
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"Canister {show(canister_id)} is out of cycles: its {kind.name.lower()} costs {cost}. Top it up",
            "IC0207",
        )
    for line in activation.lines or ():
        append_log(message, canister_id, line)
