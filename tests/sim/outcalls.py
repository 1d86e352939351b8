"""The cast of an asker and of the world outside, which answers late, fails, or says nothing.

The world outside never gives the same answer twice, so that a question that was performed again shows.
"""

from __future__ import annotations

from cannery.errors import RejectCode
from cannery.node.outcalls import Outcall
from cannery.node.service import Subnet
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.block import OutcallAnswer
from cannery.replica.management import types as t
from tests.sim.asker import OPEN, Asker, Told
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.programs import modules
from tests.sim.requests import Request, person
from tests.sim.stage import create, install, operate
from tests.sim.world import World

CYCLES = 10**16
HOWS = ("get", "get", "get", "post", "shout", "shout", "fall")


class Outcalls:
    """One asker, its client, and whoever performs its requests."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.client = person("client of the asker")
        self.asked: dict[int, Request] = {}
        self.served: dict[int, set[str]] = {}
        self.serial = 0
        self._under_way: list[tuple[Subnet, Outcall]] = []
        self._subnet: Subnet | None = None
        self._given: set[tuple[bytes, int]] = set()
        world.on_turn.append(self.turn)

    def setup(self) -> None:
        """Make the asker."""
        world = self.world
        world.manage_now("cannery_module_add", modules().asker)
        self.asker = create(world, CYCLES, 1)
        install(world, self.asker, modules().asker)

    # --- what happens

    def act(self) -> None:
        """Ask something, or operate on the asker."""
        world, chance = self.world, self.world.chance
        if chance.random() < 0.9:
            tag = len(self.asked)
            how = chance.choice(HOWS)
            self.asked[tag] = world.send(self.client, self.asker, shape(Asker, "ask"), tag, how)
        elif chance.random() < 4 * world.plan.operate_rate:
            operate(world, self.asker, modules().asker, stop=0.3, start=0.4)

    # --- the world outside

    def turn(self) -> None:
        """Take what is to be performed, and answer some of what is under way."""
        machine = self.world.machine_of(getattr(self, "asker", Principal.management()))
        subnet = machine.subnet
        if subnet is None:
            return
        if subnet is not self._subnet:
            # Another process: what was under way has nobody to come back to.
            self._subnet, self._under_way = subnet, []
            self._given.clear()
        if machine.is_up:
            with machine.crashing():
                for outcall in subnet.take_outcalls():
                    self._take(machine.store.synced(_key(outcall)), outcall)
                    self._under_way.append((subnet, outcall))
        for each in list(self._under_way):
            if self.world.is_calm or self.world.chance.random() < 0.4:
                self._under_way.remove(each)
                self._perform(*each)

    def _take(self, synced: bytes | None, outcall: Outcall) -> None:
        if synced is None:
            raise Broken("a request leaves after its round is durable", f"{outcall}")
        name = outcall.canister_id, outcall.callback
        if name in self._given:
            raise Broken("a process performs a request once", f"{outcall}")
        self._given.add(name)

    def _perform(self, subnet: Subnet, outcall: Outcall) -> None:
        chance = self.world.chance
        draw = chance.random()
        self.serial += 1
        self.world.count("requests performed")
        tag = int(outcall.record.target.removeprefix("/"))
        if outcall.record.method == "POST" and outcall.record.body != b"%d" % tag:
            raise Broken("a request leaves as it was made", f"{outcall}")
        if draw < 0.1:
            self._given.discard((outcall.canister_id, outcall.callback))
            subnet.outcalls.give_up(outcall)
        elif draw < 0.2:
            subnet.outcalls.answer(outcall.refused(RejectCode.SYS_TRANSIENT, "the host is down"))
        else:
            text = f"answer {self.serial} to {tag}"
            self.served.setdefault(tag, set()).update((f"200 {text}", f"200 {text.upper()}"))
            answer = OutcallAnswer(outcall.canister_id, outcall.callback, 200, (), text.encode())
            subnet.outcalls.answer(answer)
            if chance.random() < 0.1 and not self.world.is_calm:
                # Performed twice: the second answer is passed over.
                subnet.outcalls.answer(answer)

    # --- what is left

    def settle(self) -> None:
        """Start the asker."""
        self.world.manage_now("start_canister", t.CanisterIdRecord(self.asker))

    def check(self) -> None:
        """Hold the laws of outcalls. Raises `Broken`."""
        result = self.world.query(self.client, self.asker, shape(Asker, "all"))
        assert result is not None
        if result.reject is not None:
            raise Broken("everything can be read", result.reject.message)
        found = shape(Asker, "all").decode_results(result.reply)
        assert isinstance(found, list)
        told: dict[int, Told] = {each.tag: each for each in found}
        for tag, each in told.items():
            if each.answer == OPEN or each.count != 1:
                raise Broken("every call is answered", f"{each}")
            if each.answer.startswith("200") and each.answer not in self.served.get(tag, ()):
                raise Broken("an answer is that of the question", f"{each}, served {self.served.get(tag)}")
        for tag, request in self.asked.items():
            if request.state in ("refused",) and tag in told:
                raise Broken("a refused request has no effect", f"{told[tag]}")
            if request.state == "replied" and (tag not in told or told[tag].answer != request.value):
                raise Broken("acknowledged implies readable", f"{told.get(tag)} was {request.value}")
        if self.world.machine_of(self.asker).store.pairs(*keys.space_range(keys.OUTCALLS)):
            raise Broken("everything comes to its end", "requests are left")


def _key(outcall: Outcall) -> bytes:
    return keys.numbered(keys.OUTCALLS, outcall.canister_id, outcall.callback)
