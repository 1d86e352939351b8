"""How facts of a fleet are written for people: cycles, shares, spans of time, tables with headings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cannery.cli.output import columns, format_time

NS_PER_S = 1_000_000_000
DAY_NS = 86_400 * NS_PER_S
LABEL_WIDTH = 13
YEARS_SHOWN_MAX = 100

_UNITS = ((365 * DAY_NS, "years"), (DAY_NS, "days"), (3_600 * NS_PER_S, "h"), (60 * NS_PER_S, "min"))


def format_span(span_ns: int) -> str:
    """Write a span of time to two digits or so."""
    for unit_ns, name in _UNITS:
        if span_ns >= 2 * unit_ns:
            return f"{span_ns / unit_ns:.0f} {name}"
    return f"{span_ns / NS_PER_S:.1f} s" if span_ns < 10 * NS_PER_S else f"{span_ns / NS_PER_S:.0f} s"


def format_share(part: float, whole: float) -> str:
    """Write a share as percents."""
    return f"{100 * part / whole:.0f} %" if whole else "0 %"


def format_left(cycles: int, burned_per_day: int) -> str:
    """Write how long cycles last."""
    left_ns = cycles * DAY_NS // burned_per_day
    if left_ns > YEARS_SHOWN_MAX * 365 * DAY_NS:
        return f"lasts over {YEARS_SHOWN_MAX} years"
    return f"lasts {format_span(left_ns)}"


def format_when(time_ns: int) -> str:
    """Write a time that may not have come yet."""
    return format_time(time_ns) if time_ns else "never"


def plural(count: int, word: str, several: str = "") -> str:
    """Write a number of things."""
    return f"{count:,} {word if count == 1 else several or word + 's'}"


def labelled(label: str, texts: Sequence[str]) -> Iterator[str]:
    """Write lines under one label, which stands before the first of them."""
    for place, text in enumerate(texts):
        yield f"{label if place == 0 else '':<{LABEL_WIDTH}}{text}"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Write rows under their headings."""
    return columns([headings, *rows])
