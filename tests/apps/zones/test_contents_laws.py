"""The laws of attachments and files: whatever is allocated, written in pieces, deleted, limited, aged,
refused, upgraded or crashed, the zone holds what a plain list would, and nobody reads other bytes.

One node on a store that crashes serves all examples, each with a zone of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cannery import LogRule, WhenFull
from cannery.apps.zones.file_tree import ROOT
from cannery.apps.zones.retention import RetentionRules
from cannery.cdk.content_store import PAGE_SIZE_BYTES
from cannery.testing import Crashed, FaultyStore
from tests.apps.zones.world import ROOMY, ZoneWorld, digest

NS_PER_S = 10**9
STEP_S = 1_000
BODIES = [
    bytes([n]) * size for n, size in enumerate((1, 90, 400, 401, 900, 1_500, 2_600, PAGE_SIZE_BYTES + 9))
]
bodies = st.sampled_from(BODIES)
quarters = st.integers(0, 3)
kinds = st.sampled_from(["attachments", "files"])
places = st.sampled_from([ROOT, b"docs-dir", b"sub-directory"])
names = st.sampled_from([b"a", b"b"])
limits = st.builds(
    LogRule,
    st.integers(1, 4) | st.just(10**6),
    st.integers(1_000, 6_000) | st.just(10**9),
    st.none() | st.sampled_from([NS_PER_S, 1_500 * NS_PER_S, 2**64 - 1]),
    st.sampled_from([WhenFull.refuse(), WhenFull.prune_oldest()]),
)


@dataclass
class Held:
    """A content: the quarters of it that have come, `wrong` where somebody wrote other bytes there."""

    body: bytes
    created_ns: int
    quarters: dict[int, bytes] = field(default_factory=dict)
    is_finished: bool = False

    @property
    def cost(self) -> int:
        """Its bytes, its pages' heads, room for its ranges, its records and indexes, as docs count them."""
        size, name = len(self.body), digest(self.body)
        ranges = min(256, 4 + size // 4_096)
        return size + 23 * -(-size // PAGE_SIZE_BYTES) + 3 * 34 + name.count(b"\x00") + 16 * ranges + 160


def quarter(body: bytes, number: int) -> tuple[int, int]:
    cuts = [len(body) * n // 4 for n in range(5)]
    return cuts[number], cuts[number + 1]


class Shelf:
    """The model of one kind of contents: a list, oldest first."""

    def __init__(self) -> None:
        self.held: list[Held] = []
        self.rule = ROOMY

    def find(self, body: bytes) -> Held | None:
        return next((each for each in self.held if each.body == body), None)

    def total(self) -> int:
        return sum(each.cost for each in self.held)

    def fits(self, *more: Held) -> bool:
        count, size = len(self.held) + len(more), self.total() + sum(each.cost for each in more)
        return count <= self.rule.count_max and size <= self.rule.bytes_max

    def clean(self, now_ns: int, *more: Held) -> None:
        age_ns = self.rule.age_ns_max
        while age_ns is not None and self.held and self.held[0].created_ns + age_ns <= now_ns:
            self.held.pop(0)
        while self.rule.when_full.tag == "prune_oldest" and self.held and not self.fits(*more):
            self.held.pop(0)

    def begin(self, body: bytes, now_ns: int) -> Held | None:
        """Find or begin an upload; None where there is no room for it."""
        known = self.find(body)
        if known is not None:
            return known
        new = Held(body, now_ns)
        if new.cost > self.rule.bytes_max:
            return None
        self.clean(now_ns, new)
        if not self.fits(new):
            return None
        self.held.append(new)
        return new


class Machine(RuleBasedStateMachine):
    """A zone's contents beside the model of them."""

    world: ZoneWorld
    store: FaultyStore

    def __init__(self) -> None:
        super().__init__()
        self.world.zone = self.world.new_zone()
        self.shelves = {"attachments": Shelf(), "files": Shelf()}
        # Files by id: directory, name, body.
        self.files: dict[int, tuple[bytes, bytes, bytes]] = {}
        self.next_file = 1
        assert self.ann.create_directory(b"docs-dir", b"docs", ROOT).tag == "ok"
        assert self.ann.create_directory(b"sub-directory", b"sub", b"docs-dir").tag == "ok"
        self.ann.set_retention(RetentionRules(ROOMY, ROOMY, ROOMY))

    @property
    def ann(self) -> Any:  # an actor's methods are known at run time only
        return self.world.as_("ann")

    @property
    def now_ns(self) -> int:
        return self.world.node.now_ns

    def forget_files(self) -> None:
        """A file is there as long as its content is."""
        there = [each.body for each in self.shelves["files"].held]
        self.files = {id: file for id, file in self.files.items() if file[2] in there}

    # in one piece

    @rule(body=bodies, is_right=st.booleans())
    def write_attachment(self, body: bytes, is_right: bool) -> None:
        sent = body if is_right else b"?" * len(body)
        result = self.ann.write_attachment(digest(body), sent)
        shelf = self.shelves["attachments"]
        known = shelf.find(body)
        if not is_right and not (known and known.is_finished):
            assert result.err.startswith("hash mismatch")
            return
        held = shelf.begin(body, self.now_ns)
        assert result.tag == ("err" if held is None else "ok"), result
        if held is not None:
            held.is_finished = True

    @rule(directory=places, name=names, body=bodies, is_right=st.booleans())
    def write_file(self, directory: bytes, name: bytes, body: bytes, is_right: bool) -> None:
        sent = body if is_right else b"?" * len(body)
        result = self.ann.write_file(directory, name, digest(body), sent)
        known = self.shelves["files"].find(body)
        if not is_right and not (known and known.is_finished):
            assert result.err.startswith("hash mismatch")
            return
        held = self.shelves["files"].begin(body, self.now_ns)
        self.forget_files()
        assert result.tag == ("err" if held is None else "ok"), result
        if held is not None:
            held.is_finished = True
            assert result.ok == self.add_file(directory, name, body)

    def add_file(self, directory: bytes, name: bytes, body: bytes) -> int:
        for id, file in sorted(self.files.items()):
            if file == (directory, name, body):
                return id
        self.files[self.next_file] = (directory, name, body)
        self.next_file += 1
        return self.next_file - 1

    # in chunks

    @rule(body=bodies)
    def allocate_attachment(self, body: bytes) -> None:
        result = self.ann.allocate_attachment(digest(body), len(body))
        held = self.shelves["attachments"].begin(body, self.now_ns)
        assert result.tag == ("err" if held is None else "ok"), result

    @rule(directory=places, name=names, body=bodies)
    def allocate_file(self, directory: bytes, name: bytes, body: bytes) -> None:
        result = self.ann.allocate_file(directory, name, digest(body), len(body))
        held = self.shelves["files"].begin(body, self.now_ns)
        self.forget_files()
        assert result.tag == ("err" if held is None else "ok"), result
        if held is not None:
            assert result.ok.finalized == held.is_finished
            assert result.ok.id == self.add_file(directory, name, body)

    @rule(kind=kinds, body=bodies, number=quarters, is_right=st.booleans(), after=st.integers(0, 3))
    def write_chunk(self, kind: str, body: bytes, number: int, is_right: bool, after: int) -> None:
        """A piece, in any order and again, with the machine going down at some write."""
        start, end = quarter(body, number)
        sent = body[start:end] if is_right else b"?" * (end - start)
        held = self.shelves[kind].find(body)
        self.store.crash_at(self.store.operation_count + after if after else 0)
        try:
            result = self.chunk(kind, body, start, sent)
        except Crashed:
            self.store.crash_at(0)
            self.restart()
            result = self.chunk(kind, body, start, sent)
        self.store.crash_at(0)
        assert result.tag == ("err" if held is None or held.is_finished else "ok"), result
        if held is not None and not held.is_finished:
            held.quarters[number] = sent

    def chunk(self, kind: str, body: bytes, start: int, sent: bytes) -> Any:  # of the zone's types
        write = self.ann.write_attachment_chunk if kind == "attachments" else self.ann.write_file_chunk
        return write(digest(body), start, sent)

    @rule(kind=kinds, body=bodies)
    def finish(self, kind: str, body: bytes) -> None:
        finish = self.ann.finalize_attachment if kind == "attachments" else self.ann.finalize_file
        result = finish(digest(body))
        held = self.shelves[kind].find(body)
        if held is None:
            assert "not found" in result.err
        elif held.is_finished:
            assert result.tag == "ok"
        else:
            whole = b"".join(held.quarters.get(n, b"") for n in range(4))
            if len(whole) < len(body):
                assert "is not whole" in result.err
            elif whole != body:
                assert result.err.startswith("hash mismatch")
            else:
                assert result.tag == "ok"
                held.is_finished = True

    # going

    @rule(body=bodies)
    def delete_attachment(self, body: bytes) -> None:
        self.ann.delete_attachment(digest(body))
        shelf = self.shelves["attachments"]
        shelf.held = [each for each in shelf.held if each.body != body]

    @rule(back=st.integers(0, 4))
    def delete_file(self, back: int) -> None:
        id = max(0, self.next_file - back)
        gone = self.files.pop(id, None)
        assert self.ann.delete_file(id).tag == ("err" if gone is None else "ok")
        if gone is not None and all(file[2] != gone[2] for file in self.files.values()):
            shelf = self.shelves["files"]
            shelf.held = [each for each in shelf.held if each.body != gone[2]]

    @rule(kind=kinds, changed=limits)
    def retain(self, kind: str, changed: LogRule) -> None:
        self.shelves[kind].rule = changed
        rules = (self.shelves[each].rule for each in ("attachments", "files"))
        self.ann.set_retention(RetentionRules(ROOMY, *rules))
        self.clean()

    def clean(self) -> None:
        for shelf in self.shelves.values():
            shelf.clean(self.now_ns)
        self.forget_files()

    @rule()
    def time_passes(self) -> None:
        """What became too old goes, though nobody writes."""
        self.world.node.advance(seconds=STEP_S)
        self.world.node.run()
        self.clean()

    # the node

    @rule()
    def upgrade(self) -> None:
        self.world.upgrade()

    @rule()
    def crash(self) -> None:
        self.store.crash()
        self.restart()

    def restart(self) -> None:
        for _ in range(10):
            try:
                self.world.node.restart()
                return
            except Crashed:
                continue
        raise AssertionError("the node does not start any more")

    # what always holds

    @invariant()
    def what_is_whole_is_read_and_nothing_else_is(self) -> None:
        ann = self.ann
        for body in BODIES:
            read = ann.get_attachment(digest(body))
            held = self.shelves["attachments"].find(body)
            assert (read.ok if held and held.is_finished else None) == (
                body if held and held.is_finished else None
            )
            assert read.tag == ("ok" if held and held.is_finished else "err")
            read = ann.read_file_chunk(digest(body), 0, len(body))
            held = self.shelves["files"].find(body)
            assert read.tag == ("ok" if held and held.is_finished else "err")
            assert held is None or not held.is_finished or read.ok == body

    @invariant()
    def figures_are_the_models(self) -> None:
        usage = self.ann.usage()
        for kind, shelf in self.shelves.items():
            found = getattr(usage, kind)
            assert (found.count, found.size_bytes) == (len(shelf.held), shelf.total())
            if shelf.rule.when_full.tag == "prune_oldest":
                assert shelf.fits()
        assert self.ann.get_file_count() == len(self.files)
        assert self.ann.get_last_file_id() == self.next_file - 1

    @invariant()
    def directories_show_what_is_finished(self) -> None:
        finished = {each.body for each in self.shelves["files"].held if each.is_finished}
        for directory in (ROOT, b"docs-dir", b"sub-directory"):
            wanted = [
                id for id, file in sorted(self.files.items()) if file[0] == directory and file[2] in finished
            ]
            assert [file.id for file in self.ann.get_files_in_directory(directory)] == wanted
            assert self.ann.get_directory(directory).child_files == wanted


SETTINGS = settings(max_examples=15, stateful_step_count=25, deadline=None, phases=[Phase.generate])


def test_a_zone_holds_contents_as_a_list_would() -> None:
    Machine.store = FaultyStore(seed=9)
    Machine.world = ZoneWorld(Machine.store)
    try:
        run_state_machine_as_test(Machine, settings=SETTINGS)  # type: ignore[no-untyped-call]
    finally:
        Machine.world.node.close()
