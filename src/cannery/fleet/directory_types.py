"""What the directory of a fleet keeps and tells: children, filters, pages, counts."""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat16, nat32, nat64, record, variant


@variant
class ChildState(Variant):
    """Where a child stands: in use, being emptied or deleted, under its owner's own control, or moved to
    another canister."""

    active: Case[None]
    leaving: Case[None]
    in_custody: Case[None]
    replaced: Case[Principal]


@record
class Child:
    """A canister of the fleet. `number` is its place in the order of creation; `version` the release it runs,
    0 where that is not known."""

    canister: Principal
    kind: str
    owner: Principal
    number: nat64
    created_ns: nat64
    version: nat64
    state: ChildState


@record
class Replacement:
    """The release that a child's new canister is to have, and since when it is being made."""

    version: nat64
    since_ns: nat64


@record
class ChildFilter:
    """Which children a page holds; what is None does not matter."""

    kind: str | None = None
    version: nat64 | None = None
    state: str | None = None
    created_from_ns: nat64 | None = None
    created_before_ns: nat64 | None = None
    active_since_ns: nat64 | None = None


@record
class ChildPage:
    """Children in the order of creation; `next` goes into `after` for the page that follows. A page may be
    empty and have a `next`: it has looked at as many children as one page may."""

    items: list[Child]
    next: nat64 | None


@record
class ChildCount:
    """How many children of a kind stand somewhere with a version."""

    kind: str
    state: str
    version: nat64
    count: nat64


@record
class PoolRule:
    """How many prepared canisters there should be, and the cycles that each gets."""

    target: nat32
    cycles: nat64


@record
class FleetStatus:
    """The directory at a glance."""

    children: nat64
    counts: list[ChildCount]
    pool: nat32
    pool_target: nat32
    making: nat32
    leaving: nat32
    alarms_open: nat32


@variant
class LeaveResult(Variant):
    """Whether a child is on its way out."""

    ok: Case[None]
    unknown: Case[str]
    busy: Case[str]


@record
class Release:
    """A version of a kind's code."""

    kind: str
    version: nat64
    module_hash: bytes


@record
class Leaving:
    """A child on its way out: to the pool, or deleted; the step it is at, and since when."""

    recycle: bool
    step: nat16
    tries: nat32
    since_ns: nat64
    sent_ns: nat64
