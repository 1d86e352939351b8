"""Where the simulated node's backups lie: behind `Shelf`, with the faults of disks and of networks.

A put that fails may have had its effect or not; what is written whole may be damaged later, until somebody
moves it away.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cannery.node.backup.errors import MissingError, ShelfError
from cannery.node.backup.shelf import Stored


class SimShelf:
    """Objects by name, in memory. `fails` says before each operation whether it fails."""

    def __init__(self, chance: random.Random, fails: Callable[[], bool]) -> None:
        self.objects: dict[str, bytes] = {}
        self.damaged: set[str] = set()
        self._whole: dict[str, bytes] = {}
        self._chance = chance
        self._fails = fails

    def damage(self) -> str | None:
        """Flip a bit of some object; give its name."""
        names = sorted(name for name, data in self.objects.items() if data)
        if not names:
            return None
        name = self._chance.choice(names)
        self._whole.setdefault(name, self.objects[name])
        data = bytearray(self.objects[name])
        data[self._chance.randrange(len(data))] ^= 1 << self._chance.randrange(8)
        self.objects[name] = bytes(data)
        self.damaged.add(name)
        return name

    def mend(self, name: str) -> None:
        """Put an object back as it was, as from a copy elsewhere."""
        self.objects[name] = self._whole.pop(name)
        self.damaged.discard(name)

    # behind `Shelf`

    def put(self, name: str, data: bytes) -> None:
        fails = self._fails()
        if not fails or self._chance.random() < 0.5:
            self.objects[name] = data
            self._forget(name)
        if fails:
            raise ShelfError(f"cannot write {name}: Input/output error")

    def get(self, name: str) -> bytes:
        self._check("read", name)
        if name not in self.objects:
            raise MissingError(f"{name} is not there")
        return self.objects[name]

    def get_range(self, name: str, start: int, size: int) -> bytes:
        return self.get(name)[start : start + size]

    def list(self) -> Iterator[Stored]:
        self._check("list", "everything")
        return iter([Stored(name, len(data)) for name, data in sorted(self.objects.items())])

    def delete(self, name: str) -> None:
        fails = self._fails()
        if not fails or self._chance.random() < 0.5:
            self.objects.pop(name, None)
            self._forget(name)
        if fails:
            raise ShelfError(f"cannot delete {name}: Input/output error")

    @contextmanager
    def lock(self, holder: str, now_ns: int) -> Iterator[SimLock]:
        self._check("lock", "the folder")
        yield SimLock()

    def _forget(self, name: str) -> None:
        self.damaged.discard(name)
        self._whole.pop(name, None)

    def _check(self, what: str, name: str) -> None:
        if self._fails():
            raise ShelfError(f"cannot {what} {name}: Input/output error")


class SimLock:
    """Behind `Lock`: nobody else is there."""

    def renew(self, now_ns: int) -> None:
        """Do nothing."""
