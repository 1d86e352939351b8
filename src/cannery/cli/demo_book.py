"""The guestbook that `cannery demo` deploys: a canister of one's own in twenty lines."""

from __future__ import annotations

from cannery import Canister, Context, Principal, StableLog, nat32, nat64, query, record, update

TEXT_LENGTH_MAX = 280


@record
class Entry:
    """What somebody left in the book."""

    author: Principal
    at_ns: nat64
    text: str


class Guestbook(Canister):
    """Whoever comes by may sign."""

    entries = StableLog(Entry)

    @update
    def sign(self, ctx: Context, text: str) -> nat64:
        """Add an entry and return its number."""
        if not 0 < len(text) <= TEXT_LENGTH_MAX:
            ctx.reject(f"an entry has 1 to {TEXT_LENGTH_MAX} characters")
        return self.entries.append(Entry(ctx.caller, ctx.now_ns, text))

    @query
    def latest(self, _ctx: Context, limit: nat32) -> list[Entry]:
        """Return the newest entries, newest first."""
        page = self.entries.page(limit=min(limit, 100), reverse=True)
        return [entry for _number, entry in page.items]
