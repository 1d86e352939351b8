"""Where roles come from beside the zone's own list: a static list, another canister, or a contract on an
EVM chain. Pure decisions.

What somebody else said is cached for a time, for members and for strangers. When that time is over the
next question asks again. While the provider is down or slow, who was a member stays one and who was none
stays none: an outage neither empties the zone nor opens it.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery import Case, Principal, Service, Variant, method, nat, nat64, record, variant

from .contract import EvmContract, contract_fault
from .roles import ADMIN, NONE

MEMBER_TTL_NS = 3600 * 1_000_000_000
STRANGER_TTL_NS = 60 * 1_000_000_000
OUTAGE_RETRY_NS = 30 * 1_000_000_000


@record
class StaticRole:
    """One line of a static list."""

    principal: Principal
    role: nat


@variant
class ProviderKind(Variant):
    """Nobody beside the zone; a list; a canister whose `get_role : (principal) -> (nat)` is asked; or a
    contract whose `role(address)` is.
    """

    none: Case[None]
    static: Case[list[StaticRole]]
    canister: Case[Principal]
    evm: Case[EvmContract]


@record
class Provider:
    """A role provider and how long its answers hold, for members and for strangers.

    While it does not answer, what is known holds on and it is asked again every `outage_retry_ns`, for at
    most `stale_ns_max` after its last answer, or for ever. It makes nobody more than `role_max`.
    """

    kind: ProviderKind
    member_ttl_ns: nat64
    stranger_ttl_ns: nat64
    outage_retry_ns: nat64
    stale_ns_max: nat64 | None
    role_max: nat


NO_PROVIDER = Provider(ProviderKind.none(), MEMBER_TTL_NS, STRANGER_TTL_NS, OUTAGE_RETRY_NS, None, ADMIN)


@record
class CachedRole:
    """What a provider said: valid until a time; confirmed when it last answered, 0 where it never did."""

    role: nat
    confirmed_ns: nat64
    until_ns: nat64


class RoleSource(Service):
    """What a zone asks of a provider canister; every zone answers it for its members."""

    @method
    def get_role(self, member: Principal) -> nat: ...


@dataclass(frozen=True, slots=True)
class Known:
    """A role that needs no question."""

    role: int


@dataclass(frozen=True, slots=True)
class Ask:
    """A question to send; what is cached holds until the answer, as `meanwhile` says."""

    source: Principal | EvmContract
    meanwhile: CachedRole


def plan_lookup(
    provider: Provider, principal: Principal, cached: CachedRole | None, now_ns: int
) -> Known | Ask:
    """Say what role a principal has by the provider, or whom to ask."""
    kind = provider.kind
    if kind.tag == "none":
        return Known(NONE)
    if kind.tag == "static":
        return Known(capped(provider, static_role(provider, principal)))
    if cached is not None and now_ns < cached.until_ns:
        return Known(cached.role)
    source = kind.evm if kind.tag == "evm" else kind.canister
    return Ask(source, after_silence(provider, cached, now_ns))


def static_role(provider: Provider, principal: Principal) -> int:
    """Return the role of a static list; 0 for whom it lacks, and without such a list."""
    if provider.kind.tag != "static":
        return NONE
    return next((line.role for line in provider.kind.static if line.principal == principal), NONE)


def effective_role(provider: Provider, principal: Principal, cached: CachedRole | None, now_ns: int) -> int:
    """Return the role that holds now, without asking anybody."""
    found = plan_lookup(provider, principal, cached, now_ns)
    return found.role if isinstance(found, Known) else NONE


def after_answer(provider: Provider, role: int, now_ns: int) -> CachedRole:
    """Give what to cache when the provider has answered."""
    role = capped(provider, role)
    ttl_ns = provider.member_ttl_ns if role > NONE else provider.stranger_ttl_ns
    return CachedRole(role, now_ns, now_ns + ttl_ns)


def after_silence(provider: Provider, cached: CachedRole | None, now_ns: int) -> CachedRole:
    """Give what to cache when the provider has not answered (yet): the role that was, for a while more."""
    until_ns = now_ns + provider.outage_retry_ns
    if cached is None:
        return CachedRole(NONE, 0, until_ns)
    is_stale = provider.stale_ns_max is not None and now_ns > cached.confirmed_ns + provider.stale_ns_max
    return CachedRole(NONE if is_stale else cached.role, cached.confirmed_ns, until_ns)


def capped(provider: Provider, role: int) -> int:
    """Bound what a provider says: it makes no owners unless it may."""
    return min(role, provider.role_max)


def provider_fault(provider: Provider) -> str | None:
    """Say what is wrong with a provider's settings, or None."""
    if provider.kind.tag == "static" and len(provider.kind.static) > STATIC_COUNT_MAX:
        return f"a static list has at most {STATIC_COUNT_MAX} lines"
    fault = contract_fault(provider.kind.evm) if provider.kind.tag == "evm" else None
    if fault is not None:
        return fault
    for name, value in (
        ("member_ttl_ns", provider.member_ttl_ns),
        ("stranger_ttl_ns", provider.stranger_ttl_ns),
        ("outage_retry_ns", provider.outage_retry_ns),
    ):
        if not TTL_NS_MIN <= value <= TTL_NS_MAX:
            return f"{name} is between 1 s and 30 days"
    return None


STATIC_COUNT_MAX = 1_000
TTL_NS_MIN = 1_000_000_000
TTL_NS_MAX = 30 * 24 * 3600 * 1_000_000_000
