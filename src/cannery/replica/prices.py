"""Schedules of prices by name: `free`, and `ic`, the Internet Computer's published prices on our counters.

Source of the prices: docs.internetcomputer.org, "Cycle costs" (dfinity/developer-docs at 07ff1c85,
docs/references/cycle-costs.md), column of the 13-node application subnet; the same numbers stand in
dfinity/ic, rs/config/src/subnet_config.rs, `CyclesAccountManagerConfig::application_subnet`.

The IC counts Wasm instructions, one cycle each, and Python has none. What a program does with its state is
counted here instead: keys touched and bytes moved, priced by what they cost in instructions on the IC, as its
stable maps measure it (dfinity/stable-structures at 010905c4, benchmarks/btreemap/canbench_results.yml,
10,000 operations each): reading a key of 32 bytes takes 34,000 instructions, writing one 54,000, and each
further byte of a value 18. Work between two touches of the state is not counted. docs/funding.md tells the
rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from cannery.replica.block import PriceSchedule

FREE: Final = PriceSchedule()
IC: Final = PriceSchedule(
    per_message=5_000_000,
    per_byte=20,
    per_key=40_000,
    per_call=260_000,
    storage_per_gib_second=127_000,
    creation=500_000_000_000,
    per_ingress=1_200_000,
    per_ingress_byte=2_000,
    per_call_byte=1_000,
    per_outcall=49_140_000,
    per_outcall_request_byte=5_200,
    per_outcall_response_byte=10_400,
)

SCHEDULES: Final[Mapping[str, PriceSchedule]] = MappingProxyType({"free": FREE, "ic": IC})
