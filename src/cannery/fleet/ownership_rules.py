"""Shared ownership, its rules: who weighs how much, when a motion passes, how a sum is split. Pure.

Owners hold shares. A motion passes once owners with enough weight are for it, by head or by share, and has
failed once so many are against it that it cannot pass any more. Weights are those that owners have when they
are counted: whoever has left counts no more, and shares that change hands count once. A split has no
remainder: its parts are the sum, to the unit.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from cannery.candid.python import Case, Variant, nat, nat16, nat32, nat64, record, variant
from cannery.limits import (
    CONTROLLER_COUNT_MAX,
    CYCLES_MINTED_MAX,
    OWNER_COUNT_MAX,
    OWNER_SHARE_COUNT_MAX,
    PROPOSAL_LIFE_S_MAX,
    PROPOSAL_LIFE_S_MIN,
    UPGRADE_ARG_SIZE_BYTES_MAX,
)
from cannery.protocol.principal import Principal

HASH_SIZE_BYTES = 32
PASS_PERMILLE_MIN = 501
PERMILLE = 1_000


@record
class Share:
    """An owner and their shares."""

    owner: Principal
    shares: nat64


@variant
class Weigh(Variant):
    """Whose votes count how much: every owner the same, or by their shares."""

    head: Case[None]
    share: Case[None]


@variant
class Split(Variant):
    """How owners part a top-up."""

    evenly: Case[None]
    by_share: Case[None]


@variant
class Join(Variant):
    """How somebody becomes an owner: by a motion alone; also where an owner gives them shares; also for so
    many cycles a share, which go to the canister.
    """

    motion: Case[None]
    gift: Case[None]
    price: Case[nat]


@variant
class Leave(Variant):
    """How an owner leaves: freely, their shares are gone; by giving all their shares to others; by a motion
    alone.
    """

    free: Case[None]
    gift: Case[None]
    motion: Case[None]


@record
class Rules:
    """What owners have agreed on. `pass_permille` of the weight passes a motion, within `life_s` seconds."""

    weigh: Weigh
    pass_permille: nat16
    life_s: nat32
    split: Split
    join: Join
    leave: Leave


@record
class Spending:
    """Cycles for a canister."""

    to: Principal
    cycles: nat


@record
class NewCode:
    """A module that the node has, and the argument of its `post_upgrade`."""

    module_hash: bytes
    arg: bytes


@variant
class Motion(Variant):
    """What owners may decide.

    `spend` the canister's cycles; ask owners for a `top_up`, split as the rules say; give somebody shares
    (`set_owner`), a new owner or an old one; `remove_owner`; other `rules`; `upgrade` the canister; `delete`
    it, its cycles go to a canister if one is named; `hand_over` control to others, the canister itself
    among them or not; `renounce` control, for good.
    """

    spend: Case[Spending]
    top_up: Case[nat]
    set_owner: Case[Share]
    remove_owner: Case[Principal]
    rules: Case[Rules]
    upgrade: Case[NewCode]
    delete: Case[Principal | None]
    hand_over: Case[list[Principal]]
    renounce: Case[None]


Owners = Mapping[Principal, int]
Verdict = Literal["open", "passed", "rejected"]


@dataclass(frozen=True, slots=True)
class Count:
    """The weight for and against a motion, out of all."""

    yes: int
    no: int
    total: int


def count_votes(owners: Owners, weigh: Weigh, yes: Collection[Principal], no: Collection[Principal]) -> Count:
    """Count votes by the weights that owners have now; votes of others do not count."""
    weights = {owner: 1 if weigh.tag == "head" else shares for owner, shares in owners.items()}
    return Count(
        sum(weights.get(owner, 0) for owner in yes),
        sum(weights.get(owner, 0) for owner in no),
        sum(weights.values()),
    )


def verdict(count: Count, pass_permille: int) -> Verdict:
    """Say whether a motion has passed, cannot pass any more, or neither."""
    if count.total and count.yes * PERMILLE >= count.total * pass_permille:
        return "passed"
    if (count.total - count.no) * PERMILLE < count.total * pass_permille:
        return "rejected"
    return "open"


def split(cycles: int, owners: Owners, how: Split) -> dict[Principal, int]:
    """Part a sum among owners; what cannot be parted goes to the first ones, a unit each."""
    weights = {owner: 1 if how.tag == "evenly" else owners[owner] for owner in sorted(owners)}
    total = sum(weights.values())
    parts = {owner: cycles * weight // total for owner, weight in weights.items()}
    left = cycles - sum(parts.values())
    for owner in list(parts)[:left]:
        parts[owner] += 1
    return parts


# --- what is wrong with something --------------------------------------------------------------------------


def rules_fault(rules: Rules) -> str | None:
    """Say what is wrong with rules, or None."""
    if not PASS_PERMILLE_MIN <= rules.pass_permille <= PERMILLE:
        return f"a motion passes with {PASS_PERMILLE_MIN} to {PERMILLE} permille, not {rules.pass_permille}"
    if not PROPOSAL_LIFE_S_MIN <= rules.life_s <= PROPOSAL_LIFE_S_MAX:
        return f"a proposal lives {PROPOSAL_LIFE_S_MIN} to {PROPOSAL_LIFE_S_MAX} seconds, not {rules.life_s}"
    if rules.join.tag == "price" and not 0 < rules.join.price <= CYCLES_MINTED_MAX:
        return f"a share costs 1 to {CYCLES_MINTED_MAX} cycles, not {rules.join.price}"
    return None


def owners_fault(owners: Owners) -> str | None:
    """Say what is wrong with a table of owners, or None."""
    if not 1 <= len(owners) <= OWNER_COUNT_MAX:
        return f"there are 1 to {OWNER_COUNT_MAX} owners, not {len(owners)}"
    if Principal.anonymous() in owners:
        return "the anonymous principal cannot own anything: everybody could use it"
    if min(owners.values()) < 1 or sum(owners.values()) > OWNER_SHARE_COUNT_MAX:
        return f"each owner has a share at least, all together {OWNER_SHARE_COUNT_MAX} at most"
    return None


def motion_fault(owners: Owners, motion: Motion, canister: Principal) -> str | None:
    """Say why a motion could not be carried out as things stand, or None."""
    match motion.tag:
        case "spend" if not 0 < motion.spend.cycles <= CYCLES_MINTED_MAX:
            return f"spend 1 to {CYCLES_MINTED_MAX} cycles, not {motion.spend.cycles}"
        case "spend" if motion.spend.to == canister:
            return "the canister cannot spend cycles on itself"
        case "top_up" if not 0 < motion.top_up <= CYCLES_MINTED_MAX:
            return f"a top-up has 1 to {CYCLES_MINTED_MAX} cycles, not {motion.top_up}"
        case "set_owner":
            return owners_fault({**owners, motion.set_owner.owner: motion.set_owner.shares})
        case "remove_owner" if motion.remove_owner not in owners:
            return f"{motion.remove_owner} is no owner"
        case "remove_owner" if len(owners) == 1:
            return "the last owner cannot be removed: hand the canister over, or renounce it"
        case "rules":
            return rules_fault(motion.rules)
        case "upgrade" if len(motion.upgrade.module_hash) != HASH_SIZE_BYTES:
            return f"a module's hash has {HASH_SIZE_BYTES} bytes, not {len(motion.upgrade.module_hash)}"
        case "upgrade" if len(motion.upgrade.arg) > UPGRADE_ARG_SIZE_BYTES_MAX:
            return f"an argument has at most {UPGRADE_ARG_SIZE_BYTES_MAX} bytes"
        case "delete" if motion.delete == canister:
            return "a canister that is deleted cannot get its own cycles"
        case "hand_over" if not 1 <= len(motion.hand_over) <= CONTROLLER_COUNT_MAX:
            return f"name 1 to {CONTROLLER_COUNT_MAX} controllers, or renounce"
        case _:
            return None
