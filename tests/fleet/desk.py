"""A fleet whose index lists where groups are: a desk with drawers of papers, each person's in one drawer."""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Canister,
    Context,
    Pending,
    Principal,
    Service,
    StableMap,
    encode_args,
    init,
    method,
    nat64,
    query,
    record,
    same_fleet,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.management import SubnetChoice
from cannery.fleet.index import Index
from cannery.fleet.member import Member
from cannery.fleet.place import Place
from cannery.fleet.place_holding import Holding
from cannery.fleet.place_types import Held, Load, PlaceRule
from cannery.fleet.placement import (
    BalancedLoad,
    FillFirst,
    Forward,
    Group,
    LastNode,
    Need,
    ScaleRule,
    Serve,
    SpawnRule,
    is_free_below,
    is_under,
)

POLICIES = (FillFirst(), BalancedLoad(), LastNode())


@record
class Answer:
    """What became of a request (`kept`, `moved`, `full`), who said so, and whom to ask."""

    tag: str
    by: Principal
    to: Principal | None
    text: str | None


@record
class Paper:
    """A paper on its way."""

    name: str
    text: str


@record
class Pile:
    """All papers of a person."""

    papers: list[Paper]


class Sister(Service):
    """A drawer, as others see it."""

    @method
    def put_for(self, person: str, paper: str, text: str | None) -> Answer: ...


class Drawer(Canister):
    """Papers of people."""

    member = Member()
    holding = Holding()
    papers = StableMap(tuple[str, str], str, counted=True)
    counts = StableMap(str, nat64)

    @init
    def start(self, ctx: Context, held: Held) -> None:
        self.holding.start(held)

    @update
    def put(self, ctx: Context, person: str, paper: str, text: str | None) -> Answer | Pending[Answer]:
        """Keep a paper, or throw it away."""
        return self._put(ctx, person, paper, text, is_forwarded=False)

    @update(only=same_fleet)
    def put_for(self, ctx: Context, person: str, paper: str, text: str | None) -> Answer | Pending[Answer]:
        return self._put(ctx, person, paper, text, is_forwarded=True)

    def _put(
        self, ctx: Context, person: str, paper: str, text: str | None, *, is_forwarded: bool
    ) -> Answer | Pending[Answer]:
        group = person.encode()
        route = self.holding.route(ctx, group, is_forwarded=is_forwarded)
        if isinstance(route, Forward):
            return ctx.call(Sister(route.to).put_for(person, paper, text))
        if not isinstance(route, Serve):
            return Answer("moved", ctx.id, route.to, None)
        count, is_new = self.counts.get(person, 0), self.papers.get((person, paper)) is None
        if text is not None and is_new and len(self.papers) >= _slots(ctx):
            if count:
                self.holding.want_room(ctx, group, Need(1, count))
            else:
                self.holding.note_gone(ctx, group)
                self.holding.tell(ctx)
            return Answer("full", ctx.id, None, None)
        if text is not None:
            self.papers.put((person, paper), text)
            self.counts.put(person, count + is_new)
        elif not is_new:
            self.papers.delete((person, paper))
            self._count_down(ctx, person, count)
        self.holding.note_change(ctx)
        return Answer("kept", ctx.id, None, text)

    def _count_down(self, ctx: Context, person: str, count: int) -> None:
        if count > 1:
            self.counts.put(person, count - 1)
        else:
            self.counts.delete(person)
            self.holding.note_gone(ctx, person.encode())

    @query
    def get(self, ctx: Context, person: str, paper: str) -> Answer:
        route = self.holding.route(ctx, person.encode())
        if not isinstance(route, Serve):
            return Answer("moved", ctx.id, route.to, None)
        return Answer("kept", ctx.id, None, self.papers.get((person, paper)))

    @query
    def people(self, ctx: Context) -> list[str]:
        return [person for person, _ in self.counts.items()]

    def place_load(self, ctx: Context) -> Load:
        return Load(_slots(ctx), len(self.papers), 0, 0)

    def place_groups(self, after: bytes | None) -> Iterator[Group]:
        start = None if after is None else after.decode() + "\x00"
        for person, count in self.counts.items(start=start):
            yield Group(person.encode(), count, 10 * count)

    def place_pack(self, name: bytes) -> bytes:
        return encode_args(
            Pile([Paper(key[1], text) for key, text in self.papers.items(prefix=(name.decode(),))])
        )

    def place_unpack(self, ctx: Context, name: bytes, data: bytes) -> None:
        (pile,) = decoder((type_of(Pile),))(data)
        assert isinstance(pile, Pile)
        for paper in pile.papers:
            self.papers.put((name.decode(), paper.name), paper.text)
        self.counts.put(name.decode(), len(pile.papers))

    def place_drop(self, ctx: Context, name: bytes) -> None:
        for key in list(self.papers.keys(prefix=(name.decode(),))):
            self.papers.delete(key)
        self.counts.delete(name.decode())

    def place_is_settled(self) -> bool:
        return True


class Desk(Canister):
    """The index: says who has whose papers."""

    fleet = Index()
    place = Place()

    @query
    def where(self, ctx: Context, person: str) -> Principal | None:
        return self.place.where(person.encode())

    @update
    def give(self, ctx: Context, person: str) -> Principal | Pending[Principal | None] | None:
        return self.place.give(ctx, person.encode())

    @query
    def buckets(self, ctx: Context) -> list[Principal]:
        return list(self.place.buckets())

    def place_rule(self, ctx: Context) -> PlaceRule:
        scale = ScaleRule(
            grow=is_free_below(int(ctx.fleet_value("free") or 3)),
            shrink=is_under(300),
            hold_ns=int(ctx.fleet_value("hold_ns") or 10**9),
            pause_ns=5 * 10**9,
            child_count_max=50,
        )
        name = ctx.fleet_value("policy") or "FillFirst"
        policy = next((policy for policy in POLICIES if type(policy).__name__ == name), None)
        spawn = SpawnRule(0, _slots(ctx), child_count_max=50)
        return PlaceRule("drawer", scale, spawn, subnet=SubnetChoice.any(), policy=policy)

    def place_arg(self, ctx: Context, held: Held) -> bytes:
        return encode_args(held)


def _slots(ctx: Context) -> int:
    return int(ctx.fleet_value("slots") or 10)
