"""Where a repository lies, as a door: objects by name in a folder or an object store.

A put is whole or not at all, and durable when it returns; objects are never changed, only the lock is. `node`
holds the real sides (`shelf_folder`, `shelf_objects`), tests a failing one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cannery.node.backup.errors import ShelfError


@dataclass(frozen=True, slots=True)
class Stored:
    """An object: its name and its size."""

    name: str
    size_bytes: int


class Shelf(Protocol):
    """Objects by name. Everything raises `ShelfError`; what is not there `MissingError`."""

    def put(self, name: str, data: bytes) -> None: ...

    def get(self, name: str) -> bytes: ...

    def get_range(self, name: str, start: int, size: int) -> bytes:
        """Give up to `size` bytes from `start` on."""
        ...

    def list(self) -> Iterator[Stored]:
        """Yield all objects, in no order."""
        ...

    def delete(self, name: str) -> None:
        """Delete an object; one that is not there is no error."""
        ...

    def lock(self, holder: str, now_ns: int) -> AbstractContextManager[Lock]:
        """Hold the repository's lock; raises `RepositoryLockedError` and names its holder."""
        ...


class Lock(Protocol):
    """A lock that is held; it lapses where its holder does not renew it for a while."""

    def renew(self, now_ns: int) -> None: ...


def open_shelf(place: str) -> Shelf:
    """Give the shelf of a place: a folder by its path, or an object store by its URL."""
    from cannery.node.backup.shelf_folder import FolderShelf

    if "://" not in place:
        return FolderShelf(Path(place))
    if place.startswith("file://"):
        return FolderShelf(Path(place.removeprefix("file://")))
    from cannery.node.backup.shelf_objects import open_object_shelf

    return open_object_shelf(place)


def is_new(shelf: Shelf) -> bool:
    """Say whether nothing is there yet, not even the folder."""
    return next(iter(shelf.list()), None) is None


__all__ = ["Lock", "Shelf", "ShelfError", "Stored", "is_new", "open_shelf"]
