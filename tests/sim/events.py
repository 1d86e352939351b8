"""The cast of a club: somebody says things, members follow by events, and some are put out."""

from __future__ import annotations

from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from cannery.replica.management import types as t
from tests.events.club import Club
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import modules
from tests.sim.push import Listener, Push
from tests.sim.requests import Request, person
from tests.sim.stage import create, install, operate
from tests.sim.world import World

CYCLES = 10**15
TOPIC = "chat"


class Events:
    """A club, its members, and strangers at its door."""

    def __init__(self, world: World, push: Push) -> None:
        self.world = world
        self.push = push
        self.members = [
            person(f"member_{number} of the club") for number in range(world.chance.randint(1, 3))
        ]
        self.leavers = [
            person(f"leaver_{number} of the club") for number in range(world.chance.randint(0, 2))
        ]
        self.staying = list(self.leavers)
        self.left: dict[Principal, Request] = {}
        self.readers = {world.operator, *self.members, *self.leavers}
        self.said: dict[bytes, Request] = {}
        self.listeners: list[Listener] = []

    def setup(self) -> None:
        """Make the club; who is in it begins to listen."""
        world = self.world
        world.manage_now("cannery_module_add", modules().club)
        self.club = create(world, CYCLES, 1)
        install(world, self.club, modules().club)
        for who in (*self.members, *self.leavers):
            world.call(world.operator, self.club, shape(Club, "join"), who)
            self.listeners.append(Listener(self.push, who, self.club, TOPIC))
        self.stranger = Listener(self.push, person("stranger of the club"), self.club, TOPIC)

    # --- what happens

    def act(self) -> None:
        """Do one thing, by chance."""
        chance = self.world.chance
        draw = chance.random()
        if draw < 0.75:
            self._say("say", TOPIC)
        elif draw < 0.85:
            self.world.send(self.world.operator, self.club, shape(Club, "say_and_break"))
        elif draw < 0.88 and self.staying:
            who = self.staying.pop()
            self.left[who] = self._say("leave_and_say", who)
        elif chance.random() < 4 * self.world.plan.operate_rate:
            operate(self.world, self.club, modules().club)

    def _say(self, name: str, what: object) -> Request:
        text = self.world.secrets.text_among(self.readers)
        request = self.world.send(self.world.operator, self.club, shape(Club, name), what, text)
        self.said[text.encode()] = request
        return request

    # --- what is left

    def settle(self) -> None:
        """Start the club."""
        self.world.manage_now("start_canister", t.CanisterIdRecord(self.club))

    def check(self) -> None:
        """Hold the laws of events. Raises `Broken`."""
        kept, following = self._log()
        self.push.catch_up([each for each in self.listeners if each.who in self.members])
        self._check_said(kept)
        for listener in self.listeners:
            if listener.who not in self.leavers:
                self._check_whole(listener, kept, following)
            elif listener.who in self.left:
                self._check_left(listener)
        if self.stranger.heard:
            raise Broken("no message is visible to a non-member", f"a stranger heard {self.stranger.heard}")
        self._check_same()

    def _log(self) -> tuple[dict[int, bytes], int]:
        """Give the events that the club still keeps, and the number of the next one."""
        values = self.world.machine_of(self.club).store
        data = values.get(keys.owned(keys.ACCOUNTS, self.club.raw))
        assert data is not None
        account = records.ACCOUNT.decode(data)
        pairs = values.pairs(*keys.owned_range(keys.EVENTS, self.club.raw))
        kept = {keys.number_of(key): records.EVENT.decode(value).payload for key, value in pairs}
        return kept, account.event_next

    def _check_whole(self, listener: Listener, kept: dict[int, bytes], following: int) -> None:
        """Each event was heard once, or told as lost; what was heard is what was said."""
        lost = {n for gap in listener.gaps for n in range(gap.first_lost, gap.next)}
        if lost & set(listener.heard):
            raise Broken("a gap is explicit", f"events were heard and told as lost: {lost}")
        if lost | set(listener.heard) != set(range(following)):
            raise Broken("a gap is explicit", f"{sorted(listener.heard)}, gaps {listener.gaps}, {following}")
        for number, payload in kept.items():
            if number in listener.heard and listener.heard[number] != payload:
                raise Broken("one total order", f"event {number} is {payload!r}, heard was another")

    def _check_said(self, kept: dict[int, bytes]) -> None:
        """Nothing was emitted twice, or by a message that came to nothing."""
        heard = dict(kept)
        for listener in self.listeners:
            heard.update(listener.heard)
        if len(set(heard.values())) != len(heard):
            raise Broken("each call runs once", f"an event was emitted twice: {heard}")
        for number, payload in heard.items():
            request = self.said.get(payload)
            if request is None:
                raise Broken("a trap leaves no trace", f"event {number} is {payload!r}, which nobody said")
            if request.state in ("rejected", "refused"):
                raise Broken("a refused request has no effect", f"event {number} is {payload!r}: {request}")
            if request.state == "replied" and request.value != number:
                raise Broken("one total order", f"event {number} was answered as {request.value}")

    def _check_left(self, listener: Listener) -> None:
        """Who was put out hears nothing from the event on that was emitted with it."""
        request = self.left[listener.who]
        if request.state == "replied":
            after = [number for number in listener.heard if number >= request.value]  # type: ignore[operator]
            if after:
                raise Broken("who is put out hears no more", f"{after}, out with event {request.value}")

    def _check_same(self) -> None:
        """Everybody heard the same."""
        known: dict[int, bytes] = {}
        for listener in self.listeners:
            for number, payload in listener.heard.items():
                if known.setdefault(number, payload) != payload:
                    raise Broken("one total order", f"event {number} was {payload!r} and {known[number]!r}")
