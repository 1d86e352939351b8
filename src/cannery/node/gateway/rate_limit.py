"""Rate limits: a token bucket for each principal or address, in a bounded table of this process or of all
gateways of the node (`shared_rates`).

Time comes in as an argument. The table forgets whoever was quiet longest; a forgotten bucket is a full
one, so forgetting never refuses anybody. What a canister limits by itself (registrations) is not here.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Protocol

from cannery.node.gateway.tally_page import Cell

Key = str | bytes

_NS_PER_S = 1_000_000_000


class Table(Protocol):
    """The times at which buckets will be full again, in nanoseconds, by key."""

    def get(self, key: Key) -> int:
        """Give a key's time; 0 where it is not known."""
        ...

    def put(self, key: Key, full_ns: int) -> None:
        """Keep a key's time, forgetting one that was quiet for long where there is no room."""
        ...

    def __len__(self) -> int: ...


class MemoryTable:
    """Behind `Table`, for one process: the newest `count_max` times."""

    __slots__ = ("_count_max", "_times")

    def __init__(self, count_max: int) -> None:
        assert count_max > 0, "a memory of nothing is not a memory"
        self._count_max = count_max
        self._times: OrderedDict[Key, int] = OrderedDict()

    def get(self, key: Key) -> int:
        return self._times.get(key, 0)

    def put(self, key: Key, full_ns: int) -> None:
        times = self._times
        times[key] = full_ns
        times.move_to_end(key)
        if len(times) > self._count_max:
            times.popitem(last=False)

    def __len__(self) -> int:
        return len(self._times)


class TokenBuckets:
    """Buckets of `burst` tokens that refill at `per_s`, which stand in `table`."""

    __slots__ = ("_burst_ns", "_ns_per_token", "_refused", "_table")

    def __init__(self, per_s: float, burst: int, table: Table, refused: Cell | None = None) -> None:
        """`refused` counts the refusals."""
        assert min(per_s, burst) > 0, "a limit of nothing is not a limit"
        self._ns_per_token = max(round(_NS_PER_S / per_s), 1)
        self._burst_ns = burst * self._ns_per_token
        self._table = table
        self._refused = Cell() if refused is None else refused

    @property
    def refused(self) -> int:
        """How often somebody was refused."""
        return self._refused.value

    def take(self, key: Key, now_ns: int) -> int:
        """Take a token: 0 if there was one, else the nanoseconds until there is."""
        full_ns = max(self._table.get(key), now_ns) + self._ns_per_token
        excess_ns = full_ns - now_ns - self._burst_ns
        if excess_ns > 0:
            self._refused.add()
            return excess_ns
        self._table.put(key, full_ns)
        return 0

    def charge(self, key: Key, now_ns: int) -> None:
        """Take a token though there may be none: what is owed is waited for later."""
        self._table.put(key, max(self._table.get(key), now_ns) + self._ns_per_token)

    def wait_ns(self, key: Key, now_ns: int) -> int:
        """Say how long it is until there is a token, without taking one; counts a refusal if not at once."""
        excess_ns = self._table.get(key) + self._ns_per_token - now_ns - self._burst_ns
        if excess_ns <= 0:
            return 0
        self._refused.add()
        return excess_ns

    def __len__(self) -> int:
        return len(self._table)


def address_key(address: str) -> str:
    """Name the bucket of an address: IPv6 clients own a whole /64, so that is what is counted."""
    if ":" not in address:
        return address
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address) or parsed.is_loopback:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(IPv6Address(int(parsed) >> 64 << 64))
