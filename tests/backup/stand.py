"""A node in a data directory of its own for tests of backups, and shelves that fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from cannery import Canister, Context, StableMap, nat64, query, timer, update
from cannery.node.backup.create import Created, Order, create_backup
from cannery.node.backup.errors import ShelfError
from cannery.node.backup.shelf import Lock, Shelf, Stored
from cannery.node.backup.shelf_folder import FolderShelf
from cannery.node.data_dir import open_data_dir
from cannery.replica.block import ReplicaConfig, state_hash
from cannery.testing import Node
from cannery.testing.actor import Actor


class Small(Canister):
    """Keeps a few rows."""

    rows = StableMap(nat64, bytes)

    @update
    def fill(self, ctx: Context, first: nat64, count: nat64) -> None:
        for number in range(first, first + count):
            self.rows[number] = ctx.random_bytes(256)

    @update
    def keep_order(self, ctx: Context) -> None:
        # How a set of texts is written hangs on the seed of hashes.
        self.rows[99] = str({f"{letter}{letter}" for letter in "abcdefgh"}).encode()

    @update
    def wake(self, ctx: Context) -> None:
        ctx.timer_set(self.tick, after_s=60)

    @timer
    def tick(self, ctx: Context) -> None:
        self.rows[100] = b"tick"

    @query
    def row(self, ctx: Context, number: nat64) -> bytes | None:
        return self.rows.get(number)


class Stand:
    """A data directory with a node on its store, and a folder for backups."""

    def __init__(self, folder: Path, config: ReplicaConfig | None = None) -> None:
        self.data, self.place = folder / "data", folder / "backups"
        found, lock = open_data_dir(self.data)
        lock.release()
        self.store = found.store
        self.config = config
        self.module: bytes = b""

    @property
    def shelf(self) -> FolderShelf:
        return FolderShelf(self.place)

    @contextmanager
    def node(self, data: Path | None = None) -> Iterator[Node]:
        """Run the node, or one on another data directory; it is stopped afterwards."""
        store = self.store if data is None else data / "subnet-0" / "store"
        with Node(data=store, config=self.config) as node:
            yield node

    def fill(self, count: int, rows: int = 4) -> list[Actor]:
        """Make canisters of `rows` rows."""
        with self.node() as node:
            first = node.install(Small)
            self.module = node.build(Small)
            made = [first, *(node.install(self.module) for _ in range(count - 1))]
            for canister in made:
                canister.fill(0, rows)
        return made

    def change(self, canisters: list[Actor]) -> None:
        """Change a row of each canister, an hour later."""
        with self.node() as node:
            node.advance(seconds=3600)
            for canister in canisters:
                node.actor(canister.id, self.module).fill(0, 1)

    def back_up(self, shelf: Shelf | None = None, **order: object) -> Created:
        """Make a backup."""
        wanted = Order(self.data, **order)  # type: ignore[arg-type]
        return create_backup(shelf or self.shelf, wanted, "a test")

    def state_hash(self, data: Path | None = None) -> bytes:
        """Hash the state of the node as it lies on the disk."""
        from cannery.node.store_rocksdb import RocksCopy

        copy = RocksCopy(str(self.store if data is None else data / "subnet-0" / "store"))
        try:
            return state_hash(copy)
        finally:
            copy.close()


class FailingShelf:
    """Behind `Shelf`: the operation with a number fails, as on a full disk, and all that come after it."""

    def __init__(self, shelf: Shelf, fails_at: int) -> None:
        self._shelf = shelf
        self._left = fails_at

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise ShelfError("the disk is full: make room")

    @property
    def has_failed(self) -> bool:
        return self._left < 0

    def put(self, name: str, data: bytes) -> None:
        self._count()
        self._shelf.put(name, data)

    def get(self, name: str) -> bytes:
        self._count()
        return self._shelf.get(name)

    def get_range(self, name: str, start: int, size: int) -> bytes:
        self._count()
        return self._shelf.get_range(name, start, size)

    def list(self) -> Iterator[Stored]:
        self._count()
        return self._shelf.list()

    def delete(self, name: str) -> None:
        self._count()
        self._shelf.delete(name)

    def lock(self, holder: str, now_ns: int) -> AbstractContextManager[Lock]:
        return self._shelf.lock(holder, now_ns)
