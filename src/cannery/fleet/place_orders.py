"""Whom an index orders next while groups move, and what each is told, as plans.

Few at a time: no message carries more orders than a bound, each bucket hears of its own legs alone, and few
buckets send groups at once, so that whoever asks meanwhile is answered between. One that makes no headway
holds nobody up. Pure; `place_driver` carries out.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping
from dataclasses import replace
from itertools import islice

from cannery import Principal
from cannery.fleet.place_types import TOLD, UNTOLD, Stand
from cannery.fleet.placement_migration import Leg, Migration
from cannery.limits import MOVING_AGAIN_COUNT_MAX, MOVING_SOURCE_COUNT_MAX, MOVING_WAIT_NS_MAX

ASKED_NS_MAX = 600_000_000_000


def plan_due(whom: Mapping[Principal, Stand], put_off: Container[Principal], now_ns: int) -> list[Principal]:
    """Return who is to be ordered: whose answer is not awaited, and who did not just refuse."""
    return [who for who, stand in whom.items() if who not in put_off and not _is_awaited(stand, now_ns)]


def plan_told(
    stands: Mapping[Principal, Stand],
    targets: Container[Principal],
    stuck: Container[Principal],
    put_off: Container[Principal],
    now_ns: int,
) -> dict[Principal, Stand]:
    """Return who hears of a migration next: all targets first, then sources, a few at a time.

    Those that are `stuck` are not counted, nor are those that have not answered for a while.
    """
    untold = {who: stand for who, stand in stands.items() if stand.step == UNTOLD}
    first = {who: stand for who, stand in untold.items() if who in targets}
    if first:
        return first
    busy = sum(
        who not in stuck if stand.step == TOLD else now_ns - stand.asked_ns < MOVING_WAIT_NS_MAX
        for who, stand in stands.items()
        if stand.step in (UNTOLD, TOLD) and who not in targets
    )
    waiting = (who for who, stand in untold.items() if who not in put_off and not _is_awaited(stand, now_ns))
    return {who: untold[who] for who in islice(waiting, max(0, MOVING_SOURCE_COUNT_MAX - busy))}


def plan_again(
    stands: Mapping[Principal, Stand], targets: Container[Principal], turn: int
) -> dict[Principal, Stand]:
    """Return who is asked again how far it is: some sources and some targets, others the next turn."""
    told = [who for who, stand in stands.items() if stand.step == TOLD]
    again: list[Principal] = []
    for group in ([who for who in told if who not in targets], [who for who in told if who in targets]):
        count = MOVING_AGAIN_COUNT_MAX
        start = turn * count % len(group) if len(group) > count else 0
        again += (group[start:] + group[:start])[:count]
    return {who: stands[who] for who in again}


def split(migration: Migration, whom: Collection[Principal]) -> dict[Principal, Migration]:
    """Return what each of some buckets is told of a migration: its own legs."""
    legs: dict[Principal, list[Leg]] = {}
    for leg in migration.legs:
        for side in (leg.source, leg.target):
            if side in whom:
                legs.setdefault(side, []).append(leg)
    return {who: replace(migration, legs=legs.get(who, [])) for who in whom}


def _is_awaited(stand: Stand, now_ns: int) -> bool:
    return bool(stand.asked_ns) and now_ns - stand.asked_ns < ASKED_NS_MAX
