"""A content store: large bytes under names of the client's choice, written in one piece or in chunks, read in
chunks, within a limit of bytes.

Room is reserved when an upload begins; chunks may come in any order, any size, and twice; `finish` takes only
what is whole and has the hash that was announced. Until then nothing of it can be read. What is full makes
room by dropping the oldest contents, in the write that needs it; a removed content's bytes are freed at once.
Numbers are never given twice, so that no reader ever gets bytes of another content.

State, under the attribute's name: `.contents` name -> content; `.pages` (number, page) -> bytes; `.order`
number -> name; `.unfinished` number -> name; `.state`; `.rule`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, NoReturn, overload

from cannery import limits
from cannery.candid.python import nat32, nat64, record
from cannery.cdk.message_log import LogRule
from cannery.cdk.part import CollectionSpec, Part, bound_view
from cannery.cdk.stable_cell import CellView, StableCell
from cannery.cdk.stable_map import MapView, StableMap
from cannery.errors import CanneryError
from cannery.ports import System

PAGE_SIZE_BYTES = 64 * 1024
# A page's key and the head of its value; a content's records and indexes beside its name.
_PAGE_OVERHEAD_BYTES = 12 + 8 + 3
_CONTENT_OVERHEAD_BYTES = 160


@record
class Content:
    """A content: `written` are the ranges of an unfinished one that have come, in order and apart."""

    number: nat64
    size: nat64
    created_ns: nat64
    is_finished: bool
    written: list[tuple[nat64, nat64]]


@record
class ContentState:
    """The next number, how many contents there are, and what is reserved for them, overheads included."""

    next: nat64
    count: nat64
    size_bytes: nat64


class ContentRefused(CanneryError):
    """A content store does not do what was asked; the text says why. `dropped` went all the same."""

    def __init__(self, text: str, dropped: tuple[bytes, ...] = ()) -> None:
        super().__init__(text)
        self.dropped = dropped


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload: `is_new` where it was begun just now; `dropped` are the names that made room for it."""

    content: Content
    is_new: bool
    dropped: tuple[bytes, ...]


class ContentStoreView:
    """A content store as a method sees it."""

    def __init__(self, system: System, store: ContentStore) -> None:
        self._system = system
        self._what = store.what
        self._contents: MapView[bytes, Content] = store.contents_map.bind(system)
        self._pages: MapView[tuple[int, int], bytes] = store.pages_map.bind(system)
        self._order: MapView[int, bytes] = store.order_map.bind(system)
        self._unfinished: MapView[int, bytes] = store.unfinished_map.bind(system)
        self._state: CellView[ContentState] = store.state_cell.bind(system)
        self._rule: CellView[LogRule] = store.rule_cell.bind(system)

    # writing

    def begin(self, name: bytes, size: int) -> Begun:
        """Reserve room for a content, or find it where it was begun before. Raises ContentRefused."""
        known = self._find(name)
        if known is not None:
            if known.size != size:
                self._refuse(f"{self._what} {name.hex()} was begun with {known.size} bytes, not {size}")
            return Begun(known, False, ())
        if size == 0:
            self._refuse("size must be greater than 0")
        if len(name) > limits.CONTENT_NAME_SIZE_BYTES_MAX:
            self._refuse(f"a name has at most {limits.CONTENT_NAME_SIZE_BYTES_MAX} bytes, not {len(name)}")
        if size > limits.CONTENT_SIZE_BYTES_MAX:
            self._refuse(f"size is too large: {self._what} has at most {limits.CONTENT_SIZE_BYTES_MAX} bytes")
        dropped = self._make_room(_cost(name, size))
        state = self._state.get()
        content = Content(state.next, size, self._system.now_ns, False, [])
        self._contents.put(name, content)
        self._order.put(content.number, name)
        self._unfinished.put(content.number, name)
        self._state.set(ContentState(state.next + 1, state.count + 1, state.size_bytes + _cost(name, size)))
        return Begun(content, True, dropped)

    def put(self, name: bytes, data: bytes, digest: bytes) -> Begun:
        """Write a whole content at once; one that is finished is left as it is. Its SHA-256 must begin with
        `digest`, which is looked at before anything makes room for it. Raises ContentRefused.
        """
        known = self._find(name)
        if data and (known is None or not known.is_finished):
            _check_digest(sha256(data).digest(), digest)
        begun = self.begin(name, len(data))
        if begun.content.is_finished:
            return begun
        self.write(name, 0, data)
        return replace(begun, content=self.finish(name, None))

    def write(self, name: bytes, offset: int, data: bytes) -> None:
        """Write a chunk of an unfinished content. Raises ContentRefused."""
        content = self._find(name)
        if content is None:
            self._refuse(f"{self._what} not found: begin its upload first")
        if content.is_finished:
            self._refuse(f"{self._what} is finalized: it cannot be changed")
        end = offset + len(data)
        if end > content.size:
            self._refuse(f"chunk out of bounds: it ends at {end}, the {self._what} at {content.size}")
        if not data:
            return
        written = _with_range(content.written, offset, end)
        if len(written) > _range_count_max(content.size):
            self._refuse("too many pieces with holes between them: write in order, or larger chunks")
        self._write_pages(content.number, offset, data)
        self._contents.put(name, replace(content, written=written))

    def finish(self, name: bytes, digest: bytes | None) -> Content:
        """Make a whole content readable; `digest` is the beginning of its SHA-256. Raises ContentRefused."""
        content = self._find(name)
        if content is None:
            self._refuse(f"{self._what} not found: begin its upload first")
        if content.is_finished:
            return content
        if content.written != [(0, content.size)]:
            self._refuse(f"{self._what} is not whole: {_missing(content)}")
        if digest is not None:
            found = sha256()
            for page in range(_page_count(content.size)):
                found.update(self._pages[content.number, page])
            _check_digest(found.digest(), digest)
        finished = replace(content, is_finished=True, written=[])
        self._contents.put(name, finished)
        self._unfinished.delete(content.number)
        return finished

    def remove(self, name: bytes) -> bool:
        """Remove a content and free its bytes; say whether it was there."""
        content = self._find(name)
        if content is None:
            return False
        self._contents.delete(name)
        self._order.delete(content.number)
        self._unfinished.delete(content.number)
        for page in range(_page_count(content.size)):
            self._pages.delete((content.number, page))
        state = self._state.get()
        cost = _cost(name, content.size)
        self._state.set(ContentState(state.next, state.count - 1, state.size_bytes - cost))
        return True

    def set_rule(self, rule: LogRule) -> None:
        """Change the limits; `clean` moves within them."""
        self._rule.set(rule)

    def clean(self) -> tuple[bytes, ...]:
        """Drop what the rule says, as far as one message may; return the names."""
        return tuple(self._fit(self._rule.get(), 0, 0))

    # reading

    @property
    def rule(self) -> LogRule:
        """The limits in force."""
        return self._rule.get()

    def usage(self) -> ContentState:
        """Return what is there."""
        return self._state.get()

    def get(self, name: bytes) -> Content | None:
        """Return what is known of a content, finished or not; None where there is none."""
        return self._find(name)

    def read(self, name: bytes, offset: int, size: int) -> bytes:
        """Read a part of a finished content. Raises ContentRefused."""
        content = self._find(name)
        if content is None:
            self._refuse(f"{self._what} not found")
        if not content.is_finished:
            self._refuse(f"{self._what} is not finalized")
        end = offset + size
        if end > content.size:
            self._refuse(f"chunk out of bounds: it ends at {end}, the {self._what} at {content.size}")
        if size == 0:
            return b""
        first, last = offset // PAGE_SIZE_BYTES, (end - 1) // PAGE_SIZE_BYTES
        pages = [self._pages[content.number, page] for page in range(first, last + 1)]
        start = offset - first * PAGE_SIZE_BYTES
        return b"".join(pages)[start : start + size]

    def is_within_rule(self) -> bool:
        """Tell whether there is nothing to clean."""
        return _fits(self._state.get(), self._rule.get(), 0, 0) and self._oldest_overdue() is None

    def next_due_ns(self) -> int | None:
        """Return when the oldest content will be too old; None where nothing will."""
        rule, oldest = self._rule.get(), self._order.first()
        if oldest is None or rule.age_ns_max is None:
            return None
        return self._contents[oldest[1]].created_ns + rule.age_ns_max

    def _find(self, name: bytes) -> Content | None:
        """Return a content; None where there is none, also where none can have such a name."""
        return self._contents.get(name) if len(name) <= limits.CONTENT_NAME_SIZE_BYTES_MAX else None

    # keeping to the rule

    def _make_room(self, cost: int) -> tuple[bytes, ...]:
        rule = self._rule.get()
        if cost > rule.bytes_max or rule.count_max == 0:
            self._refuse(
                f"size is too large: with overhead it takes {cost} bytes, and the limit of all is"
                f" {rule.bytes_max}"
            )
        dropped = self._fit(rule, 1, cost)
        if not _fits(self._state.get(), rule, 1, cost):
            is_cut = len(dropped) >= limits.CONTENT_CLEAN_COUNT_MAX
            reason = "it is being cleaned; retry after 1 s" if is_cut else "the store is full"
            raise ContentRefused(f"no room: {reason}", tuple(dropped))
        return tuple(dropped)

    def _fit(self, rule: LogRule, count: int, cost: int) -> list[bytes]:
        """Drop abandoned uploads, then what is too old, then the oldest that stand in the way."""
        dropped: list[bytes] = []
        for find in (self._abandoned, self._oldest_overdue):
            self._drop_while(dropped, find)
        if rule.when_full.tag != "refuse":
            self._drop_while(
                dropped, lambda: None if _fits(self._state.get(), rule, count, cost) else self._oldest()
            )
        return dropped

    def _drop_while(self, dropped: list[bytes], find: Callable[[], bytes | None]) -> None:
        while len(dropped) < limits.CONTENT_CLEAN_COUNT_MAX:
            name = find()
            if name is None:
                return
            self.remove(name)
            dropped.append(name)

    def _oldest(self) -> bytes | None:
        first = self._order.first()
        return None if first is None else first[1]

    def _oldest_overdue(self) -> bytes | None:
        due_ns = self.next_due_ns()
        return self._oldest() if due_ns is not None and due_ns <= self._system.now_ns else None

    def _abandoned(self) -> bytes | None:
        """Return the oldest upload that was begun too long ago to be finished any more."""
        first = self._unfinished.first()
        if first is None:
            return None
        age_ns = self._system.now_ns - self._contents[first[1]].created_ns
        return first[1] if age_ns > limits.CONTENT_UPLOAD_NS_MAX else None

    def _write_pages(self, number: int, offset: int, data: bytes) -> None:
        at = 0
        while at < len(data):
            page, start = divmod(offset + at, PAGE_SIZE_BYTES)
            piece = data[at : at + PAGE_SIZE_BYTES - start]
            old = self._pages.get((number, page), b"") if len(piece) < PAGE_SIZE_BYTES else b""
            head = old[:start].ljust(start, b"\x00")
            self._pages.put((number, page), head + piece + old[start + len(piece) :])
            at += len(piece)

    def _refuse(self, text: str) -> NoReturn:
        raise ContentRefused(text)


class ContentStore(Part):
    """Declare a content store; `what` names a content in texts: `files = ContentStore("file", rule=...)`."""

    def __init__(self, what: str, *, rule: LogRule) -> None:
        self.name = ""
        self.what = what
        self.contents_map = StableMap(bytes, Content)
        self.pages_map = StableMap(tuple[nat64, nat32], bytes)
        self.order_map = StableMap(nat64, bytes)
        self.unfinished_map = StableMap(nat64, bytes)
        self.state_cell = StableCell(ContentState, ContentState(1, 0, 0))
        self.rule_cell = StableCell(LogRule, rule)

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            return
        self.name = name
        for suffix, part in self._parts():
            part.name = f"{name}.{suffix}"

    def _parts(self) -> tuple[tuple[str, Any], ...]:  # cells and maps of several types
        return (
            ("contents", self.contents_map),
            ("pages", self.pages_map),
            ("order", self.order_map),
            ("unfinished", self.unfinished_map),
            ("state", self.state_cell),
            ("rule", self.rule_cell),
        )

    def collections(self) -> tuple[CollectionSpec, ...]:
        return tuple(spec for _, part in self._parts() for spec in part.collections())

    def bind(self, system: System) -> ContentStoreView:
        """Make the view of one activation."""
        return ContentStoreView(system, self)

    @overload
    def __get__(self, instance: None, owner: type) -> ContentStore: ...
    @overload
    def __get__(self, instance: object, owner: type) -> ContentStoreView: ...
    def __get__(self, instance: object | None, owner: type) -> ContentStore | ContentStoreView:
        return self if instance is None else bound_view(instance, self.name, self.bind)


def _fits(state: ContentState, rule: LogRule, count: int, cost: int) -> bool:
    return state.count + count <= rule.count_max and state.size_bytes + cost <= rule.bytes_max


def _page_count(size: int) -> int:
    return -(-size // PAGE_SIZE_BYTES)


def _cost(name: bytes, size: int) -> int:
    """Return what a content may take at the most: its bytes, its pages' heads, its records and indexes."""
    pages = _page_count(size) * _PAGE_OVERHEAD_BYTES
    names = 3 * (len(name) + 2) + name.count(b"\x00")
    return size + pages + names + 16 * _range_count_max(size) + _CONTENT_OVERHEAD_BYTES


def _range_count_max(size: int) -> int:
    """Return how many pieces with holes between them an unfinished content may have."""
    return min(limits.CONTENT_RANGE_COUNT_MAX, 4 + size // 4_096)


def _check_digest(found: bytes, digest: bytes) -> None:
    if found[: len(digest)] != digest:
        raise ContentRefused(f"hash mismatch: the content's SHA-256 is {found.hex()}")


def _with_range(ranges: list[tuple[int, int]], start: int, end: int) -> list[tuple[int, int]]:
    """Add a range to ordered ranges, joined with those that it touches."""
    before = [r for r in ranges if r[1] < start]
    after = [r for r in ranges if r[0] > end]
    joined = [r for r in ranges if r[1] >= start and r[0] <= end]
    if joined:
        start, end = min(start, joined[0][0]), max(end, joined[-1][1])
    return [*before, (start, end), *after]


def _missing(content: Content) -> str:
    if not content.written:
        return f"0 of {content.size} bytes were written"
    first, last = content.written[0], content.written[-1]
    if first[0] > 0:
        return f"bytes 0 to {first[0]} are missing"
    if len(content.written) > 1:
        return f"bytes {first[1]} to {content.written[1][0]} are missing"
    return f"bytes {last[1]} to {content.size} are missing"
