"""Two subnets in memory whose streams a test carries over, late, again and again, or with gaps."""

from __future__ import annotations

from cannery.replica import keys, records
from cannery.replica.block import PriceSchedule, ReplicaConfig, StreamAck, StreamSlice
from cannery.replica.places import make_route
from cannery.replica.records import StreamHead, SubnetRecord
from tests.replica.world import OPERATOR, World

IDS = (b"\x71" * 28 + b"\x02", b"\x72" * 28 + b"\x02")
ROUTES = tuple(make_route(number, subnet_id) for number, subnet_id in enumerate(IDS))


class Subnets:
    """Two worlds, and the way between them."""

    def __init__(self, prices: PriceSchedule | None = None) -> None:
        self.worlds = tuple(
            World(
                ReplicaConfig(
                    subnet=number,
                    operators=(OPERATOR,),
                    routes=ROUTES,
                    prices=prices or PriceSchedule(),
                )
            )
            for number in range(2)
        )
        for world in self.worlds:
            # Not where the management canister gives its first ids.
            world._counter += 0x100000
        self.settle()

    def head(self, at: int, other: int) -> StreamHead:
        data = self.worlds[at].store.get(keys.stream_head_key(other))
        return StreamHead() if data is None else records.STREAM_HEAD.decode(data)

    def slice(self, sender: int, first: int, count: int = 1000) -> StreamSlice:
        """Give part of a subnet's stream to the other one, as it stands in its store."""
        world, to = self.worlds[sender], 1 - sender
        first = max(first, self.head(sender, to).first)
        found = world.store.scan(keys.stream_key(to, first), keys.stream_key(to, first + count))
        return StreamSlice(
            sender, first, tuple(data for _, data in found), self.subnet(sender).canister_count
        )

    def carry(self, sender: int, first: int | None = None, count: int = 1000) -> None:
        """Bring messages over; without `first`, those that come next."""
        to = 1 - sender
        start = self.head(to, sender).received if first is None else first
        self.worlds[to].round(self.slice(sender, start, count))

    def acknowledge(self, receiver: int) -> None:
        """Tell a subnet's other what it has received."""
        sender = 1 - receiver
        self.worlds[sender].round(StreamAck(receiver, self.head(receiver, sender).received))

    def settle(self, limit: int = 200) -> None:
        """Carry and execute until nothing is under way."""
        for _ in range(limit):
            for world in self.worlds:
                world.settle()
            busy = False
            for sender in range(2):
                head = self.head(sender, 1 - sender)
                if head.first < head.next:
                    busy = True
                    self.carry(sender)
                    self.acknowledge(1 - sender)
            if not busy:
                return
        raise AssertionError("the subnets never come to rest")

    def subnet(self, number: int) -> SubnetRecord:
        data = self.worlds[number].store.get(keys.SUBNET_KEY)
        assert data is not None
        return records.SUBNET.decode(data)

    def check_cycles(self) -> None:
        """What left is on its way or has come in: nothing is lost, nothing is made."""
        for sender in range(2):
            received = self.head(1 - sender, sender).received
            on_the_way = 0
            for key, data in self.worlds[sender].store.scan(*keys.space_range(keys.STREAMS)):
                message = records.STREAM_ENTRY.decode(data).message
                if int.from_bytes(key[-8:], "big") >= received and not isinstance(message, records.Notice):
                    on_the_way += records.cycles_of(message)
            left, arrived = self.subnet(sender).cycles_out, self.subnet(1 - sender).cycles_in
            assert left == arrived + on_the_way
