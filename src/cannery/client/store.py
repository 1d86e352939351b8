"""The store app's door for Python: asks the index where keys are, once, then talks to the buckets directly.

    store = await Store.open(agent, agent_names["store_index"])
    await store.put("note/1", b"hello", tags=["greetings"])
    item = await store.get("note/1")

Follows buckets that name another one, waits where a bucket is full, stopped or moving, within `patience_s`,
and raises `StoreRefused` with the store's own text where it says no. Reads and writes of many keys go in
parallel. Nothing here believes what is not signed: that is the agent's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from cannery.candid.did import Interface
from cannery.candid.values import Variant
from cannery.client.actor import AsyncActor, InterfaceError, interface_of, open_async_actor
from cannery.client.agent import AsyncAgent
from cannery.client.errors import ClientError, Rejected, Unreachable
from cannery.limits import CLIENT_EXCHANGE_COUNT_MAX
from cannery.protocol.principal import Principal

T = TypeVar("T")

PATIENCE_S = 60.0
FIND_PATIENCE_S = 10.0
ANSWER_S_MAX = 20.0
PARALLEL_COUNT = 32
PLACE_COUNT_MAX = 100_000
PART_SIZE_BYTES = 1_048_576
PAUSE_S_MIN, PAUSE_S_MAX = 0.02, 1.0
LOCATE_COUNT = 2_000
_PASSING = frozenset({"IC0207", "IC0301", "IC0503", "IC0508", "IC0509", "IC0515", "IC0537", "CNRY0301"})
"""Rejects of a bucket that is out of cycles, gone, trapped, stopped, busy, empty, or moved."""
_MOVING = "some of its entries are moving"
_NOT_LET_IN = "IC0516"
"""A bucket lets nobody in who writes without an identity."""
_NO_IDENTITY = "write with an identity of your own: cannery identity new NAME, then --identity NAME"


class StoreRefused(ClientError):
    """The store says no; the text says why and what to do."""


class StoreConflict(StoreRefused):
    """The entry has another revision than was expected: `revision`, 0 where there is none."""

    def __init__(self, revision: int) -> None:
        super().__init__(
            f"the entry has revision {revision} now: read it again"
            if revision
            else "there is no entry under this key now: it has revision 0"
        )
        self.revision = revision


class StoreIncomplete(ClientError):
    """Not every bucket answered: `entries` are those of the others, `missing` says why, bucket by bucket."""

    def __init__(self, entries: list[Entry], missing: dict[Principal, str]) -> None:
        buckets = "; ".join(f"{bucket} does not answer ({why})" for bucket, why in missing.items())
        super().__init__(f"entries may be missing: {buckets}")
        self.entries = entries
        self.missing = missing


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry without its value; `revision` orders entries by the time of their last put."""

    key: str
    owner: Principal
    tags: tuple[str, ...]
    private: bool
    readers: tuple[Principal, ...]
    created_ns: int
    updated_ns: int
    revision: int
    size: int


@dataclass(frozen=True, slots=True)
class Item:
    """An entry with its value, and the bucket that gave it."""

    entry: Entry
    value: bytes
    bucket: Principal


@dataclass(frozen=True, slots=True)
class Stored:
    """What a put did: where the entry is, its revision, whether the key is new."""

    bucket: Principal
    revision: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Sum:
    """How many entries the caller may see, their bytes; not exact while some are moving."""

    count: int
    size_bytes: int
    is_exact: bool


@dataclass(frozen=True, slots=True)
class Note:
    """What is to be put under a key."""

    key: str
    value: bytes
    tags: tuple[str, ...] = ()
    private: bool = False
    readers: tuple[Principal, ...] = ()
    expect: int | None = None


class Store:
    """A store, as one identity sees it."""

    def __init__(self, agent: AsyncAgent, index: AsyncActor, patience_s: float) -> None:
        self._agent = agent
        self._index = index
        self._patience_s = patience_s
        self._interface: Interface | None = None
        self._places: dict[str, Principal] = {}
        self._turns = asyncio.Semaphore(PARALLEL_COUNT)
        self._listing_turns = asyncio.Semaphore(CLIENT_EXCHANGE_COUNT_MAX // 2)

    @classmethod
    async def open(cls, agent: AsyncAgent, index_id: Principal, *, patience_s: float = PATIENCE_S) -> Store:
        """Read the index's interface, certified; raise `StoreRefused` where that is no store's."""
        index = await open_async_actor(agent, index_id)
        if not {"locate", "where", "sum_page", "stats"} <= set(dir(index)):
            raise StoreRefused(f"{index_id} is not the index of a store")
        return cls(agent, index, patience_s)

    # one key

    async def put(
        self,
        key: str,
        value: bytes,
        *,
        tags: Iterable[str] = (),
        private: bool = False,
        readers: Iterable[Principal] = (),
        expect: int | None = None,
    ) -> Stored:
        """Store a value of up to 100 MB under a key that is new or one's own.

        `expect` is the revision that the entry must have, 0 where there must be none. Raises `StoreRefused`
        and `StoreConflict`.
        """
        put = {
            "key": key,
            "value": value,
            "tags": list(tags),
            "private": private,
            "readers": list(readers),
            "expect": expect,
        }
        result = await self._ask(key, lambda bucket: bucket["put"](put))
        if result.tag == "conflict":
            raise StoreConflict(result.value)
        if result.tag != "ok":
            raise StoreRefused(str(result.value))
        stored = result.value
        self._remember(key, stored["canister"])
        return Stored(stored["canister"], stored["revision"], stored["is_new"])

    async def get(self, key: str) -> Item | None:
        """Read an entry; None where there is none that one may read."""
        while True:
            result = await self._ask(key, lambda bucket: bucket["get"](key))
            if result.tag == "absent":
                return None
            found = result.value
            entry = _entry(found["entry"])
            value = await self._rest(entry, found["canister"], found["value"])
            if value is not None:
                return Item(entry, value, found["canister"])

    async def _rest(self, entry: Entry, bucket: Principal, first: bytes) -> bytes | None:
        """Read the other parts of a value, in parallel; None where it has changed meanwhile."""
        count = -(-entry.size // PART_SIZE_BYTES)
        if count <= 1:
            return first

        async def part(at: int) -> Variant:
            ask = self._ask(
                entry.key, lambda bucket: bucket["get_part"](entry.key, entry.revision, at), at=bucket
            )
            found: Variant = await ask
            return found

        parts = await _together(part(at) for at in range(1, count))
        if any(part.tag != "ok" for part in parts):
            return None
        return b"".join([first, *(_bytes(part.value) for part in parts)])

    async def delete(self, key: str, *, expect: int | None = None) -> bool:
        """Delete an entry of one's own, or as a moderator; say whether it was there."""
        result = await self._ask(key, lambda bucket: bucket["delete"](key, expect))
        if result.tag == "refused":
            raise StoreRefused(str(result.value))
        return bool(result.tag == "ok")

    # many

    async def put_many(self, notes: Sequence[Note]) -> list[Stored]:
        """Put many values in parallel, each straight to its bucket; the index is asked once."""
        await self.locate([note.key for note in notes])
        return await _together(
            self.put(
                note.key,
                note.value,
                tags=note.tags,
                private=note.private,
                readers=note.readers,
                expect=note.expect,
            )
            for note in notes
        )

    async def get_many(self, keys: Sequence[str]) -> list[Item | None]:
        """Read many entries in parallel, each straight from its bucket; the index is asked once."""
        await self.locate(keys)
        return await _together(self.get(key) for key in keys)

    async def locate(self, keys: Sequence[str]) -> None:
        """Ask the index where keys are that are not known yet."""
        unknown = [key for key in dict.fromkeys(keys) if key not in self._places]
        for at in range(0, len(unknown), LOCATE_COUNT):
            some = unknown[at : at + LOCATE_COUNT]
            for key, bucket in zip(some, await self._index["locate"](some), strict=False):
                self._remember(key, bucket)

    # over all buckets

    async def find(self, *tags: str, owner: Principal | None = None, limit: int = 100) -> list[Entry]:
        """List entries that have all of the tags, newest first across all buckets, at most so many.

        Raises `StoreIncomplete`, which has what the others gave, where a bucket does not answer in time.
        """
        found: list[Entry] = []
        before: dict[str, object] | None = None
        missing: dict[Principal, str] = {}
        while len(found) < limit:
            wanted: dict[str, object] = {
                "tags": list(tags),
                "owner": owner,
                "before": before,
                "limit": min(limit, 1_000),
            }
            page, before = await self._page(wanted, missing)
            found += page
            if before is None:
                break
        if missing:
            raise StoreIncomplete(found[:limit], missing)
        return found[:limit]

    async def _page(
        self, wanted: dict[str, object], missing: dict[Principal, str]
    ) -> tuple[list[Entry], dict[str, object] | None]:
        """Ask all buckets for a page; what lies behind the earliest end of one of them belongs to the next.

        Entries move from the others to those that are `arriving`: these are asked once more, afterwards; and
        all once more where entries began to move only after the index was asked. Who does not answer while
        patience lasts joins the `missing`, and is not asked for further pages.
        """
        pause = _Pause(min(self._patience_s, FIND_PATIENCE_S))
        while True:
            where = await self._index["where"](wanted["tags"])
            buckets = [bucket for bucket in where["buckets"] if missing.get(bucket, _MOVING) == _MOVING]
            arriving = [bucket for bucket in where["arriving"] if bucket in buckets]
            silent: dict[Principal, str] = {}
            first = [bucket for bucket in buckets if bucket not in arriving]
            answers = await _together(self._find_in(bucket, wanted, silent, missing) for bucket in first)
            answers += await _together(self._find_in(bucket, wanted, silent, missing) for bucket in arriving)
            pages = [page for page in answers if page is not None]
            now = await self._index["where"](wanted["tags"])
            if now["number"] != where["number"] or not set(now["arriving"]) <= set(where["arriving"]):
                silent |= dict.fromkeys(now["arriving"] or now["buckets"], _MOVING)
            if not silent or not await pause.wait():
                missing.update(silent)
                break
        entries = {raw["key"]: _entry(raw) for page in pages for raw in page["entries"]}
        order = sorted(entries.values(), key=lambda entry: (entry.revision, entry.key), reverse=True)
        ends = [page["next"] for page in pages if page["next"] is not None]
        if not ends:
            return order, None
        floor = max(ends, key=lambda end: (end["revision"], end["key"]))
        edge = (floor["revision"], floor["key"])
        return [entry for entry in order if (entry.revision, entry.key) >= edge], floor

    async def _find_in(
        self,
        bucket: Principal,
        wanted: dict[str, object],
        silent: dict[Principal, str],
        missing: dict[Principal, str],
    ) -> Any:  # of the bucket's types; None where it does not answer now
        """Ask a bucket for a page; `silent` says why it has none or not all now, `missing` why none."""
        try:
            # Whoever does not answer holds one of the agent's exchanges: some are left for the others.
            async with self._listing_turns, asyncio.timeout(ANSWER_S_MAX):
                actor = await self._bucket(bucket)
                page = await actor["find"](wanted)
        except (TimeoutError, Unreachable):
            missing[bucket] = f"no answer in {ANSWER_S_MAX:.0f} s"
            return None
        except (Rejected, InterfaceError) as error:
            if not _is_passing(error):
                raise
            silent[bucket] = str(error)
            return None
        if page["on_its_way"]:
            silent[bucket] = _MOVING
        return page

    async def sum(self, *tags: str, owner: Principal | None = None) -> Sum:
        """Count entries and their bytes over all buckets, the index asking them: a few in one state, more in
        parts, which are exact where nothing moved meanwhile.
        """
        count = size = 0
        is_exact, place = True, None
        while True:
            page = await self._index["sum_page"](list(tags), owner, place)
            found, place = page["sum"], page["next"]
            count, size = count + found["count"], size + found["size_bytes"]
            is_exact = is_exact and found["is_exact"]
            if place is None:
                return Sum(count, size, is_exact)

    async def stats(self) -> dict[str, Any]:
        """Return the store at a glance, as its index tells it."""
        found: dict[str, Any] = await self._index["stats"]()
        return found

    # asking

    async def _ask(
        self, key: str, act: Callable[[AsyncActor], Awaitable[Any]], at: Principal | None = None
    ) -> Any:  # of the bucket's types
        """Ask the bucket that holds a key, wherever it is by now."""
        pause = _Pause(self._patience_s)
        bucket = at or self._places.get(key)
        hops = 0
        while True:
            if bucket is None:
                located = await self._index["locate"]([key])
                bucket = located[0] if located else None
            why = "the store has no bucket yet: an operator runs place_look at the index"
            if bucket is not None:
                try:
                    actor = await self._bucket(bucket)
                    async with self._turns:
                        result = await act(actor)
                except (Rejected, InterfaceError) as error:
                    self._places.pop(key, None)
                    if isinstance(error, Rejected) and error.error_code == _NOT_LET_IN:
                        raise StoreRefused(_NO_IDENTITY) from None
                    if not _is_passing(error):
                        raise
                    why, bucket = str(error), None
                else:
                    if result.tag not in ("moved", "full"):
                        self._remember(key, bucket)
                        return result
                    why = str(result.value)
                    if result.tag == "moved":
                        self._places.pop(key, None)
                        bucket, hops = result.value, hops + 1
                        if bucket is not None and hops <= 2:
                            continue
                        why = "its entry is moving to another bucket"
            if not await pause.wait():
                raise StoreRefused(f"{key!r} could not be reached in {self._patience_s:.0f} s: {why}")
            hops = 0

    async def _bucket(self, bucket: Principal) -> AsyncActor:
        """Give a bucket's methods; all buckets have one interface, which is read once."""
        if self._interface is None:
            self._interface = interface_of(bucket, await self._agent.metadata(bucket))
        return AsyncActor(self._agent, bucket, self._interface)

    def _remember(self, key: str, bucket: Principal) -> None:
        self._places.pop(key, None)
        self._places[key] = bucket
        if len(self._places) > PLACE_COUNT_MAX:
            del self._places[next(iter(self._places))]


def _is_passing(error: Rejected | InterfaceError) -> bool:
    """Tell whether the index may know another bucket in a moment: one that was emptied publishes nothing."""
    return isinstance(error, InterfaceError) or error.error_code in _PASSING


async def _together(acts: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    return list(await asyncio.gather(*acts))


class _Pause:
    """Pauses that double, as long as patience lasts."""

    def __init__(self, patience_s: float) -> None:
        self._left_s = patience_s
        self._next_s = PAUSE_S_MIN

    async def wait(self) -> bool:
        """Wait a little; False where patience is at its end."""
        if self._left_s <= 0:
            return False
        await asyncio.sleep(min(self._next_s, self._left_s))
        self._left_s -= self._next_s
        self._next_s = min(PAUSE_S_MAX, 2 * self._next_s)
        return True


def _entry(raw: dict[str, Any]) -> Entry:
    return Entry(
        raw["key"],
        raw["owner"],
        tuple(raw["tags"]),
        raw["private"],
        tuple(raw["readers"]),
        raw["created_ns"],
        raw["updated_ns"],
        raw["revision"],
        raw["size"],
    )


def _bytes(value: object) -> bytes:
    assert isinstance(value, bytes), "a part's value is a blob"
    return value
