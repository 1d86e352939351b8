"""The model of a topic log and of a zone's messages: a plain list of what should be there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256

from cannery import LogRule
from cannery.cdk.topic_pages import TopicGap, TopicPosition, TopicQuery
from cannery.cdk.topic_records import Posted


@dataclass(frozen=True)
class Held:
    """A message of the model."""

    id: int
    at_ns: int
    key: bytes
    payload: bytes
    digest: bytes
    is_erased: bool = False

    @property
    def stored(self) -> bytes:
        return b"" if self.is_erased else self.payload


class TopicModel:
    """Messages in a list, with what was dropped of each topic that is there, and the readers' marks."""

    def __init__(self, rule: LogRule) -> None:
        self.held: list[Held] = []
        self.next = 1
        self.dropped: dict[bytes, int] = {}
        self.marks: dict[bytes, int] = {}
        self.rule = rule

    def cost(self, fresh: list[tuple[bytes, bytes]]) -> int:
        present = {message.key for message in self.held}
        topics = {key for key, _ in fresh} - present
        return sum(self.message_cost(payload) for _, payload in fresh) + sum(map(self.topic_cost, topics))

    @staticmethod
    def message_cost(payload: bytes) -> int:
        length_size = 1 if len(payload) < 128 else 2
        return 12 + (8 + 53 + length_size + len(payload)) + 20 + 28

    @staticmethod
    def topic_cost(key: bytes) -> int:
        stored_key = len(key) + key.count(b"\x00") + 2
        return (stored_key + 12) + (4 + 8 + 1 + len(key) + 40)

    def total(self) -> int:
        return sum(self.message_cost(m.stored) for m in self.held) + sum(
            self.topic_cost(key) for key in {m.key for m in self.held}
        )

    def drop(self) -> None:
        gone = self.held.pop(0)
        self.dropped[gone.key] = gone.id
        if all(m.key != gone.key for m in self.held):
            del self.dropped[gone.key]

    def fits(self, count: int, size: int) -> bool:
        return len(self.held) + count <= self.rule.count_max and self.total() + size <= self.rule.bytes_max

    def fit(self, fresh: list[tuple[bytes, bytes]], now_ns: int) -> bool:
        """Drop what the rule says. A topic that is written to keeps its record meanwhile."""
        written = {key for key, _ in fresh}
        kept = {m.key for m in self.held} & written
        dropped_of_kept: dict[bytes, int] = {}

        def needed() -> tuple[int, int]:
            emptied = kept - {m.key for m in self.held}
            new = written - kept
            size = sum(self.message_cost(p) for _, p in fresh) + sum(map(self.topic_cost, new | emptied))
            return len(fresh), size

        def drop() -> None:
            gone = self.held[0]
            self.drop()
            if gone.key in kept:
                dropped_of_kept[gone.key] = gone.id

        if self.rule.age_ns_max is not None:
            while self.held and self.held[0].at_ns <= now_ns - self.rule.age_ns_max:
                drop()
        if not self.fits(*needed()) and self.rule.when_full.tag != "refuse":
            until = self.next
            if self.rule.when_full.tag == "prune_acknowledged":
                first = self.held[0].id if self.held else self.next
                until = min(self.marks.values(), default=first)
            while self.held and self.held[0].id < until and not self.fits(*needed()):
                drop()
        fitted = self.fits(*needed())
        if fitted:
            self.dropped.update(dropped_of_kept)
        return fitted

    def post(self, items: list[tuple[bytes, bytes]], now_ns: int) -> list[Posted] | None:
        known = {(m.key, m.payload): m.id for m in self.held}
        fresh = list(dict.fromkeys(item for item in items if item not in known))
        if fresh and (len(fresh) > self.rule.count_max or self.cost(fresh) > self.rule.bytes_max):
            return None
        if fresh and not self.fit(fresh, now_ns):
            return None
        new: dict[tuple[bytes, bytes], int] = {}
        for key, payload in fresh:
            if all(m.key != key for m in self.held) and key not in self.dropped:
                self.dropped[key] = (self.held[0].id if self.held else self.next) - 1
            self.held.append(Held(self.next, now_ns, key, payload, sha256(payload).digest()))
            new[key, payload] = self.next
            self.next += 1
        posted, seen = [], set()
        for item in items:
            posted.append(Posted(known.get(item) or new[item], item in new and item not in seen))
            seen.add(item)
        return posted

    def prune(self, before: int) -> int:
        count = sum(1 for m in self.held if m.id < before)
        for _ in range(count):
            self.drop()
        return count

    def erase(self, id: int) -> bool:
        place = next((i for i, m in enumerate(self.held) if m.id == id and not m.is_erased), None)
        if place is not None:
            # The same payload again is still found by its hash, and stays erased.
            self.held[place] = replace(self.held[place], is_erased=True)
        return place is not None

    def join(self, reader: bytes) -> int:
        return self.marks.setdefault(reader, self.next)

    def acknowledge(self, reader: bytes, through: int) -> int:
        self.marks[reader] = max(self.join(reader), min(through + 1, self.next))
        return self.marks[reader]

    def links(self, key: bytes) -> list[tuple[int, int, int]]:
        """List a topic's ids, each between its neighbours."""
        ids = [m.id for m in self.held if m.key == key]
        return list(zip([0, *ids], ids, [*ids[1:], 0], strict=False))

    def expected(self, query: TopicQuery, position: TopicPosition | None) -> list[tuple[int, int]]:
        """List the topics and ids that remain, in the order asked for."""
        order = -1 if query.newest_first else 1
        found: list[tuple[int, int]] = []
        for topic, key in enumerate(query.keys):
            ids = sorted(
                (m.id for m in self.held if m.key == key and query.low <= m.id < query.high),
                key=lambda id: order * id,
            )
            if position is not None and (query.merged or topic == position.topic) and position.id is not None:
                ids = [id for id in ids if order * id > order * position.id]
            elif position is not None and not query.merged and topic < position.topic:
                ids = []
            if query.per_topic_max is not None:
                taken = position.taken if position is not None and topic == position.topic else 0
                ids = ids[: query.per_topic_max - taken]
            found += [(topic, id) for id in ids]
        return sorted(found, key=lambda pair: order * pair[1]) if query.merged else found

    def gaps(self, query: TopicQuery) -> list[TopicGap]:
        """List what was dropped of a range: the gaps of an answer on one page."""
        wanted = []
        for topic, key in enumerate(query.keys):
            first = self.held[0].id if self.held else self.next
            dropped = self.dropped.get(key, first - 1)
            end = min(query.high, dropped + 1)
            if query.low < end:
                wanted.append(TopicGap(topic, query.low, end))
        return wanted
