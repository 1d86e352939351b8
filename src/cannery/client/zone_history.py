"""Fetching from a zone: page after page until the zone says that this was all, that something is gone, or no.

A `Fetch` is iterated once; its `state` ends in `done`, `gap` or `refused`, whatever happens: `gaps` say what
is gone, `reason` and `retry_after_s` why and until when the zone refuses.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from cannery.candid.values import Variant
from cannery.client.errors import ClientError
from cannery.client.zone_door import ZoneDoor
from cannery.client.zone_values import Fields, Message, Missing, Topic, ZoneRefused
from cannery.limits import ZONE_PAGE_COUNT, ZONE_TOPICS_PER_REQUEST_COUNT_MAX

LAST_ID = 2**64 - 1


class Reader(Protocol):
    """Reads what a zone keeps."""

    async def prepare(self) -> None:
        """Learn what is needed before anything can be read."""
        ...

    def key_of(self, topic: Topic) -> bytes: ...

    def name_of(self, key: bytes) -> str: ...

    async def open(self, key: bytes, fields: Fields) -> Message: ...


class FetchState(StrEnum):
    """Where a fetch stands."""

    FETCHING = "fetching"
    DONE = "done"
    GAP = "gap"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """What is asked of a zone: some topics, None for all; ids or times, both bounds included."""

    topics: Sequence[Topic] | None
    first_id: int = 1
    last_id: int = LAST_ID
    times_ns: tuple[int, int] | None = None
    newest_first: bool = False
    merged: bool = True
    bodies: bool = True
    per_topic: int | None = None
    limit: int | None = None
    page_count: int = ZONE_PAGE_COUNT


class Fetch:
    """Messages on their way from a zone: `async for message in fetch`; then look at `state`."""

    def __init__(self, door: ZoneDoor, plan: HistoryPlan, reader: Reader) -> None:
        self.state = FetchState.FETCHING
        self.gaps: list[Missing] = []
        self.reason: str | None = None
        self.retry_after_s: int | None = None
        self.newest = 0
        """The newest id of the zone, of all topics, as of the last page."""
        self._door = door
        self._plan = plan
        self._reader = reader
        self._left = plan.limit

    def __aiter__(self) -> AsyncIterator[Message]:
        return self.messages()

    async def messages(self) -> AsyncGenerator[Message]:
        """Give the messages, once; the state is settled when this ends, however it ends."""
        try:
            await self._reader.prepare()
            topics = self._plan.topics
            pages = self._arrivals() if topics is None else self._topics(self._keys(topics))
            async with aclosing(pages):
                async for key, fields in pages:
                    yield await self._reader.open(key, fields)
            self.state = FetchState.GAP if self.gaps else FetchState.DONE
        except ClientError as error:
            self._refuse(str(error))
            if isinstance(error, ZoneRefused):
                self.retry_after_s = error.retry_after_s
            raise
        finally:
            if self.state is FetchState.FETCHING:
                self._refuse("the fetch was broken off")

    async def all(self) -> list[Message]:
        """Fetch to the end."""
        return [message async for message in self]

    def _refuse(self, reason: str) -> None:
        self.state, self.reason = FetchState.REFUSED, reason

    def _keys(self, topics: Sequence[Topic]) -> list[bytes]:
        return list(dict.fromkeys(self._reader.key_of(topic) for topic in topics))

    async def _arrivals(self) -> AsyncGenerator[tuple[bytes, Fields]]:
        """Give messages of all topics, oldest first."""
        plan, following = self._plan, self._plan.first_id
        while following is not None and following <= plan.last_id and self._left != 0:
            page = await self._door.ask("arrivals", following, self._page_count(), None)
            self.newest = page["newest"]
            if page["gone"] is not None:
                self.gaps.append(Missing(following, min(page["gone"] - 1, plan.last_id)))
            for each in page["arrivals"]:
                if each["message"]["id"] > plan.last_id or not self._takes():
                    return
                yield each["topic"], each["message"]
            following = page["next"]

    async def _topics(self, keys: Sequence[bytes]) -> AsyncGenerator[tuple[bytes, Fields]]:
        """Give messages of some topics; more than fit one request are asked for group by group."""
        for start in range(0, len(keys), ZONE_TOPICS_PER_REQUEST_COUNT_MAX):
            group = keys[start : start + ZONE_TOPICS_PER_REQUEST_COUNT_MAX]
            cursor: bytes | None = None
            while self._left != 0:
                page = await self._door.ask("history", self._request(group, cursor))
                self.newest = page["newest"]
                self._note_gaps(group, page["gaps"])
                for run in page["runs"]:
                    for fields in run["messages"]:
                        if not self._takes():
                            return
                        yield group[run["topic"]], fields
                if page["state"].tag != "more":
                    break
                cursor = page["state"].value

    def _note_gaps(self, keys: Sequence[bytes], gaps: Sequence[Any]) -> None:  # records of the zone
        for gap in gaps:
            self.gaps.append(Missing(gap["first"], gap["last"], self._reader.name_of(keys[gap["topic"]])))

    def _takes(self) -> bool:
        if self._left is None:
            return True
        if self._left == 0:
            return False
        self._left -= 1
        return True

    def _page_count(self) -> int:
        wanted = self._plan.page_count
        return wanted if self._left is None else max(1, min(wanted, self._left))

    def _request(self, keys: Sequence[bytes], cursor: bytes | None) -> Fields:
        plan = self._plan
        if plan.times_ns is not None:
            first, last = plan.times_ns
            within = Variant("times", {"first": first, "last": last})
        elif plan.first_id > 1 or plan.last_id < LAST_ID:
            within = Variant("ids", {"first": plan.first_id, "last": plan.last_id})
        else:
            within = Variant("all")
        return {
            "topics": list(keys),
            "range": within,
            "order": Variant("newest_first" if plan.newest_first else "oldest_first"),
            "merged": plan.merged,
            "bodies": plan.bodies,
            "limit": self._page_count(),
            "bytes_max": None,
            "per_topic": plan.per_topic,
            "cursor": cursor,
        }
