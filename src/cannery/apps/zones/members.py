"""Members of a zone: the zone's own list, invitations, and roles that a provider gives.

The zone's own list comes before the provider. Every method of the zone that reads or writes asks `require`
first. What a provider said is kept here, as `providers` decides.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    nat,
    nat32,
    nat64,
    query,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import Management
from cannery.cdk.outcalls import HttpResult
from cannery.fleet.ownership import SharedOwnership

from . import bounds
from .contract import ASK_CYCLES, EvmContract, address_of, role_answer, role_question
from .key_shelf import KeyShelf
from .lapses import Lapses
from .mailbox import Mailbox
from .member_types import AskCount, Asked, AskedContract, Invitation, MemberEntry, MemberPage
from .providers import (
    NO_PROVIDER,
    Ask,
    CachedRole,
    Provider,
    RoleSource,
    after_answer,
    after_silence,
    effective_role,
    plan_lookup,
    provider_fault,
)
from .refusal import NS_PER_S, refuse
from .roles import ADMIN, LOWEST, NONE, OWNER, Member, Role, name_of, number_of, role_of_number

MINUTE_NS = 60 * NS_PER_S


class Members(Component, prefix="members"):
    """Who belongs to the zone, and as what."""

    people = StableMap(Principal, Member, counted=True)
    owner_count = StableCell(nat32, 0)
    open_invitations = StableMap(bytes, Invitation, counted=True)
    provider = StableCell(Provider, NO_PROVIDER)
    provider_number = StableCell(nat64, 0)
    known = StableMap(Principal, CachedRole, counted=True)
    strangers = StableMap(Principal, CachedRole, counted=True)
    strangers_by_end = StableSet(tuple[nat64, Principal])
    asks = StableCell(AskCount, AskCount(0, 0))
    member_asks = StableCell(AskCount, AskCount(0, 0))
    addresses = StableMap(Principal, bytes)
    mailbox = Uses(Mailbox)
    keys = Uses(KeyShelf)
    ownership = Uses(SharedOwnership)
    lapses = Uses(Lapses)

    # who is who

    def role_of(self, ctx: Context, principal: Principal) -> int:
        """Return the number of the role that somebody has now; 0 for strangers."""
        member = self.people.get(principal)
        role = NONE if member is None else number_of(member.role)
        if role < OWNER and self.ownership.is_owner(principal):
            return OWNER
        if member is not None:
            return role
        provider = self.provider.get()
        if provider.kind.tag == "none":
            return NONE
        self.lapses.beat()
        return effective_role(provider, principal, self.known.get(principal), ctx.now_ns)

    def is_expected(self, ctx: Context, who: Principal) -> bool:
        """Say whether somebody is a member, or was one when the provider last told: who is away for longer
        than its answers hold comes back.
        """
        if self.role_of(ctx, who) > NONE:
            return True
        cached = self.known.get(who)
        return cached is not None and cached.role > NONE

    def require(self, ctx: Context, least: int = LOWEST) -> int:
        """Return the caller's role; refuse whoever has less than `least`."""
        role = self.role_of(ctx, ctx.caller)
        if role >= least:
            return role
        if role > NONE:
            refuse(ctx, f"this needs the role {name_of(least)}, you are {role_of_number(role).tag}")
        if ctx.caller in self.known:
            lapsed = "Not a member of the zone as far as is known: your role must be confirmed again"
            refuse(ctx, f"{lapsed}, call refresh_role", retry_ns=NS_PER_S)
        invited = "ask an admin of it for an invitation"
        if self.provider.get().kind.tag in ("canister", "evm"):
            refuse(
                ctx, f"Not a member of the zone: {invited}, or call refresh_role if you have a role elsewhere"
            )
        return refuse(ctx, f"Not a member of the zone: {invited}")

    def found(self, ctx: Context, owner: Principal) -> None:
        """Make the first owner."""
        self._put(ctx, owner, Role.owner())

    # the zone's own list

    @query
    def my_role(self, ctx: Context) -> nat:
        """Return the caller's role as Diode numbers it; 0 for whoever is no member."""
        return self.role_of(ctx, ctx.caller)

    @query
    def get_role(self, ctx: Context, member: Principal) -> nat:
        """Return somebody's role as Diode numbers it; members ask about all, others about themselves."""
        if ctx.caller != member:
            self.require(ctx)
        return self.role_of(ctx, member)

    @query
    def members_page(self, ctx: Context, after: Principal | None, limit: nat32) -> MemberPage:
        """List the members that the zone itself keeps."""
        self.require(ctx)
        page = self.people.page(after=after, limit=max(1, min(limit, bounds.LIST_COUNT_MAX)))
        log = self.mailbox.messages
        entries = [MemberEntry(who, member, log.acknowledged(who.raw)) for who, member in page.items]
        return MemberPage(entries, page.next)

    @update
    def member_set(self, ctx: Context, who: Principal, role: Role) -> None:
        """Make somebody a member, or change their role; admins do so below themselves, owners for all."""
        self._require_above(ctx, who, number_of(role))
        if who.is_anonymous:
            refuse(ctx, "the anonymous principal cannot be a member: everybody could use it")
        if who not in self.people and len(self.people) >= bounds.MEMBER_COUNT_MAX:
            refuse(ctx, f"the zone has {bounds.MEMBER_COUNT_MAX} members, the most that it keeps")
        if role.tag != "owner" and self._is_last_owner(who):
            refuse(ctx, "the zone needs an owner: make another one first")
        self._put(ctx, who, role)

    @update
    def member_remove(self, ctx: Context, who: Principal) -> bool:
        """Remove a member, or leave; say whether they were one. They can read nothing from here on."""
        if ctx.caller != who:
            self._require_above(ctx, who, NONE)
        if self._is_last_owner(who):
            refuse(ctx, "the zone needs an owner: make another one first")
        member = self.people.get(who)
        if member is None:
            self._forget_gone(ctx, [who])
            return False
        if member.role.tag == "owner":
            self.owner_count.value -= 1
        self.people.delete(who)
        self.mailbox.messages.forget_reader(who.raw)
        self.keys.forget(who)
        return True

    def _require_above(self, ctx: Context, who: Principal, wanted: int) -> None:
        mine = self.require(ctx, ADMIN)
        present = self.people.get(who)
        theirs = NONE if present is None else number_of(present.role)
        if mine < OWNER and max(theirs, wanted) >= mine:
            refuse(ctx, "an admin changes members below admin; owners change everybody")

    def _is_last_owner(self, who: Principal) -> bool:
        """Say whether the zone would be without an owner; those who hold shares of it are owners too."""
        member = self.people.get(who)
        if member is None or member.role.tag != "owner":
            return False
        return self.owner_count.get() == 1 and not self.ownership.has_owners()

    def _put(self, ctx: Context, who: Principal, role: Role) -> None:
        before = self.people.get(who)
        was_owner = before is not None and before.role.tag == "owner"
        self.owner_count.value += (role.tag == "owner") - was_owner
        self.people.put(who, Member(role, ctx.now_ns if before is None else before.since_ns, ctx.caller))
        self.mailbox.messages.add_reader(who.raw)

    # invitations

    @update
    def invite(self, ctx: Context, role: Role, uses: nat32, seconds: nat64) -> bytes:
        """Return a code that makes up to `uses` people members within so many seconds."""
        if not number_of(role) < self.require(ctx, ADMIN):
            refuse(ctx, "an invitation is to a role below your own")
        if not 1 <= uses <= bounds.INVITATION_USE_COUNT_MAX:
            refuse(ctx, f"an invitation has 1 to {bounds.INVITATION_USE_COUNT_MAX} uses, not {uses}")
        if not 1 <= seconds * NS_PER_S <= bounds.INVITATION_NS_MAX:
            refuse(
                ctx, f"an invitation lasts 1 to {bounds.INVITATION_NS_MAX // NS_PER_S} seconds, not {seconds}"
            )
        self._forget_ended(ctx)
        if len(self.open_invitations) >= bounds.INVITATION_COUNT_MAX:
            refuse(
                ctx, f"{bounds.INVITATION_COUNT_MAX} invitations are open, the most there can be: revoke some"
            )
        code = ctx.random_bytes(bounds.INVITATION_CODE_SIZE_BYTES)
        id = sha256(code).digest()
        expires_ns = ctx.now_ns + seconds * NS_PER_S
        self.open_invitations.put(id, Invitation(id, role, uses, expires_ns, ctx.caller))
        return code

    @query
    def invitations(self, ctx: Context) -> list[Invitation]:
        """List the open invitations, for admins."""
        self.require(ctx, ADMIN)
        return [i for i in self.open_invitations.values() if i.expires_ns > ctx.now_ns]

    @update
    def invitation_revoke(self, ctx: Context, id: bytes) -> bool:
        """End an invitation; say whether it was there."""
        self.require(ctx, ADMIN)
        return len(id) == bounds.HASH_SIZE_BYTES and self.open_invitations.delete(id)

    @update
    def join(self, ctx: Context, code: bytes) -> Role:
        """Become a member by an invitation's code; whoever has a higher role keeps it and uses nothing up."""
        id = sha256(code).digest()
        invitation = self.open_invitations.get(id)
        if invitation is None or invitation.expires_ns <= ctx.now_ns:
            refuse(ctx, "this invitation is unknown, used up, revoked or expired: ask for another one")
        if ctx.caller.is_anonymous:
            refuse(ctx, "the anonymous principal cannot be a member: everybody could use it")
        present = self.people.get(ctx.caller)
        if present is not None and number_of(present.role) >= number_of(invitation.role):
            return present.role
        if present is None and len(self.people) >= bounds.MEMBER_COUNT_MAX:
            refuse(ctx, f"the zone has {bounds.MEMBER_COUNT_MAX} members, the most that it keeps")
        if invitation.uses_left == 1:
            self.open_invitations.delete(id)
        else:
            left = invitation.uses_left - 1
            self.open_invitations.put(
                id, Invitation(id, invitation.role, left, invitation.expires_ns, invitation.by)
            )
        self._put(ctx, ctx.caller, invitation.role)
        return invitation.role

    def _forget_ended(self, ctx: Context) -> None:
        for invitation in list(self.open_invitations.values()):
            if invitation.expires_ns <= ctx.now_ns:
                self.open_invitations.delete(invitation.id)

    # the provider

    @query
    def get_provider(self, ctx: Context) -> Provider:
        """Return where roles come from beside the zone's own list."""
        self.require(ctx)
        return self.provider.get()

    @update
    def set_provider(self, ctx: Context, provider: Provider) -> None:
        """Set where roles come from beside the zone's own list; what an earlier one said is forgotten."""
        self.require(ctx, OWNER)
        fault = provider_fault(provider)
        if fault is not None:
            refuse(ctx, fault)
        former = self.provider.get().kind
        before = [line.principal for line in former.static] if former.tag == "static" else []
        before += self.known.keys()
        self.provider.set(provider)
        self.provider_number.value += 1
        self.known.clear()
        self.lapses.ends.clear()
        self.strangers.clear()
        self.strangers_by_end.clear()
        self.addresses.clear()
        if provider.kind.tag == "static":
            for line in provider.kind.static:
                if line.role > NONE:
                    self.mailbox.expect(line.principal.raw)
        if provider.kind.tag in ("none", "static"):
            # Nobody can be asked about them any more.
            self._forget_gone(ctx, before)

    def _forget_gone(self, ctx: Context, people: Iterable[Principal]) -> None:
        """Keep nothing for those who have no role: what they have not acknowledged waits for nobody."""
        for who in people:
            if self.role_of(ctx, who) == NONE:
                self.mailbox.messages.forget_reader(who.raw)
                self.keys.forget(who)

    @update
    def refresh_role(self, ctx: Context) -> nat | Pending[nat]:
        """Ask the provider for the caller's role where what is known has run out; return the role."""
        return self.look_up(ctx, ctx.caller)

    @update
    def update_role(self, ctx: Context, public_key: bytes) -> nat | Pending[nat]:
        """Ask the provider for the role of the owner of a secp256k1 key (65 bytes); return the role."""
        if len(public_key) != bounds.PUBLIC_KEY_SIZE_BYTES:
            refuse(ctx, f"Invalid public key size: {len(public_key)}, not {bounds.PUBLIC_KEY_SIZE_BYTES}")
        who = Principal.self_authenticating(_SECP256K1_DER_HEAD + public_key)
        return self.look_up(ctx, who, public_key)

    def look_up(self, ctx: Context, who: Principal, public_key: bytes | None = None) -> nat | Pending[nat]:
        """Return somebody's role, or the pending question to the provider; a contract knows addresses alone,
        which come from keys.
        """
        member = self.people.get(who)
        if member is not None:
            return number_of(member.role)
        cached = self.known.get(who) or self.strangers.get(who)
        found = plan_lookup(self.provider.get(), who, cached, ctx.now_ns)
        if not isinstance(found, Ask):
            return found.role
        if isinstance(found.source, EvmContract):
            address = self._address_of(ctx, who, public_key)
            self._count_ask(ctx, who)
            self._cache(ctx, who, found.meanwhile)
            saved = AskedContract(who, address, self.provider_number.get())
            return self._ask_contract(ctx, found.source, saved)
        self._count_ask(ctx, who)
        self._cache(ctx, who, found.meanwhile)
        call = RoleSource(found.source).get_role(who)
        return ctx.call(call, then=self.role_came, saved=Asked(who, self.provider_number.get()))

    def _address_of(self, ctx: Context, who: Principal, public_key: bytes | None) -> bytes:
        if public_key is not None:
            return address_of(public_key)
        known = self.addresses.get(who)
        if known is None:
            what = "roles come from a contract, which knows addresses: call update_role with your key"
            refuse(ctx, f"Not a member of the zone as far as is known: {what}")
        return known

    def _ask_contract(self, ctx: Context, contract: EvmContract, asked: AskedContract) -> Pending[nat]:
        question = Management().http_request(role_question(contract, asked.address))
        cycles = min(ctx.balance // 10, ASK_CYCLES)
        return ctx.call(question, then=self.contract_answered, saved=asked, cycles=cycles)

    @continuation
    def contract_answered(self, ctx: Context, outcome: Outcome[HttpResult], saved: AskedContract) -> nat:
        """Take a contract's answer; where there is none, what was known holds on."""
        self._check_asked(ctx, saved.provider)
        if not outcome.ok:
            return self._unanswered(ctx, saved.about, outcome.reject_message)
        number = role_answer(outcome.value.status, outcome.value.body)
        if number is None:
            return self._unanswered(ctx, saved.about, f"no role in its response ({outcome.value.status})")
        role = after_answer(self.provider.get(), number, ctx.now_ns)
        self._cache(ctx, saved.about, role)
        if saved.about in self.known:
            self.addresses.put(saved.about, saved.address)
        return role.role

    @continuation
    def role_came(self, ctx: Context, outcome: Outcome[nat], saved: Asked) -> nat:
        """Take the provider's answer; without one what was known holds on."""
        self._check_asked(ctx, saved.provider)
        if outcome.ok:
            role = after_answer(self.provider.get(), outcome.value, ctx.now_ns)
            self._cache(ctx, saved.about, role)
            return role.role
        return self._unanswered(ctx, saved.about, outcome.reject_message)

    def _check_asked(self, ctx: Context, number: int | None) -> None:
        """Take no answer of a provider that another one has replaced meanwhile."""
        if (number or 0) != self.provider_number.get():
            refuse(ctx, "the zone has got another role provider meanwhile: ask again", retry_ns=NS_PER_S)

    def _unanswered(self, ctx: Context, who: Principal, why: str) -> nat:
        provider, known = self.provider.get(), self.known.get(who)
        retry_ns = provider.outage_retry_ns
        if known is not None and known.until_ns < ctx.now_ns + retry_ns:
            # The pause before it is asked again begins now: a slow one takes longer than that to fail.
            known = after_silence(provider, known, ctx.now_ns)
            self._cache(ctx, who, known)
        if known is not None and known.role > NONE:
            return known.role
        return refuse(ctx, f"the role provider did not answer: {why}", retry_ns=retry_ns)

    def _count_ask(self, ctx: Context, who: Principal) -> None:
        """Bound the questions to the provider: public keys cost nothing, so strangers could make it busy.
        Those whom it has named before have a bound of their own, which no stranger can use up.
        """
        cell = self.member_asks if who in self.known else self.asks
        minute, asks = ctx.now_ns // MINUTE_NS, cell.get()
        count = asks.count + 1 if asks.minute == minute else 1
        if count > bounds.PROVIDER_ASKS_PER_MINUTE_COUNT_MAX:
            most = bounds.PROVIDER_ASKS_PER_MINUTE_COUNT_MAX
            wait_ns = (minute + 1) * MINUTE_NS - ctx.now_ns
            refuse(ctx, f"the role provider is asked at most {most} times a minute", retry_ns=wait_ns)
        cell.set(AskCount(minute, count))

    def _cache(self, ctx: Context, who: Principal, role: CachedRole) -> None:
        old = self.strangers.get(who)
        if old is not None:
            self.strangers.delete(who)
            self.strangers_by_end.discard((old.until_ns, who))
        if role.role > NONE:
            before = self.known.get(who)
            if before is not None or len(self.known) < bounds.KNOWN_ROLE_COUNT_MAX:
                self.lapses.note(ctx, who, before, role)
                self.known.put(who, role)
                self.mailbox.expect(who.raw)
            return
        before = self.known.get(who)
        if before is not None and role.confirmed_ns == before.confirmed_ns:
            # Nobody has said that they are none: what is kept for them waits for the provider's word.
            self.lapses.note(ctx, who, before, role)
            self.known.put(who, role)
            return
        self.lapses.note(ctx, who, before, None)
        self.known.delete(who)
        self.addresses.delete(who)
        self.mailbox.messages.forget_reader(who.raw)
        self.strangers.put(who, role)
        self.strangers_by_end.add((role.until_ns, who))
        if len(self.strangers) > bounds.STRANGER_COUNT_MAX:
            first = self.strangers_by_end.first()
            assert first is not None, "a stranger was just added"
            self.strangers_by_end.discard(first)
            self.strangers.delete(first[1])


# SubjectPublicKeyInfo of an uncompressed secp256k1 point (SEC 1, RFC 5480), up to the point.
_SECP256K1_DER_HEAD = bytes.fromhex("3056301006072a8648ce3d020106052b8104000a034200")
