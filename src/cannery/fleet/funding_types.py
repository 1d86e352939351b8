"""What the funding of a fleet keeps and tells: policy, top-ups, what is known of each child's cycles."""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat, nat64, record, variant
from cannery.fleet.top_up import Refused, TopUpRule
from cannery.fleet.top_up_burn import Reading
from cannery.fleet.top_up_quota import NO_BOOKS, Books, Quota


@record
class FundingPolicy:
    """What holds for all kinds: the least that is sent at a time, what the index keeps for itself, and the
    balance of its own under which it raises an alarm (0: where it has nothing left to give).
    """

    request_min: nat
    reserve: nat
    battery_alarm: nat


NO_POLICY = FundingPolicy(0, 0, 0)


@variant
class Cause(Variant):
    """What brought a top-up about: the census, the node's notice, a child's request, an operator's order."""

    census: Case[None]
    notice: Case[None]
    request: Case[None]
    order: Case[None]


@variant
class TopUpEnd(Variant):
    """How far a top-up is. `unknown`: its answer was lost; it counts as given."""

    sent: Case[None]
    done: Case[None]
    came_back: Case[str]
    unknown: Case[None]


@record
class TopUp:
    """A top-up in a child's history. `balance` is what the child had when it was decided, where that was
    seen.
    """

    at_ns: nat64
    cycles: nat
    cause: Cause
    balance: nat | None
    end: TopUpEnd


@record
class Booking:
    """A top-up under way, booked and not answered: what to release where it comes back."""

    canister: Principal
    cycles: nat
    at_ns: nat64
    fleet_slice_ns: nat64
    child_slice_ns: nat64


@record
class Waiting:
    """A top-up that is put off, as many are under way."""

    cycles: nat
    cause: Cause
    balance: nat | None


@record
class ChildFunds:
    """What is kept of a child: its balance and burn when it was looked at, earlier burns, the alarm that the
    node has, its books, the booking under way, and its last top-ups, the oldest first.
    """

    balance: nat
    freezing_limit: nat
    seen: Reading | None
    readings: list[Reading]
    alarm_cycles: nat64
    is_low: bool
    books: Books
    booking: nat64 | None
    history: list[TopUp]


NO_FUNDS = ChildFunds(0, 0, None, [], 0, False, NO_BOOKS, None, [])


@record
class AlarmOrder:
    """An alarm that the node is asked to set for children."""

    cycles: nat64
    targets: list[Principal]


@variant
class QuotaScope(Variant):
    """Whom a quota is for: the fleet in all, each child of a kind, one child."""

    fleet: Case[None]
    kind: Case[str]
    child: Case[Principal]


@variant
class FundingResult(Variant):
    """Whether a setting was taken."""

    ok: Case[None]
    err: Case[str]


@variant
class TopUpResult(Variant):
    """What became of a request: the cycles that arrived, why there are none, or what went wrong."""

    ok: Case[nat]
    refused: Case[Refused]
    failed: Case[str]


@record
class KindFunding:
    """What holds for the children of a kind."""

    kind: str
    rule: TopUpRule | None
    quota: Quota | None


@record
class FundingReport:
    """The money of a fleet at a glance.

    `battery` is the index's own balance, `spendable` what it can give of it; `allowance` what the fleet's
    quota lets through now (None: anything). `granted` counts all top-ups, those under way too;
    `battery_left_ns` is how long `spendable` lasts at `granted_per_day`.
    """

    policy: FundingPolicy
    kinds: list[KindFunding]
    fleet_quota: Quota
    allowance: nat | None
    battery: nat
    spendable: nat
    is_battery_low: bool
    granted: nat
    granted_per_day: nat | None
    battery_left_ns: nat64 | None
    on_the_way: nat64
    waiting: nat64


@record
class ChildFunding:
    """The money of a child as it was last noted; `line` is the balance under which it is due, `left_ns` how
    long it takes at its burn until it is frozen.
    """

    canister: Principal
    kind: str
    balance: nat
    seen_ns: nat64
    burned_per_day: nat | None
    left_ns: nat64 | None
    line: nat | None
    quota: Quota
    allowance: nat | None
    granted: nat
    on_the_way: bool
    history: list[TopUp]
