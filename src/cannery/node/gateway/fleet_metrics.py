"""Numbers of fleets for `/metrics`: what each index tells by its query `fleet_metrics`, checked and bounded.

An index is a canister and may tell anything: names and labels are checked, each fleet has a number of lines,
one that fails is left alone for a while, and the page is made at most once in a few seconds. Whatever an
index does, the rest of the page stands.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from cannery.limits import (
    GATEWAY_FLEET_LABEL_COUNT_MAX,
    GATEWAY_FLEET_LABEL_SIZE_CHARS_MAX,
    GATEWAY_FLEET_PAGE_AGE_NS_MAX,
    GATEWAY_FLEET_PAGE_COUNT_MAX,
    GATEWAY_FLEET_PAGE_NS_MAX,
    GATEWAY_FLEET_QUIET_NS,
    GATEWAY_FLEET_SAMPLE_COUNT_MAX,
)
from cannery.node.gateway.asking import AskError, Fleet, FleetSample, Questions
from cannery.node.gateway.siblings import SharedText
from cannery.node.metrics import Labels, render_family

_PREFIX: Final = "cannery_fleet_"
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,79}")
_LABEL: Final = re.compile(r"[a-z][a-z0-9_]{0,39}")
_OWN_NAMES: Final = frozenset({"up", "samples_refused"})
_NS_PER_S: Final = 1_000_000_000


@dataclass(slots=True)
class _Family:
    help: str
    samples: dict[Labels, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Told:
    """What fleets have told for one page."""

    families: dict[str, _Family] = field(default_factory=dict)
    up: dict[Labels, float] = field(default_factory=dict)
    refused: dict[Labels, float] = field(default_factory=dict)


class FleetMetrics:
    """Makes the fleets' part of the page."""

    def __init__(
        self, questions: Questions, monotonic_ns: Callable[[], int], shared: SharedText | None = None
    ) -> None:
        """`shared`: where the page stands that any gateway made last, so that all show the same."""
        self._shared = shared
        self._questions = questions
        self._monotonic_ns = monotonic_ns
        self._text = ""
        self._made_ns: int | None = None
        self._quiet_until_ns: dict[Fleet, int] = {}
        self._turn = 0
        self._making = asyncio.Lock()

    async def render(self) -> str:
        """Give the text, a few seconds old at most."""
        async with self._making:
            self._take_shared()
            now_ns = self._monotonic_ns()
            if self._made_ns is None or now_ns - self._made_ns >= GATEWAY_FLEET_PAGE_AGE_NS_MAX:
                self._text = await self._make()
                self._made_ns = self._monotonic_ns()
                if self._shared is not None:
                    self._shared.write(self._made_ns, self._text)
            return self._text

    def _take_shared(self) -> None:
        """Take over what another gateway has made since: no counter falls from one page to the next."""
        found = None if self._shared is None else self._shared.read()
        if found is not None and (self._made_ns is None or found[0] > self._made_ns):
            self._made_ns, self._text = found

    async def _make(self) -> str:
        try:
            fleets, left_out = await self._questions.fleets(GATEWAY_FLEET_PAGE_COUNT_MAX)
        except AskError as error:
            return f"# the fleets are not known: {_one_line(str(error))}\n"
        told = _Told()
        await self._ask_all(fleets, told)
        counts: dict[Labels, float] = {(("state", "shown"),): len(fleets), (("state", "left_out"),): left_out}
        parts = [render_family("cannery_fleets", "gauge", "Fleets, on this page and left out.", counts)]
        parts.append(render_family(f"{_PREFIX}up", "gauge", "1 where the index told its numbers.", told.up))
        parts.append(
            render_family(
                f"{_PREFIX}samples_refused", "gauge", "Numbers of an index that are not shown.", told.refused
            )
        )
        for name, family in sorted(told.families.items()):
            kind = "counter" if name.endswith("_total") else "gauge"
            parts.append(render_family(name, kind, family.help, family.samples))
        return "".join(parts)

    async def _ask_all(self, fleets: list[Fleet], told: _Told) -> None:
        """Ask each fleet within the page's time, each time beginning with another one."""
        end_ns = self._monotonic_ns() + GATEWAY_FLEET_PAGE_NS_MAX
        self._turn = (self._turn + 1) % max(1, len(fleets))
        quiet = self._quiet_until_ns
        self._quiet_until_ns = {fleet: quiet[fleet] for fleet in fleets if fleet in quiet}
        for fleet in fleets[self._turn :] + fleets[: self._turn]:
            now_ns = self._monotonic_ns()
            label: Labels = (("fleet", fleet.name),)
            told.up[label] = 0
            if now_ns >= end_ns or now_ns < self._quiet_until_ns.get(fleet, 0):
                continue
            try:
                samples = await self._questions.samples(fleet.index)
            except AskError:
                self._quiet_until_ns[fleet] = now_ns + GATEWAY_FLEET_QUIET_NS
                continue
            told.up[label] = 1
            told.refused[label] = take_samples(told.families, fleet.name, samples)


def take_samples(families: dict[str, _Family], fleet: str, samples: Iterable[FleetSample]) -> int:
    """Add what an index told to the page's families; give how many samples were refused."""
    taken = refused = 0
    for sample in samples:
        name, labels = _name_of(sample), _labels_of(sample, fleet)
        if name is None or labels is None or taken >= GATEWAY_FLEET_SAMPLE_COUNT_MAX:
            refused += 1
            continue
        family = families.setdefault(name, _Family(_one_line(sample.help) or "A number of a fleet."))
        if labels in family.samples:
            refused += 1
            continue
        family.samples[labels] = sample.value
        taken += 1
    return refused


def _name_of(sample: FleetSample) -> str | None:
    bare = sample.name.removeprefix(_PREFIX)
    return None if not _NAME.fullmatch(bare) or bare in _OWN_NAMES else _PREFIX + bare


def _labels_of(sample: FleetSample, fleet: str) -> Labels | None:
    names = [name for name, _ in sample.labels]
    if len(names) > GATEWAY_FLEET_LABEL_COUNT_MAX or len(set(names)) != len(names) or "fleet" in names:
        return None
    if not all(_LABEL.fullmatch(name) for name in names):
        return None
    own = ((name, _one_line(value)[:GATEWAY_FLEET_LABEL_SIZE_CHARS_MAX]) for name, value in sample.labels)
    return (("fleet", fleet), *sorted(own))


def _one_line(text: str) -> str:
    """Give foreign text without what is no printable character, cut to a bound."""
    return "".join(char if char.isprintable() else " " for char in text[:200]).strip()
