"""The numbers of a fleet for the node's `/metrics`, with label sets that stay small however large it is."""

from __future__ import annotations

from collections.abc import Iterator

from cannery import Context, query, record
from cannery.cdk.component import Component, Uses
from cannery.fleet.alarms import Alarms
from cannery.fleet.census import Census
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.nursery import Nursery
from cannery.fleet.registry import Registry
from cannery.fleet.rights import require_operator
from cannery.fleet.rollouts import Rollouts
from cannery.fleet.treasury import Treasury
from cannery.limits import GAUGE_KIND_COUNT_MAX, GAUGE_VERSION_COUNT_MAX

OTHER = "other"
_CENSUS = (
    ("children_frozen", "frozen", "Children under their freezing limit at the last census."),
    ("children_stopped", "stopped", "Children that did not run at the last census."),
    ("children_active_day", "active_day", "Children active within a day of the last census."),
    ("memory_bytes", "memory_size", "Memory of all children at the last census."),
    ("keys", "key_count", "Stable keys of all children at the last census."),
    ("cycles", "cycles", "Cycles of all children at the last census."),
    ("cycles_burned_total", "burned", "Cycles that the children have burned."),
    ("messages_total", "messages", "Messages that the children have run."),
    ("rejects_total", "rejects", "Messages that the children have refused."),
    ("traps_total", "traps", "Messages of the children that trapped."),
    ("queued_messages", "queued", "Messages that waited for children at the last census."),
)


@record
class FleetSample:
    """A number: its name behind `cannery_fleet_`, what it is, its labels."""

    name: str
    help: str
    labels: list[tuple[str, str]]
    value: float


class Gauges(Component, prefix="fleet.gauges"):
    """Tell the fleet's numbers."""

    alarms = Uses(Alarms)
    census = Uses(Census)
    departures = Uses(Departures)
    directory = Uses(Directory)
    nursery = Uses(Nursery)
    registry = Uses(Registry)
    rollouts = Uses(Rollouts)
    treasury = Uses(Treasury)

    @query
    def fleet_metrics(self, ctx: Context) -> list[FleetSample]:
        """Return the fleet's numbers; kinds and versions beyond a bound are added up as `other`."""
        require_operator(ctx)
        return [*self._plain(ctx), *self._by_version(), *self._by_census(), *self._rollouts(ctx)]

    def _plain(self, ctx: Context) -> Iterator[FleetSample]:
        waiting = "Canisters that wait in the pool."
        yield _sample("pool", waiting, len(self.nursery.pool))
        yield _sample("pool_target", "Canisters that should.", self.nursery.pool_rule.get().target)
        yield _sample("making", "Children being made.", self.nursery.making_count())
        yield _sample("leaving", "Children on their way out.", len(self.departures.leaving))
        yield _sample("alarms_open", "Alarms that are not over.", len(self.alarms.open))
        yield _sample("battery_cycles", "The index's own balance.", ctx.balance)
        given = self.treasury.fleet_books.get().total
        yield _sample("granted_cycles_total", "Cycles that children were given.", given)
        open_count = len(self.treasury.bookings) + len(self.treasury.waiting)
        yield _sample("top_ups_open", "Top-ups that are under way or wait.", open_count)
        yield _sample(
            "census_ended_seconds", "When the last census ended.", self.census.last_sweep.get()[1] / 1e9
        )

    def _by_version(self) -> Iterator[FleetSample]:
        text = "Children by kind, state and version."
        counts: dict[tuple[str, str, str], int] = {}
        shown: dict[str, set[str]] = {}
        found = sorted(self.directory.counts(), key=lambda count: -count.count)
        for count in found:
            kind = count.kind if count.kind in shown or len(shown) < GAUGE_KIND_COUNT_MAX else OTHER
            versions, version = shown.setdefault(kind, set()), str(count.version)
            if version in versions or len(versions) < GAUGE_VERSION_COUNT_MAX:
                versions.add(version)
            else:
                version = OTHER
            key = (kind, count.state, version)
            counts[key] = counts.get(key, 0) + count.count
        for (kind, state, version), number in sorted(counts.items()):
            yield _sample("children", text, number, kind=kind, state=state, version=version)
        for kind in sorted(shown):
            current = self.registry.current(kind)
            if current is not None:
                behind = self.directory.count(kind, "active") - self.directory.count(
                    kind, "active", current.version
                )
                yield _sample("children_drifted", "Children not on the current release.", behind, kind=kind)

    def _by_census(self) -> Iterator[FleetSample]:
        for totals in self.census.totals.values(limit=GAUGE_KIND_COUNT_MAX):
            for name, field, text in _CENSUS:
                number: int = getattr(totals, field)
                yield _sample(name, text, number, kind=totals.kind)

    def _rollouts(self, ctx: Context) -> Iterator[FleetSample]:
        counts: dict[str, int] = {}
        quarantined = 0
        for info in self.rollouts.fleet_rollouts(ctx):
            counts[info.state.tag] = counts.get(info.state.tag, 0) + 1
            quarantined += info.counts.quarantined
        for state, count in sorted(counts.items()):
            yield _sample("rollouts", "Rollouts that are kept, by state.", count, state=state)
        yield _sample("quarantined", "Children that rollouts have put aside.", quarantined)


def _sample(name: str, text: str, value: float, **labels: str) -> FleetSample:
    return FleetSample(name, text, list(labels.items()), float(value))
