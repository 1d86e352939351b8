"""A guestbook: anyone signs, anyone reads the latest entries."""

from cannery import Canister, Context, Principal, StableLog, nat32, nat64, query, record, update

TEXT_SIZE_CHARS_MAX = 1_000
PAGE_SIZE_MAX = 100


@record
class Entry:
    """One line in the book."""

    author: Principal
    at_ns: nat64
    text: str


class Guestbook(Canister):
    """Keep entries for ever, in order."""

    entries = StableLog(Entry)

    @update
    def sign(self, ctx: Context, text: str) -> nat64:
        """Add an entry and return its number."""
        if not 0 < len(text) <= TEXT_SIZE_CHARS_MAX:
            ctx.reject(f"an entry has 1 to {TEXT_SIZE_CHARS_MAX} characters")
        return self.entries.append(Entry(ctx.caller, ctx.now_ns, text))

    @query
    def latest(self, ctx: Context, limit: nat32) -> list[Entry]:
        """Return the latest entries, newest first."""
        page = self.entries.page(limit=max(1, min(limit, PAGE_SIZE_MAX)), reverse=True)
        return [entry for _, entry in page.items]

    @query
    def size(self, ctx: Context) -> nat64:
        """Return the number of entries."""
        return len(self.entries)
