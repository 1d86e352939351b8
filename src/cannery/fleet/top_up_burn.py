"""Burn: what a child uses up, measured between readings of what it has burned since it was made.

Readings come with every look at a child; a few are kept, spread over about a day, so that a burst counts
and is forgotten. Top-ups and cycles that a child sends or gets do not disturb the measure, as a balance
would. This module guesses nothing: before there are two readings, there is no burn.
"""

from __future__ import annotations

from collections.abc import Sequence

from cannery.candid.python import nat, nat64, record
from cannery.limits import BURN_READING_COUNT_MAX, BURN_SPAN_NS_MIN, BURN_WINDOW_NS

DAY_NS = 86_400 * 1_000_000_000
_SPACING_NS = BURN_WINDOW_NS // (BURN_READING_COUNT_MAX - 1)


@record
class Reading:
    """What a child had burned in all, at a time."""

    at_ns: nat64
    burned: nat


def add_reading(readings: Sequence[Reading], reading: Reading) -> list[Reading]:
    """Return the readings to keep; the same ones where the new one tells too little to be kept.

    A child that has burned less than before is another one: its readings begin anew.
    """
    kept = list(readings)
    if kept and reading.burned < kept[-1].burned:
        return [reading]
    if kept and reading.at_ns - kept[-1].at_ns < _SPACING_NS:
        return kept
    kept.append(reading)
    since_ns = reading.at_ns - BURN_WINDOW_NS
    while len(kept) > BURN_READING_COUNT_MAX or (len(kept) > 1 and kept[1].at_ns <= since_ns):
        del kept[0]
    return kept


def burned_per_day(readings: Sequence[Reading], now: Reading) -> int | None:
    """Return what a child burns in a day, by the oldest reading and one of now; None: not known yet."""
    if not readings or now.burned < readings[0].burned:
        return None
    span_ns = now.at_ns - readings[0].at_ns
    if span_ns < BURN_SPAN_NS_MIN:
        return None
    return (now.burned - readings[0].burned) * DAY_NS // span_ns


def time_left_ns(balance: int, per_day: int | None) -> int | None:
    """Return how long a balance lasts at this burn; None: not known, or for ever."""
    return balance * DAY_NS // per_day if per_day else None
