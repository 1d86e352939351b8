"""What a registration reads of the store: few keys, and no scan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from cannery.apps.users.types import IndexSettings
from cannery.apps.users.user import User
from cannery.apps.users.user_index import UserIndex
from cannery.replica import keys
from cannery.testing import Node
from cannery.testing.store import MemoryStore

COUNT = 32
READS_EACH_MAX = 20


class ReadCounter(MemoryStore):
    """A store in memory that counts what is read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: Counter[bytes] = Counter()
        self.scans = 0

    def get(self, key: bytes) -> bytes | None:
        self.reads[key] += 1
        return super().get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self.scans += start[0] == keys.STABLE
        return super().scan(start, end, reverse=reverse)


def test_a_registration_reads_few_keys_and_scans_nothing() -> None:
    store = ReadCounter()
    with Node(store) as node:
        index = node.install(UserIndex).as_(node.operator)
        module_hash = node.manage("cannery_module_add", node.build(User))
        assert index.fleet_release_add("user", 1, module_hash, "the first").tag == "ok"
        index.configure(IndexSettings(1_000))
        assert index.as_("first").register("first").tag == "ok"
        store.reads.clear()
        store.scans = 0
        asked = [index.as_(f"user {n}").register.submit(f"name_{n}") for n in range(COUNT)]
        before = store.reads.total()
        node.step()
        assert all(each.result().tag == "ok" for each in asked)
        round_reads = store.reads.total() - before
    assert store.scans == 0
    assert round_reads <= COUNT * READS_EACH_MAX, f"{round_reads / COUNT} reads for each"
