"""The cast of a zone: members who post, read and acknowledge; admins who limit, prune, erase, let in and put
out; strangers who try.

What must hold is in `zone_laws`.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import LogRule, WhenFull, encode_args
from cannery.apps.zones.arrivals import MESSAGES_TOPIC, Arrival
from cannery.apps.zones.diode_types import IdsResult, Message, ZoneInit
from cannery.apps.zones.history import HistoryAsk, HistoryOrder, HistoryPage, HistoryRange
from cannery.apps.zones.retention import RetentionRules
from cannery.apps.zones.roles import Role
from cannery.apps.zones.zone import Zone
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.protocol.principal import Principal
from cannery.replica.management import types as t
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import modules
from tests.sim.push import Listener, Push
from tests.sim.requests import Request, person
from tests.sim.stage import create, install, operate
from tests.sim.world import World
from tests.sim.zone_laws import Walk, check_zone

ROOMY = LogRule(10**6, 10**9, None, WhenFull.prune_oldest())
ALL = HistoryRange.all()
CYCLES = 10**16


class Post:
    """Messages that one request puts into the zone: all or none."""

    def __init__(self, items: list[tuple[bytes, bytes]]) -> None:
        self.items = items
        self.request: Request
        self.ids: list[int] | None = None


class Guest:
    """Somebody who is a member or not; None where an order's end is not known. `acknowledged`: the least id
    that they must have yet to acknowledge.
    """

    def __init__(self, name: str) -> None:
        self.principal = person(name)
        self.is_in: bool | None = False
        self.order: Request | None = None
        self.order_count = 0
        self.acknowledged = 0


class Zones:
    """A zone, and who has to do with it."""

    def __init__(self, world: World, push: Push) -> None:
        self.world = world
        self.push = push
        chance = world.chance
        self.owner = person("owner of the zone")
        self.stranger = person("stranger of the zone")
        self.guests = [Guest(f"guest_{number} of the zone") for number in range(chance.randint(1, 4))]
        self.keys = [(b"topic %d" % number).ljust(41, b".") for number in range(chance.randint(1, 5))]
        self.may_drop = chance.random() < 0.6
        # Whoever was ever let in may know what is in the zone; strangers never.
        self.readers = {self.owner}
        self.posts: list[Post] = []
        self.walks: list[Walk] = []
        self.rules = [ROOMY]
        self.rule: LogRule | None = ROOMY
        self.rule_orders = 0
        self.erased: set[int] = set()

    def setup(self) -> None:
        """Make the zone."""
        world = self.world
        self.zone = create(world, CYCLES, 1)
        world.manage_now("cannery_module_add", modules().zone)
        about = encode_args(ZoneInit("sim", "", "", Principal.management(), None, self.owner))
        install(world, self.zone, modules().zone, about)
        self.listener = Listener(self.push, self.owner, self.zone, MESSAGES_TOPIC)
        self.outsider = Listener(self.push, self.stranger, self.zone, MESSAGES_TOPIC)

    # --- what happens

    def act(self) -> None:
        """Do one thing, by chance."""
        chance = self.world.chance
        draw = chance.random()
        if draw < 0.34:
            self._post()
        elif draw < 0.54:
            self._walk()
        elif draw < 0.62:
            self._acknowledge()
        elif draw < 0.74:
            self._admit()
        elif draw < 0.82:
            self._look()
        elif draw < 0.88:
            self._try_as_a_stranger()
        elif draw < 0.94 and self.may_drop:
            self._drop()
        elif draw < 0.96:
            self._erase()
        elif chance.random() < 4 * self.world.plan.operate_rate:
            operate(self.world, self.zone, modules().zone)

    def member(self) -> Guest | None:
        """Choose a guest who is certainly a member."""
        members = [guest for guest in self.guests if guest.is_in]
        return self.world.chance.choice(members) if members else None

    def _post(self) -> None:
        chance = self.world.chance
        writer = self.owner
        member = self.member()
        if member is not None and chance.random() < 0.7:
            writer = member.principal
        items = []
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            text = self.world.secrets.text_among(self.readers)
            items.append((chance.choice(self.keys), (text * chance.randint(1, 40)).encode()))
        post = Post(items)
        self.posts.append(post)
        post.request = self.world.send(writer, self.zone, shape(Zone, "add_messages"), items)
        post.request.on_end = lambda request: self._posted(post, request)

    def _posted(self, post: Post, request: Request) -> None:
        if request.state != "replied":
            return
        result = request.value
        assert isinstance(result, IdsResult)
        self.world.count("posts" if result.tag == "ok" else "posts that a full zone refused")
        if result.tag != "ok":
            return
        post.ids = list(result.ok)
        if self.world.chance.random() < 0.5:
            for id, item in zip(post.ids, post.items, strict=True):
                self._check_readable(id, item)

    def _check_readable(self, id: int, item: tuple[bytes, bytes]) -> None:
        """What is acknowledged can be read at once, unless it was dropped or erased since."""
        result = self.world.query(self.owner, self.zone, shape(Zone, "get_message_by_id"), id)
        if result is None:
            return
        if result.reject is None:
            found = shape(Zone, "get_message_by_id").decode_results(result.reply)
            assert isinstance(found, Message)
            if (found.key_id, found.ciphertext) != item and id not in self.erased:
                raise Broken("acknowledged implies readable", f"message {id} is {found}, not {item}")
        elif "is not here" in result.reject.message and not self.may_drop:
            raise Broken("acknowledged implies readable", f"message {id}: {result.reject.message}")

    def _walk(self) -> None:
        """Ask for the next page of a history, or for the first of a new one."""
        world, chance = self.world, self.world.chance
        if not self.walks or chance.random() < 0.3:
            reader = self.member()
            who = self.owner if reader is None or chance.random() < 0.3 else reader.principal
            merged = chance.random() < 0.5
            topics = chance.sample(self.keys, chance.randint(1, len(self.keys)))
            order = chance.choice((HistoryOrder.oldest_first(), HistoryOrder.newest_first()))
            size = chance.choice((None, None, 1, 400))
            ask = HistoryAsk(topics, ALL, order, merged, True, chance.randint(1, 6), size, None, None)
            self.walks.append(Walk(who, ask, self._acknowledged(), self.erased))
        self.go_on(chance.choice(self.walks), world.chance.random() < 0.1)

    def go_on(self, walk: Walk, as_stranger: bool = False) -> None:
        """Ask for the next page of a walk."""
        method = shape(Zone, "history")
        who = self.stranger if as_stranger else walk.reader
        result = self.world.query(who, self.zone, method, walk.ask)
        if result is None:
            return
        if as_stranger and result.reject is None:
            raise Broken("no message is visible to a non-member", "a stranger was given a page")
        if result.reject is not None:
            if not as_stranger and "cursor" in result.reject.message:
                raise Broken("a cursor outlives whatever happens", result.reject.message)
            return
        page = method.decode_results(result.reply)
        assert isinstance(page, HistoryPage)
        self.world.count("pages of history")
        walk.take(page)
        if walk.is_over:
            self.walks = [each for each in self.walks if each is not walk]
        else:
            walk.ask = replace(walk.ask, cursor=page.state.more)

    def _acknowledged(self) -> dict[int, tuple[bytes, bytes]]:
        """Give all messages whose ids somebody was told, with topics and texts."""
        found = {}
        for post in self.posts:
            if post.ids is not None:
                found.update(zip(post.ids, post.items, strict=True))
        return found

    def _acknowledge(self) -> None:
        guest = self.member()
        if guest is None:
            return
        through = self.world.chance.randint(0, 2 + max(self._acknowledged(), default=0))
        orders = guest.order_count
        request = self.world.send(guest.principal, self.zone, shape(Zone, "acknowledge"), through)

        def acknowledged(request: Request) -> None:
            # Who was put out and let in again begins anew.
            if request.state == "replied" and guest.order_count == orders:
                assert isinstance(request.value, int)
                guest.acknowledged = max(guest.acknowledged, request.value)

        request.on_end = acknowledged

    # who is in

    def _admit(self) -> None:
        guest = self.world.chance.choice(self.guests)
        if guest.order is not None:
            return
        gives = guest.is_in is False or self.world.chance.random() < 0.4
        args = (guest.principal, Role.member()) if gives else (guest.principal,)
        name = "member_set" if gives else "member_remove"
        if gives:
            self.readers.add(guest.principal)
        else:
            guest.acknowledged = 0
        before, guest.is_in = guest.is_in, None
        guest.order_count += 1
        guest.order = self.world.send(self.owner, self.zone, shape(Zone, name), *args)

        def done(request: Request) -> None:
            guest.order = None
            if request.state == "replied":
                guest.is_in = gives
            elif request.state == "refused":
                guest.is_in = before

        guest.order.on_end = done

    def _look(self) -> None:
        """Read as somebody who is in, or is not any more: who is not is refused."""
        guest = self.world.chance.choice(self.guests)
        is_in = guest.is_in
        for name, args in (("usage", ()), ("get_messages_by_range", (0, 2**32 - 1))):
            result = self.world.query(guest.principal, self.zone, shape(Zone, name), *args)
            if result is None:
                continue
            if is_in is False and result.reject is None:
                raise Broken("no message is visible to a non-member", f"{name} answered one who is out")
            if name == "usage" and result.reject is None:
                self._check_limits(shape(Zone, name).decode_results(result.reply))

    def _check_limits(self, usage: object) -> None:
        rule = self.rule
        if rule is None or rule.when_full.tag != "prune_oldest":
            return
        messages = usage.messages  # type: ignore[attr-defined]
        if messages.count > rule.count_max or messages.size_bytes > rule.bytes_max:
            raise Broken("a zone stays within its limits", f"{messages} under {rule}")

    def _try_as_a_stranger(self) -> None:
        world, chance = self.world, self.world.chance
        name, args = chance.choice(
            (
                ("arrivals", (0, 100, None)),
                ("get_messages_by_range", (0, 100)),
                ("topics_page", (None, 100)),
                ("missing", (None, 100)),
                ("members_page", (None, 100)),
                ("add_messages", ([(self.keys[0], b"of a stranger")],)),
                ("acknowledge", (5,)),
                ("prune", (10**6,)),
                ("erase_message", (1,)),
                ("member_set", (self.stranger, Role.owner())),
                ("set_retention", (RetentionRules(ROOMY, ROOMY, ROOMY),)),
            )
        )
        is_query = name not in ("add_messages", "acknowledge", "prune", "erase_message") and "set" not in name
        if is_query and chance.random() < 0.7:
            result = world.query(self.stranger, self.zone, shape(Zone, name), *args)
            if result is not None and result.reject is None:
                raise Broken("no message is visible to a non-member", f"{name} answered a stranger")
            return

        def answered(request: Request) -> None:
            if request.state == "replied":
                raise Broken("strangers have no say in a zone", f"{name} answered one")

        world.send(self.stranger, self.zone, shape(Zone, name), *args, on_end=answered)

    # what is kept

    def _drop(self) -> None:
        world, chance = self.world, self.world.chance
        if chance.random() < 0.4:
            before = chance.randint(0, 2 + max(self._acknowledged(), default=0))
            world.send(self.owner, self.zone, shape(Zone, "prune"), before)
            return
        rule = LogRule(
            chance.choice((3, 10, 30, 10**6)),
            chance.choice((1_000, 4_000, 10**9)),
            chance.choice((None, None, 20 * 10**9)),
            chance.choice((WhenFull.refuse(), WhenFull.prune_acknowledged(), WhenFull.prune_oldest())),
        )
        self.rule_orders += 1
        orders, self.rule = self.rule_orders, None
        request = world.send(
            self.owner, self.zone, shape(Zone, "set_retention"), RetentionRules(rule, ROOMY, ROOMY)
        )

        def done(request: Request) -> None:
            # Another order that is under way may come after this one.
            if request.state == "replied" and self.rule_orders == orders and self._no_order_is_open(request):
                self.rule = rule

        request.on_end = done

    def _no_order_is_open(self, request: Request) -> bool:
        return not any(
            each.state not in ("replied", "refused")
            for each in self.world.requests
            if each.ingress.method == "set_retention" and each.sender == self.owner and each is not request
        )

    def _erase(self) -> None:
        known = self._acknowledged()
        if known:
            id = self.world.chance.choice(sorted(known))
            self.erased.add(id)
            self.world.send(self.owner, self.zone, shape(Zone, "erase_message"), id)

    # --- what is left

    def settle(self) -> None:
        """Start the zone, and read all histories to their end."""
        world = self.world
        world.manage_now("start_canister", t.CanisterIdRecord(self.zone))
        walks = [walk for walk in self.walks if walk.reader == self.owner]
        for walk in walks:
            while not walk.is_over:
                self.go_on(walk)

    def ask(self, name: str, *args: object, who: Principal | None = None) -> object:
        """Ask the zone as its owner while nothing is broken."""
        result = self.world.query(who or self.owner, self.zone, shape(Zone, name), *args)
        assert result is not None
        if result.reject is not None:
            raise Broken("everything can be read", f"{name}: {result.reject.message}")
        return shape(Zone, name).decode_results(result.reply)

    def arrivals(self) -> list[Arrival]:
        """Give all that the owner hears of, in the order of its arrival."""
        self.push.catch_up([self.listener])
        decode = decoder((type_of(Arrival),))
        return [decode(payload)[0] for _, payload in sorted(self.listener.heard.items())]  # type: ignore[misc]

    def check(self) -> None:
        """Hold the laws of zones. Raises `Broken`."""
        check_zone(self)
