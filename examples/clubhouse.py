"""A clubhouse that its owners share: they decide together what becomes of it."""

from cannery import Canister, Context, Principal, StableLog, nat64, query, record, update
from cannery.fleet.ownership import SharedOwnership


@record
class Visit:
    """Somebody was here."""

    who: Principal
    at_ns: nat64


class Clubhouse(Canister):
    """Sign the guest list; the rest is its owners' business."""

    ownership = SharedOwnership()
    visits = StableLog(Visit)

    @update
    def visit(self, ctx: Context) -> nat64:
        """Sign the guest list, for owners; return the number of the entry."""
        if not self.ownership.is_owner(ctx.caller):
            ctx.reject("the clubhouse is for its owners")
        return self.visits.append(Visit(ctx.caller, ctx.now_ns))

    @query
    def visit_count(self, ctx: Context) -> nat64:
        """Return how many visits there were."""
        return len(self.visits)
