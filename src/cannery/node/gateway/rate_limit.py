"""Rate limits: a token bucket for each principal or address, in a bounded table.

Time comes in as an argument. The table forgets whoever was quiet longest; a forgotten bucket is a full
one, so forgetting never refuses anybody. What a canister limits by itself (registrations) is not here.
"""

from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

Key = TypeVar("Key", str, bytes)

_NS_PER_S = 1_000_000_000


class TokenBuckets(Generic[Key]):
    """Buckets of `burst` tokens that refill at `per_s`; the newest `count_max` of them."""

    __slots__ = ("_buckets", "_burst_ns", "_count_max", "_ns_per_token", "refused")

    def __init__(self, per_s: float, burst: int, count_max: int) -> None:
        assert min(per_s, burst, count_max) > 0, "a limit of nothing is not a limit"
        self._ns_per_token = max(round(_NS_PER_S / per_s), 1)
        self._burst_ns = burst * self._ns_per_token
        self._count_max = count_max
        # The time at which the bucket of a key will be full again, in nanoseconds.
        self._buckets: OrderedDict[Key, int] = OrderedDict()
        self.refused = 0

    def take(self, key: Key, now_ns: int) -> int:
        """Take a token: 0 if there was one, else the nanoseconds until there is."""
        buckets = self._buckets
        full_ns = max(buckets.get(key, 0), now_ns) + self._ns_per_token
        excess_ns = full_ns - now_ns - self._burst_ns
        if excess_ns > 0:
            self.refused += 1
            return excess_ns
        buckets[key] = full_ns
        buckets.move_to_end(key)
        if len(buckets) > self._count_max:
            buckets.popitem(last=False)
        return 0

    def __len__(self) -> int:
        return len(self._buckets)


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
