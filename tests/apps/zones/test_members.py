"""Members: roles and what each may, invitations, and role providers that answer, lie, are slow or down."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Call, Canister, Context, Pending, Principal, StableCell, StableMap, nat, query, update
from cannery.apps.zones.providers import (
    NO_PROVIDER,
    CachedRole,
    Known,
    Provider,
    ProviderKind,
    StaticRole,
    after_answer,
    after_silence,
    effective_role,
    plan_lookup,
)
from cannery.apps.zones.roles import Role, number_of, role_of_number
from cannery.protocol.identity import Secp256k1Identity
from cannery.testing import Rejected
from tests.apps.zones.world import ZoneWorld, ask_for, key_of

HOUR_S = 3_600


def test_numbers_are_diodes() -> None:
    roles = [Role.reader(), Role.member(), Role.moderator(), Role.admin(), Role.owner()]
    assert [number_of(role) for role in roles] == [200, 300, 350, 400, 500]
    assert [role_of_number(n).tag for n in (1, 100, 299, 300, 399, 400, 500, 10**9)] == (
        ["reader"] * 3 + ["member", "moderator", "admin", "owner", "owner"]
    )


def test_each_role_may_what_it_may(world: ZoneWorld) -> None:
    people = {
        tag: world.join(tag, getattr(Role, tag)()) for tag in ("reader", "member", "moderator", "admin")
    }
    world.post("a", "hi")
    deeds: list[tuple[str, Any]] = [
        ("reader", lambda zone: zone.history(ask_for("a"))),
        ("member", lambda zone: zone.add_message(key_of("a"), b"x")),
        ("moderator", lambda zone: zone.erase_message(1)),
        ("admin", lambda zone: zone.invite(Role.reader(), 1, 60)),
        ("owner", lambda zone: zone.set_provider(NO_PROVIDER)),
    ]
    order = ["reader", "member", "moderator", "admin", "owner"]
    for least, deed in deeds:
        for tag, zone in {**people, "owner": world.as_("ann")}.items():
            if order.index(tag) >= order.index(least):
                deed(zone)
            else:
                with pytest.raises(Rejected, match=f"this needs the role {least}, you are {tag}"):
                    deed(zone)


def test_admins_change_those_below_them_and_owners_everybody(world: ZoneWorld) -> None:
    bob, dan = world.join("bob", Role.admin()), world.node.principal("dan")
    bob.member_set(dan, Role.moderator())
    for act in (
        lambda: bob.member_set(dan, Role.admin()),
        lambda: bob.member_remove(world.node.principal("ann")),
        lambda: bob.member_set(world.node.principal("bob"), Role.owner()),
    ):
        with pytest.raises(Rejected, match="an admin changes members below admin"):
            act()
    with pytest.raises(Rejected, match="a role below your own"):
        bob.invite(Role.admin(), 1, 60)
    ann = world.as_("ann")
    for act in (
        lambda: ann.member_remove(world.node.principal("ann")),
        lambda: ann.member_set(world.node.principal("ann"), Role.admin()),
    ):
        with pytest.raises(Rejected, match="the zone needs an owner"):
            act()
    ann.member_set(dan, Role.owner())
    assert ann.member_remove(world.node.principal("ann"))
    assert world.as_("ann").my_role() == 0
    with pytest.raises(Rejected, match="anonymous"):
        world.as_("dan").member_set(Principal.anonymous(), Role.reader())


def test_members_are_listed_in_pages_and_leave(world: ZoneWorld) -> None:
    for name in ("bob", "cid", "dan"):
        world.join(name)
    first = world.as_("bob").members_page(None, 3)
    rest = world.as_("bob").members_page(first.next, 3)
    found = {entry.principal: entry.member.role.tag for entry in first.members + rest.members}
    people = {world.node.principal(n): "member" for n in ("bob", "cid", "dan")}
    assert found == {**people, world.node.principal("ann"): "owner"}
    assert world.as_("bob").member_remove(world.node.principal("bob"))
    with pytest.raises(Rejected):
        world.as_("bob").members_page(None, 3)


def test_invitations_end_by_use_by_time_and_by_hand(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    code = ann.invite(Role.member(), 2, 60)
    assert world.as_("bob").join(code).tag == "member"
    assert world.as_("bob").join(code).tag == "member", "who is one already uses nothing up"
    assert [i.uses_left for i in ann.invitations()] == [1]
    world.as_("cid").join(code)
    unknown = "unknown, used up, revoked or expired"
    with pytest.raises(Rejected, match=unknown):
        world.as_("dan").join(code)
    code = ann.invite(Role.reader(), 5, 60)
    world.node.advance(seconds=61)
    with pytest.raises(Rejected, match=unknown):
        world.as_("dan").join(code)
    assert ann.invitations() == []
    code = ann.invite(Role.reader(), 5, 60)
    assert ann.invitation_revoke(ann.invitations()[0].id)
    with pytest.raises(Rejected, match=unknown):
        world.as_("dan").join(code)
    code = ann.invite(Role.reader(), 5, 60)
    assert world.as_("bob").join(code).tag == "member", "an invitation to less takes nothing away"
    with pytest.raises(Rejected, match="anonymous"):
        world.as_(Principal.anonymous()).join(code)
    for uses, seconds in ((0, 60), (10_001, 60), (1, 0), (1, 366 * 24 * HOUR_S)):
        with pytest.raises(Rejected, match=r"an invitation (has|lasts) 1 to"):
            ann.invite(Role.reader(), uses, seconds)
    assert code not in [i.id for i in ann.invitations()], "the code is nowhere to be read"


# providers


class Source(Canister):
    """A role provider that answers, traps, lies, or keeps the question."""

    roles = StableMap(Principal, nat)
    mood = StableCell(str, "well")
    asked = StableCell(nat, 0)

    @update
    def tell(self, ctx: Context, who: Principal, role: nat) -> None:
        self.roles.put(who, role)

    @update
    def feel(self, ctx: Context, mood: str) -> None:
        self.mood.set(mood)

    @query
    def count(self, ctx: Context) -> nat:
        return self.asked.get()

    @update
    def get_role(self, ctx: Context, member: Principal) -> nat | Pending[nat]:
        self.asked.value += 1
        if self.mood.get() == "down":
            ctx.reject("down for maintenance")
        if self.mood.get() == "slow":
            return ctx.call(Call.of(Principal.management(), "raw_rand", (), types=[]))
        return self.roles.get(member, 0)


def by_canister(source: Principal, **changes: Any) -> Provider:
    fields: dict[str, Any] = {
        "kind": ProviderKind.canister(source),
        "member_ttl_ns": HOUR_S * 10**9,
        "stranger_ttl_ns": 60 * 10**9,
        "outage_retry_ns": 30 * 10**9,
        "stale_ns_max": None,
        "role_max": 400,
    }
    return Provider(**{**fields, **changes})


@pytest.fixture
def sourced(world: ZoneWorld) -> tuple[ZoneWorld, Any]:
    source = world.node.install(Source)
    world.as_("ann").set_provider(by_canister(source.id))
    return world, source


def test_a_static_list_gives_roles(world: ZoneWorld) -> None:
    bob = world.node.principal("bob")
    kind = ProviderKind.static([StaticRole(bob, 300), StaticRole(world.node.principal("ann"), 1)])
    world.as_("ann").set_provider(Provider(kind, *NO_PROVIDER_TTLS, None, 400))
    assert world.as_("bob").my_role() == 300
    assert world.as_("ann").my_role() == 500, "the zone's own list comes first"
    assert world.as_("bob").add_message(key_of("a"), b"hi").tag == "ok"
    world.as_("ann").set_provider(NO_PROVIDER)
    assert world.as_("bob").my_role() == 0


NO_PROVIDER_TTLS = (HOUR_S * 10**9, 60 * 10**9, 30 * 10**9)


def test_another_canister_gives_roles_for_a_time(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    bob = world.as_("bob")
    source.tell(world.node.principal("bob"), 300)
    assert bob.my_role() == 0
    with pytest.raises(
        Rejected, match=r"Not a member of the zone: .* or call refresh_role if you have a role"
    ):
        bob.get_message_count()
    assert bob.refresh_role() == 300
    assert bob.add_message(key_of("a"), b"hi").tag == "ok"
    asked = source.count()
    assert bob.refresh_role() == 300
    assert source.count() == asked, "what is known is not asked again"
    source.tell(world.node.principal("bob"), 0)
    world.node.advance(seconds=HOUR_S - 1)
    assert bob.my_role() == 300
    world.node.advance(seconds=2)
    with pytest.raises(Rejected, match="call refresh_role; retry after 1 s"):
        bob.get_message_by_id(1)
    assert bob.refresh_role() == 0
    with pytest.raises(Rejected, match="Not a member of the zone"):
        bob.get_message_by_id(1)
    source.tell(world.node.principal("bob"), 200)
    assert bob.refresh_role() == 0, "that somebody is a stranger holds for a time too"
    world.node.advance(seconds=61)
    assert bob.refresh_role() == 200


def test_an_outage_neither_empties_the_zone_nor_opens_it(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    bob, eve = world.as_("bob"), world.as_("eve")
    source.tell(world.node.principal("bob"), 300)
    bob.refresh_role()
    world.post("a", "hi")
    source.feel("down")
    world.node.advance(seconds=2 * HOUR_S)
    assert bob.refresh_role() == 300
    assert bob.get_message_by_id(1).id == 1
    with pytest.raises(
        Rejected, match="the role provider did not answer: down for maintenance; retry after 30 s"
    ):
        eve.refresh_role()
    assert eve.my_role() == 0
    world.node.advance(seconds=31)
    assert bob.refresh_role() == 300, "the outage goes on, and so does the role"
    source.feel("well")
    source.tell(world.node.principal("bob"), 0)
    world.node.advance(seconds=31)
    assert bob.refresh_role() == 0, "when it is over, what was taken away is gone"


def test_a_provider_that_is_slow_or_lies_is_an_outage(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    bob = world.as_("bob")
    source.tell(world.node.principal("bob"), 300)
    bob.refresh_role()
    world.node.advance(seconds=HOUR_S + 1)
    source.feel("slow")
    # raw_rand's reply is a blob and no number: a lie, as far as the zone can see.
    assert bob.refresh_role() == 300
    source.feel("well")
    source.tell(world.node.principal("bob"), 10**30)
    world.node.advance(seconds=31)
    assert bob.refresh_role() == 400, "a provider makes no owners"


def test_a_provider_that_is_gone_is_an_outage(world: ZoneWorld) -> None:
    world.as_("ann").set_provider(by_canister(world.node.principal("nowhere")))
    with pytest.raises(Rejected, match=r"the role provider did not answer: .*retry after 30 s"):
        world.as_("bob").refresh_role()
    assert world.as_("ann").my_role() == 500


def test_strangers_cannot_make_the_provider_busy(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    for i in range(120):
        assert world.as_(f"stranger {i}").refresh_role() == 0
    with pytest.raises(Rejected, match=r"asked at most 120 times a minute; retry after [0-9]+ s"):
        world.as_("one more").refresh_role()
    world.node.advance(seconds=60)
    assert world.as_("one more").refresh_role() == 0
    assert source.count() == 121


def test_strangers_cannot_keep_members_from_having_their_role_confirmed(
    sourced: tuple[ZoneWorld, Any],
) -> None:
    world, source = sourced
    source.tell(world.node.principal("bob"), 300)
    assert world.as_("bob").refresh_role() == 300
    world.node.advance(seconds=HOUR_S + 1)
    for i in range(200):
        try:
            world.as_(f"stranger {i}").refresh_role()
        except Rejected:
            break
    else:
        raise AssertionError("strangers are not bounded")
    assert world.as_("bob").refresh_role() == 300


def test_diodes_update_role_looks_up_the_owner_of_a_key(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    identity = Secp256k1Identity(bytes([7]) * 32)
    public_key = identity.public_key_der[-65:]
    source.tell(identity.principal, 300)
    assert world.as_("anybody").update_role(public_key) == 300
    assert world.as_(identity).my_role() == 300
    assert world.as_("ann").get_role(identity.principal) == 300


def test_a_zone_can_ask_another_zone(world: ZoneWorld) -> None:
    parent = world.zone
    world.join("bob", Role.moderator())
    child = world.new_zone("cid")
    parent.as_("ann").member_set(child.id, Role.reader())
    child.as_("cid").set_provider(by_canister(parent.id))
    assert child.as_("bob").refresh_role() == 350


def test_settings_of_a_provider_are_bounded(world: ZoneWorld) -> None:
    with pytest.raises(Rejected, match="member_ttl_ns is between 1 s and 30 days"):
        world.as_("ann").set_provider(by_canister(Principal.management(), member_ttl_ns=1))


times = st.integers(0, 10**6)


@given(
    role=st.integers(0, 600), confirmed=times, until=times, now=times, stale=st.none() | times, answer=times
)
def test_the_cache_keeps_its_word(
    role: int, confirmed: int, until: int, now: int, stale: int | None, answer: int
) -> None:
    """Known until its time; after an answer what was answered; after silence what was, unless it is stale."""
    provider = by_canister(
        Principal.management(), member_ttl_ns=100, stranger_ttl_ns=10, outage_retry_ns=5, stale_ns_max=stale
    )
    cached, who = CachedRole(role, confirmed, until), Principal.anonymous()
    found = plan_lookup(provider, who, cached, now)
    assert isinstance(found, Known) == (now < until)
    assert effective_role(provider, who, cached, now) == (role if now < until else 0)
    silent = after_silence(provider, cached, now)
    is_stale = stale is not None and now > confirmed + stale
    assert silent == CachedRole(0 if is_stale else role, confirmed, now + 5)
    assert after_silence(provider, None, now).role == 0
    said = after_answer(provider, answer, now)
    assert said.role == min(answer, 400)
    assert said.until_ns == now + (100 if answer else 10)


def test_another_provider_knows_nothing_of_what_the_former_one_said(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    source.tell(world.node.principal("bob"), 300)
    assert world.as_("bob").refresh_role() == 300
    world.as_("ann").set_provider(by_canister(world.node.install(Source).id))
    assert world.as_("bob").my_role() == 0
    assert world.as_("bob").refresh_role() == 0


def test_nothing_waits_for_whoever_has_gone(world: ZoneWorld) -> None:
    world.join("bob")
    world.post("a", "hi")
    assert len(world.as_("ann").missing(None, 9).members) == 2
    world.as_("bob").member_remove(world.node.principal("bob"))
    assert [m.member for m in world.as_("ann").missing(None, 9).members] == [world.node.principal("ann")]


def test_nothing_waits_for_whoever_a_list_names_no_more(world: ZoneWorld) -> None:
    """A zone that drops what all have acknowledged must not wait for those who cannot read it."""
    bob, ann = world.node.principal("bob"), world.as_("ann")
    nobody = Provider(ProviderKind.static([]), *NO_PROVIDER_TTLS, None, 400)
    for id, after in enumerate((NO_PROVIDER, nobody), 1):
        ann.set_provider(Provider(ProviderKind.static([StaticRole(bob, 200)]), *NO_PROVIDER_TTLS, None, 400))
        assert world.as_("bob").acknowledge(0) == id
        world.post("a", f"hi {id}")
        ann.acknowledge(id)
        assert ann.usage().acknowledged_by_all == id
        ann.set_provider(after)
        assert ann.usage().acknowledged_by_all == id + 1


def test_an_admin_ends_the_wait_for_somebody_whose_role_has_run_out(
    sourced: tuple[ZoneWorld, Any],
) -> None:
    world, source = sourced
    bob, ann = world.node.principal("bob"), world.as_("ann")
    source.tell(bob, 300)
    world.as_("bob").refresh_role()
    world.as_("bob").acknowledge(0)
    assert not ann.member_remove(bob)
    assert [m.member for m in ann.missing(None, 9).members if m.member == bob] == [bob], "he is one still"
    world.node.advance(seconds=HOUR_S + 1)
    assert not ann.member_remove(bob), "the zone itself has no such member"
    assert [m.member for m in ann.missing(None, 9).members] == [world.node.principal("ann")]


def test_what_a_member_has_yet_to_read_waits_while_an_old_role_is_confirmed(world: ZoneWorld) -> None:
    source = world.node.install(Source)
    bob, ann = world.node.principal("bob"), world.as_("ann")
    ann.set_provider(by_canister(source.id, stale_ns_max=2 * HOUR_S * 10**9))
    source.tell(bob, 300)
    world.as_("bob").refresh_role()
    world.as_("bob").acknowledge(0)
    world.post("a", "hi")
    ann.acknowledge(1)
    world.node.advance(seconds=3 * HOUR_S)
    source.feel("down")
    with pytest.raises(Rejected, match="the role provider did not answer"):
        world.as_("bob").refresh_role()
    assert world.as_("bob").my_role() == 0, "an answer that old counts no more"
    assert ann.usage().acknowledged_by_all == 1, "and nobody has said that he is none"
    source.feel("well")
    world.node.advance(seconds=31)
    assert world.as_("bob").refresh_role() == 300
    assert ann.usage().acknowledged_by_all == 1
    source.tell(bob, 0)
    world.node.advance(seconds=HOUR_S + 1)
    assert world.as_("bob").refresh_role() == 0
    assert ann.usage().acknowledged_by_all == 2


def test_whoever_a_provider_names_is_waited_for_from_then_on(sourced: tuple[ZoneWorld, Any]) -> None:
    world, source = sourced
    ann, bob = world.as_("ann"), world.node.principal("bob")
    ann.member_set(world.node.principal("cid"), Role.reader())
    world.post("a", "before bob")
    source.tell(bob, 200)
    world.as_("bob").refresh_role()
    world.post("a", "one", "two", "three")
    assert {m.member: (m.first, m.count) for m in ann.missing(None, 9).members}[bob] == (2, 3)
    assert world.as_("bob").acknowledge(2) == 3, "what bob has not named is not acknowledged"
    world.node.advance(seconds=HOUR_S + 1)
    source.tell(bob, 0)
    world.as_("bob").refresh_role()
    assert bob not in [m.member for m in ann.missing(None, 9).members]


def test_whoever_a_list_names_is_waited_for_from_then_on(world: ZoneWorld) -> None:
    ann, bob, eve = world.as_("ann"), world.node.principal("bob"), world.node.principal("eve")
    kind = ProviderKind.static([StaticRole(bob, 200), StaticRole(eve, 0)])
    world.post("a", "before bob")
    ann.set_provider(Provider(kind, *NO_PROVIDER_TTLS, None, 400))
    world.post("a", "one", "two")
    assert {m.member: m.first for m in ann.missing(None, 9).members} == {
        world.node.principal("ann"): 1,
        bob: 2,
    }
    assert world.as_("bob").acknowledge(2) == 3


def test_a_member_whose_role_has_run_out_reads_what_to_do_on_writing_too(
    sourced: tuple[ZoneWorld, Any],
) -> None:
    world, source = sourced
    source.tell(world.node.principal("bob"), 300)
    world.as_("bob").refresh_role()
    world.node.advance(seconds=HOUR_S + 1)
    with pytest.raises(Rejected, match="call refresh_role; retry after 1 s"):
        world.as_("bob").add_message(key_of("a"), b"hi")
