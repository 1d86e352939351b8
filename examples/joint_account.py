"""A joint account: cycles that several owners hold together. More than half must approve a payment."""

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableLog,
    StableSet,
    continuation,
    init,
    nat,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.management import CanisterIdArg, Management


@record
class Payment:
    """A proposed payment of cycles to a canister."""

    to: Principal
    amount: nat
    approved_by: list[Principal]
    paid: bool


class JointAccount(Canister):
    """Propose, approve, pay."""

    owners = StableSet(Principal, counted=True)
    payments = StableLog(Payment)

    @init
    def start(self, ctx: Context, owners: list[Principal]) -> None:
        """Open the account for these owners."""
        for owner in owners:
            self.owners.add(owner)

    @update
    def propose(self, ctx: Context, to: Principal, amount: nat) -> nat64:
        """Propose a payment and return its number; proposing is not yet approving."""
        self._owners_only(ctx)
        return self.payments.append(Payment(to, amount, [], False))

    @update
    def approve(self, ctx: Context, number: nat64) -> bool | Pending[bool]:
        """Approve a payment; the approval that makes more than half pays it and answers true."""
        self._owners_only(ctx)
        payment = self.payments.get(number)
        if payment is None or payment.paid:
            ctx.reject(f"there is no open payment {number}")
        approved_by = sorted({*payment.approved_by, ctx.caller})
        pays = 2 * len(approved_by) > len(self.owners)
        if pays and ctx.balance < payment.amount:
            ctx.reject(
                f"{payment.amount} cycles are needed, {ctx.balance} are here; top the account up first"
            )
        self.payments.set(number, Payment(payment.to, payment.amount, approved_by, pays))
        if not pays:
            return False
        deposit = Management().deposit_cycles(CanisterIdArg(payment.to))
        return ctx.call(deposit, then=self.paid, saved=number, cycles=payment.amount)

    @continuation
    def paid(self, ctx: Context, outcome: Outcome[None], saved: nat64) -> bool:
        """Open the payment again where the receiver could not be paid; the cycles have come back."""
        if not outcome.ok:
            payment = self.payments[saved]
            self.payments.set(saved, Payment(payment.to, payment.amount, [], False))
            ctx.reject(f"the payment failed: {outcome.reject_message}")
        return True

    @query
    def balance(self, ctx: Context) -> nat:
        """Return the cycles that the account holds."""
        return ctx.balance

    @query
    def payment(self, ctx: Context, number: nat64) -> Payment | None:
        """Return a payment."""
        return self.payments.get(number)

    def _owners_only(self, ctx: Context) -> None:
        if ctx.caller not in self.owners:
            ctx.reject("only an owner of this account may do this")
