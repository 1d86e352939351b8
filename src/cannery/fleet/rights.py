"""Who may use the methods of an index: operators of the node, the index's controllers, and the node itself.

The node asks as the management canister, which no signed request can be from.
"""

from __future__ import annotations

from cannery import Context, Principal

NO_CONTROLLER = "IC0512"
"""The node's error code for a call that only controllers of its canister may make."""


def require_operator(ctx: Context) -> None:
    """Reject a caller who is no operator, no controller of this index and not the node."""
    if not is_operator(ctx):
        ctx.reject(f"{ctx.method_name} is for operators of the node and controllers of this index")


def is_operator(ctx: Context) -> bool:
    """Say whether the caller is an operator, a controller of this index, or the node."""
    caller = ctx.caller
    return caller == Principal.management() or ctx.is_operator(caller) or ctx.is_controller(caller)
