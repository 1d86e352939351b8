"""What shared ownership keeps and tells: proposals, the books of top-ups, the whole at a glance."""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat, nat64, record, variant
from cannery.fleet.ownership_rules import Join, Leave, Motion, Rules, Share, Split, Weigh


@variant
class ProposalState(Variant):
    """Where a proposal stands. `executing` since a time; `failed`: passed, but it could not be carried out;
    `unknown`: what came of it was lost with a forced stop, and it is not tried again.
    """

    open: Case[None]
    executing: Case[nat64]
    done: Case[None]
    failed: Case[str]
    rejected: Case[None]
    expired: Case[None]
    withdrawn: Case[None]
    unknown: Case[None]


@record
class Proposal:
    """A motion that somebody has made, who is for it and who against."""

    id: nat64
    by: Principal
    motion: Motion
    note: str
    made_ns: nat64
    expires_ns: nat64
    yes: list[Principal]
    no: list[Principal]
    state: ProposalState


@record
class ProposalPage:
    """Proposals, the newest first; `next` goes into `before` for the page that follows."""

    proposals: list[Proposal]
    next: nat64 | None


@record
class Ledger:
    """Cycles in all that owners were asked for, have paid, and need not pay any more as they have left; that
    were paid for shares; and that were spent, what is on its way included.
    """

    asked: nat
    paid: nat
    forgiven: nat
    joined: nat
    spent: nat


@record
class Due:
    """What an owner has still to pay."""

    owner: Principal
    cycles: nat


@record
class Ownership:
    """Who owns a canister. `controls_itself`: it can carry motions about its code and control out."""

    owners: list[Share]
    rules: Rules
    dues: list[Due]
    ledger: Ledger
    open_proposals: list[nat64]
    controls_itself: bool


NO_LEDGER = Ledger(0, 0, 0, 0, 0)
DAY_S = 86_400
EQUAL = Rules(Weigh.head(), 501, 7 * DAY_S, Split.evenly(), Join.motion(), Leave.free())
"""Rules to begin with: more than half of the heads, a week, even parts."""
