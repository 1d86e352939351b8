"""Candid types of the methods that upgrade many canisters: `cannery_upgrade_many` and what it answers.

They stand apart from `types`, which holds the specification's. What the methods do is in `upgrade_many`.
"""

from __future__ import annotations

from cannery.candid.python import Case, Variant, field, nat32, nat64, record, variant
from cannery.protocol.principal import Principal


@record
class UpgradeManyArgs:
    """Arguments of `cannery_upgrade_many`.

    `force` leaves the check of the interface out, `skip_pre_upgrade` the running module's hook. `only_from`
    skips canisters on any other module, `active_since_ns` those that have run nothing since.
    """

    module_hash: bytes
    arg: bytes
    targets: list[Principal]
    force: bool
    only_from: bytes | None = None
    active_since_ns: nat64 | None = None
    skip_pre_upgrade: bool | None = None


@record
class Upgraded:
    """The module that a canister came from."""

    from_module: bytes = field(name="from")


@record
class UpgradeFailure:
    """Why a canister is as it was: reject code, text, error code, and the module that it is on."""

    code: nat32
    text: str
    from_module: bytes | None = field(name="from")
    error_code: str | None = None


@variant
class UpgradeOutcome(Variant):
    """What became of one canister."""

    upgraded: Case[Upgraded]
    unchanged: Case[None]
    skipped: Case[str]
    failed: Case[UpgradeFailure]


@record
class UpgradeResult:
    """A target and what became of it."""

    canister_id: Principal
    outcome: UpgradeOutcome
