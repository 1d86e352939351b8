"""Shared ownership of a canister, as one component of it: `ownership = SharedOwnership()`.

Owners hold shares and decide by proposals (`ownership_rules` has the rules). What they decide the canister
does itself, being its own controller: it spends, upgrades itself, hands itself over, renounces, or goes. A
proposal that has passed is carried out once: it is marked before anything is sent, and what a lost answer
leaves in the dark stays `unknown`. docs/ownership.md.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    nat,
    nat32,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.calls import Call
from cannery.cdk.component import Component
from cannery.cdk.management import (
    CanisterIdArg,
    CanisterSettings,
    DeleteCanisterArgs,
    InstallMode,
    Management,
    UpdateSettingsArgs,
    install_known,
)
from cannery.fleet.ownership_rules import (
    Motion,
    Rules,
    Share,
    count_votes,
    motion_fault,
    owners_fault,
    rules_fault,
    split,
    verdict,
)
from cannery.fleet.ownership_types import (
    EQUAL,
    NO_LEDGER,
    Due,
    Ledger,
    Ownership,
    Proposal,
    ProposalPage,
    ProposalState,
)
from cannery.limits import (
    OWNER_COUNT_MAX,
    PROPOSAL_KEPT_COUNT_MAX,
    PROPOSAL_LOST_NS,
    PROPOSAL_NOTE_SIZE_CHARS_MAX,
    PROPOSAL_OPEN_COUNT_MAX,
    PROPOSAL_OPEN_PER_OWNER_COUNT_MAX,
    PROPOSAL_PAGE_COUNT_MAX,
)

SECOND_NS = 1_000_000_000


@record
class Founded:
    """A table of owners that waits for the canister to be its own."""

    owners: list[Share]
    rules: Rules


class SharedOwnership(Component, prefix="ownership"):
    """Let owners decide together."""

    shares = StableMap(Principal, nat64, counted=True)
    rules = StableCell(Rules, EQUAL)
    dues = StableMap(Principal, nat)
    ledger = StableCell(Ledger, NO_LEDGER)
    proposals = StableMap(nat64, Proposal)
    waiting = StableSet(nat64, counted=True)
    ended = StableSet(nat64, counted=True)
    next_id = StableCell(nat64, 1)

    # for the author

    def is_owner(self, who: Principal) -> bool:
        """Say whether somebody holds shares."""
        return who in self.shares

    def has_owners(self) -> bool:
        """Say whether anybody does."""
        return len(self.shares) > 0

    # founding

    @update
    def ownership_found(
        self, ctx: Context, owners: list[Share], rules: Rules, keep: list[Principal]
    ) -> Pending[Ownership]:
        """Make owners of these, who decide from now on; for a controller of a canister that is its own.

        The canister's controllers are then itself and `keep`, whom the owners see and must trust.
        """
        if not ctx.is_controller(ctx.caller):
            ctx.reject("ownership_found is for the controllers of this canister")
        if len(self.shares):
            ctx.reject("this canister has owners, who decide: ownership_propose")
        if not ctx.is_controller(ctx.id):
            ctx.reject(f"the canister must control itself: add {ctx.id} to its controllers first")
        table = {each.owner: each.shares for each in owners}
        fault = rules_fault(rules) or (owners_fault(table) if owners else "name an owner")
        if len(table) != len(owners):
            fault = "an owner stands twice"
        if fault is not None:
            ctx.reject(fault)
        call = _control_call(ctx, [ctx.id, *keep])
        return ctx.call(call, then=self.founded, saved=Founded(owners, rules))

    @continuation
    def founded(self, ctx: Context, outcome: Outcome[None], saved: Founded) -> Ownership:
        """Let the owners decide, now that nobody else controls the canister alone."""
        if not outcome.ok:
            ctx.reject(f"the canister keeps its controllers: {outcome.reject_message}")
        if len(self.shares):
            ctx.reject("this canister has got owners meanwhile")
        for each in saved.owners:
            self.shares.put(each.owner, each.shares)
        self.rules.set(saved.rules)
        return self._whole(ctx)

    # looking

    @query
    def ownership(self, ctx: Context) -> Ownership:
        """Return who owns the canister, by which rules; for owners, controllers and operators."""
        self._require_insider(ctx)
        return self._whole(ctx)

    @query
    def ownership_proposal(self, ctx: Context, id: nat64) -> Proposal | None:
        """Return a proposal; for owners, controllers and operators. The last 200 are kept."""
        self._require_insider(ctx)
        proposal = self.proposals.get(id)
        return None if proposal is None else _as_of(proposal, ctx.now_ns)

    @query
    def ownership_proposals(self, ctx: Context, before: nat64 | None, limit: nat32) -> ProposalPage:
        """List proposals, the newest first, from the one before `before`."""
        self._require_insider(ctx)
        limit = max(1, min(limit, PROPOSAL_PAGE_COUNT_MAX))
        page = self.proposals.page(after=before, limit=limit, reverse=True)
        return ProposalPage([_as_of(proposal, ctx.now_ns) for _, proposal in page.items], page.next)

    # deciding

    @update
    def ownership_propose(self, ctx: Context, motion: Motion, note: str) -> Proposal | Pending[Proposal]:
        """Propose something and vote for it; carry it out at once where that is enough."""
        self._require_owner(ctx)
        self._sweep(ctx)
        fault = motion_fault(self._table(), motion, ctx.id)
        if len(note) > PROPOSAL_NOTE_SIZE_CHARS_MAX:
            fault = f"a note has at most {PROPOSAL_NOTE_SIZE_CHARS_MAX} characters"
        if fault is not None:
            ctx.reject(fault)
        waiting = [self.proposals[id] for id in self.waiting]
        if len(waiting) >= PROPOSAL_OPEN_COUNT_MAX:
            ctx.reject(f"{PROPOSAL_OPEN_COUNT_MAX} proposals wait, the most that there can be: decide some")
        if sum(each.by == ctx.caller for each in waiting) >= PROPOSAL_OPEN_PER_OWNER_COUNT_MAX:
            most = PROPOSAL_OPEN_PER_OWNER_COUNT_MAX
            ctx.reject(f"{most} proposals of yours wait, the most that you may have: withdraw some")
        id, now_ns = self.next_id.get(), ctx.now_ns
        self.next_id.set(id + 1)
        expires_ns = now_ns + self.rules.get().life_s * SECOND_NS
        state = ProposalState.open()
        made = Proposal(id, ctx.caller, motion, note, now_ns, expires_ns, [ctx.caller], [], state)
        self.waiting.add(id)
        return self._decide(ctx, made)

    @update
    def ownership_vote(self, ctx: Context, id: nat64, yes: bool) -> Proposal | Pending[Proposal]:
        """Vote for or against a proposal, or otherwise than before; the vote that decides carries it out."""
        self._require_owner(ctx)
        proposal = self._open(ctx, id)
        others_yes = [owner for owner in proposal.yes if owner != ctx.caller]
        others_no = [owner for owner in proposal.no if owner != ctx.caller]
        mine = [ctx.caller]
        voted = replace(
            proposal,
            yes=sorted(others_yes + mine) if yes else others_yes,
            no=others_no if yes else sorted(others_no + mine),
        )
        return self._decide(ctx, voted)

    @update
    def ownership_withdraw(self, ctx: Context, id: nat64) -> Proposal:
        """Withdraw a proposal of one's own."""
        self._require_owner(ctx)
        proposal = self._open(ctx, id)
        if proposal.by != ctx.caller:
            ctx.reject(f"proposal {id} is {proposal.by}'s: vote against it")
        return self._end(proposal, ProposalState.withdrawn())

    def _open(self, ctx: Context, id: int) -> Proposal:
        proposal = self.proposals.get(id)
        if proposal is None:
            ctx.reject(f"there is no proposal {id}, or it is forgotten")
        proposal = _as_of(proposal, ctx.now_ns)
        if proposal.state.tag != "open":
            ctx.reject(f"proposal {id} is {proposal.state.tag}: it cannot be decided any more")
        return proposal

    def _decide(self, ctx: Context, proposal: Proposal) -> Proposal | Pending[Proposal]:
        rules = self.rules.get()
        count = count_votes(self._table(), rules.weigh, proposal.yes, proposal.no)
        match verdict(count, rules.pass_permille):
            case "open":
                self.proposals.put(proposal.id, proposal)
                return proposal
            case "rejected":
                return self._end(proposal, ProposalState.rejected())
            case _:
                return self._carry_out(ctx, proposal)

    # carrying out

    def _carry_out(self, ctx: Context, proposal: Proposal) -> Proposal | Pending[Proposal]:
        """Do what was decided, once: a motion that sends something is marked before."""
        motion = proposal.motion
        fault = motion_fault(self._table(), motion, ctx.id)
        if fault is not None:
            return self._end(proposal, ProposalState.failed(fault))
        match motion.tag:
            case "top_up":
                self._ask_for(motion.top_up)
            case "set_owner":
                self.shares.put(motion.set_owner.owner, motion.set_owner.shares)
            case "remove_owner":
                self._drop(motion.remove_owner)
            case "rules":
                self.rules.set(motion.rules)
            case _:
                return self._send(ctx, proposal)
        return self._end(proposal, ProposalState.done())

    def _send(self, ctx: Context, proposal: Proposal) -> Proposal | Pending[Proposal]:
        cycles = _spending(proposal)
        try:
            pending = ctx.call(
                _call(ctx, proposal.motion), then=self.executed, saved=proposal.id, cycles=cycles
            )
        except Reject as reject:
            return self._end(proposal, ProposalState.failed(reject.message))
        ledger = self.ledger.get()
        self.ledger.set(replace(ledger, spent=ledger.spent + cycles))
        sent = replace(proposal, state=ProposalState.executing(ctx.now_ns))
        self.proposals.put(proposal.id, sent)
        # Nobody answers for a canister that is deleted.
        return sent if proposal.motion.tag == "delete" else pending

    @continuation
    def executed(self, ctx: Context, outcome: Outcome[None], saved: nat64) -> Proposal:
        """Note what came of a motion."""
        proposal = self.proposals.get(saved)
        if proposal is None or proposal.state.tag != "executing":
            ctx.reject(f"the answer to proposal {saved} came after it was given up")
        if not outcome.ok:
            ledger = self.ledger.get()
            self.ledger.set(replace(ledger, spent=ledger.spent - _spending(proposal)))
            return self._end(proposal, ProposalState.failed(outcome.reject_message))
        motion = proposal.motion
        if motion.tag == "hand_over" and ctx.id not in motion.hand_over:
            self._end_ownership()
        return self._end(proposal, ProposalState.done())

    def _end(self, proposal: Proposal, state: ProposalState) -> Proposal:
        """End a proposal; of those that have ended the last ones are kept."""
        ended = replace(proposal, state=state)
        self.waiting.discard(proposal.id)
        self.ended.add(proposal.id)
        self.proposals.put(proposal.id, ended)
        oldest = self.ended.first()
        if oldest is not None and len(self.ended) > PROPOSAL_KEPT_COUNT_MAX:
            self.ended.discard(oldest)
            self.proposals.delete(oldest)
        return ended

    def _end_ownership(self) -> None:
        """Take their shares from all: the canister is somebody else's now."""
        for owner in list(self.shares.keys()):
            self._drop(owner)
        for proposal in [self.proposals[id] for id in self.waiting]:
            if proposal.state.tag == "open":
                self._end(proposal, ProposalState.expired())

    def _sweep(self, ctx: Context) -> None:
        """End what has expired, and give up what lost its answer."""
        for proposal in [_as_of(self.proposals[id], ctx.now_ns) for id in self.waiting]:
            if proposal.state.tag in ("expired", "unknown"):
                self._end(proposal, proposal.state)

    # owners come and go

    @update
    def ownership_give(self, ctx: Context, to: Principal, shares: nat64) -> Ownership:
        """Give shares of one's own to another owner, or to somebody new where the rules let owners do so."""
        self._require_owner(ctx)
        held, rules = self.shares[ctx.caller], self.rules.get()
        if not 0 < shares <= held or to == ctx.caller:
            ctx.reject(f"give 1 to {held} of your shares to somebody else")
        if to not in self.shares and rules.join.tag == "motion":
            ctx.reject("by the rules of this canister a new owner needs a motion: ownership_propose")
        if shares == held and rules.leave.tag == "motion":
            ctx.reject("by the rules of this canister leaving needs a motion: ownership_propose")
        table = {**self._table(), to: self.shares.get(to, 0) + shares, ctx.caller: held - shares}
        fault = owners_fault({owner: count for owner, count in table.items() if count})
        if fault is not None:
            ctx.reject(fault)
        self.shares.put(to, table[to])
        if shares == held:
            self._drop(ctx.caller)
        else:
            self.shares.put(ctx.caller, held - shares)
        return self._whole(ctx)

    @update
    def ownership_leave(self, ctx: Context) -> None:
        """Give up one's shares, where the rules let owners do so; the last owner cannot."""
        self._require_owner(ctx)
        if self.rules.get().leave.tag != "free":
            ctx.reject(f"by the rules of this canister owners leave by {self.rules.get().leave.tag}")
        if len(self.shares) == 1:
            ctx.reject("the last owner cannot leave: hand the canister over, or renounce it")
        self._drop(ctx.caller)

    @update
    def ownership_join(self, ctx: Context, shares: nat64) -> Ownership:
        """Buy shares for the calling canister with the cycles that come with the call, where the rules name a
        price; what is too much goes back.
        """
        rules = self.rules.get()
        if not len(self.shares) or rules.join.tag != "price":
            ctx.reject("nobody joins the owners of this canister by paying")
        cost = shares * rules.join.price
        if not shares or ctx.available < cost:
            ctx.reject(f"{shares} shares cost {cost} cycles, {ctx.available} came: send as many")
        fault = owners_fault({**self._table(), ctx.caller: self.shares.get(ctx.caller, 0) + shares})
        if fault is not None:
            ctx.reject(fault)
        ctx.accept(cost)
        self.shares.put(ctx.caller, self.shares.get(ctx.caller, 0) + shares)
        ledger = self.ledger.get()
        self.ledger.set(replace(ledger, joined=ledger.joined + cost))
        return self._whole(ctx)

    def _drop(self, owner: Principal) -> None:
        self.shares.delete(owner)
        due = self.dues.get(owner, 0)
        if due:
            self.dues.delete(owner)
            ledger = self.ledger.get()
            self.ledger.set(replace(ledger, forgiven=ledger.forgiven + due))

    # top-ups

    def _ask_for(self, cycles: int) -> None:
        for owner, part in split(cycles, self._table(), self.rules.get().split).items():
            if part:
                self.dues.put(owner, self.dues.get(owner, 0) + part)
        ledger = self.ledger.get()
        self.ledger.set(replace(ledger, asked=ledger.asked + cycles))

    @update
    def ownership_pay(self, ctx: Context, owner: Principal) -> nat:
        """Take the cycles that come with the call for what an owner has to pay; return what is left to pay.
        What is too much goes back. Any canister may pay for an owner.
        """
        due = self.dues.get(owner, 0)
        if not due:
            ctx.reject(f"{owner} has nothing to pay here")
        if not ctx.available:
            ctx.reject(f"no cycles came with the call: {owner} has {due} to pay")
        paid = ctx.accept(due)
        if paid == due:
            self.dues.delete(owner)
        else:
            self.dues.put(owner, due - paid)
        ledger = self.ledger.get()
        self.ledger.set(replace(ledger, paid=ledger.paid + paid))
        return due - paid

    # within

    def _table(self) -> dict[Principal, int]:
        return dict(self.shares.items(limit=OWNER_COUNT_MAX))

    def _whole(self, ctx: Context) -> Ownership:
        return Ownership(
            [Share(owner, shares) for owner, shares in self.shares.items(limit=OWNER_COUNT_MAX)],
            self.rules.get(),
            [Due(owner, cycles) for owner, cycles in self.dues.items(limit=OWNER_COUNT_MAX)],
            self.ledger.get(),
            [id for id in self.waiting if _as_of(self.proposals[id], ctx.now_ns).state.tag == "open"],
            ctx.is_controller(ctx.id),
        )

    def _require_owner(self, ctx: Context) -> None:
        if ctx.caller not in self.shares:
            ctx.reject(f"{ctx.method_name} is for owners of this canister")

    def _require_insider(self, ctx: Context) -> None:
        who = ctx.caller
        if who not in self.shares and not (ctx.is_controller(who) or ctx.is_operator(who)):
            ctx.reject(f"{ctx.method_name} is for owners and controllers of this canister and for operators")


def _as_of(proposal: Proposal, now_ns: int) -> Proposal:
    """Return a proposal as it is now: its time may be over, its answer lost."""
    if proposal.state.tag == "open" and now_ns >= proposal.expires_ns:
        return replace(proposal, state=ProposalState.expired())
    if proposal.state.tag == "executing" and now_ns - proposal.state.executing >= PROPOSAL_LOST_NS:
        return replace(proposal, state=ProposalState.unknown())
    return proposal


def _spending(proposal: Proposal) -> int:
    return proposal.motion.spend.cycles if proposal.motion.tag == "spend" else 0


def _control_call(ctx: Context, controllers: list[Principal]) -> Call[None]:
    settings = CanisterSettings(controllers=controllers)
    return Management().update_settings(UpdateSettingsArgs(ctx.id, settings))


def _call(ctx: Context, motion: Motion) -> Call[None]:
    """Return the call that carries a motion out."""
    match motion.tag:
        case "spend":
            return Management().deposit_cycles(CanisterIdArg(motion.spend.to))
        case "upgrade":
            code = motion.upgrade
            mode = InstallMode.upgrade(None)
            return Management().install_chunked_code(install_known(ctx.id, code.module_hash, code.arg, mode))
        case "hand_over":
            return _control_call(ctx, motion.hand_over)
        case "delete":
            return Management().cannery_delete_canister(DeleteCanisterArgs(ctx.id, motion.delete))
        case _:
            assert motion.tag == "renounce", "the others send nothing"
            return _control_call(ctx, [])
