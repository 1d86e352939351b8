"""When roles that a provider gave run out: a beat of the zone's state, so that the node asks again who may
have its events. Reads need none of this: each looks at the clock itself.
"""

from __future__ import annotations

from cannery import Context, Principal, StableCell, StableSet, nat64, timer
from cannery.cdk.component import Component

from .armed import Armed
from .providers import CachedRole
from .refusal import NS_PER_S

BEAT_NS_MIN = 5 * NS_PER_S
ENDS_PER_BEAT_COUNT_MAX = 1_000


class Lapses(Component, prefix="lapses"):
    """The ends of roles in order, and the timer for the first."""

    ends = StableSet(tuple[nat64, Principal])
    armed = StableCell(Armed | None, None)
    beats = StableCell(nat64, 0)

    def beat(self) -> int:
        """Return how often roles have run out: whoever reads it is asked again when that happens."""
        return self.beats.get()

    def note(self, ctx: Context, who: Principal, before: CachedRole | None, after: CachedRole | None) -> None:
        """Take in that somebody's role has another end, or none."""
        if before is not None:
            self.ends.discard((before.until_ns, who))
        if after is not None:
            self.ends.add((after.until_ns, who))
            self._arm(ctx, after.until_ns)

    def _arm(self, ctx: Context, end_ns: int) -> None:
        due_ns, armed = max(end_ns, ctx.now_ns + BEAT_NS_MIN), self.armed.get()
        if armed is not None:
            if armed.due_ns <= due_ns:
                return
            ctx.timer_cancel(armed.timer)
        self.armed.set(Armed(ctx.timer_set(self.lapse, at_ns=due_ns), due_ns))

    @timer
    def lapse(self, ctx: Context) -> None:
        """Forget the ends that have passed, and beat."""
        self.armed.set(None)
        self.beats.value += 1
        for _ in range(ENDS_PER_BEAT_COUNT_MAX):
            end = self.ends.first()
            if end is None:
                return
            if end[0] > ctx.now_ns:
                self._arm(ctx, end[0])
                return
            self.ends.discard(end)
        self._arm(ctx, ctx.now_ns)
