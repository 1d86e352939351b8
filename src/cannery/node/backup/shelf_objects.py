"""A repository in an object store (S3, Google Cloud Storage, Azure and others), through `obstore`.

Credentials come from where each provider's tools look for them (the environment, for one). The lock is an
object made only where there is none; it lapses unless it is renewed, and a lapsed one is taken over by a put
that names what it replaces, so that only one can.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import obstore
from obstore import exceptions

from cannery.limits import BACKUP_LOCK_NS_MAX
from cannery.node.backup.errors import MissingError, RepositoryLockedError, ShelfError
from cannery.node.backup.format.names import LOCK_NAME
from cannery.node.backup.shelf import Stored

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_ERRORS: Final = (exceptions.BaseError, OSError, ValueError)


class ObjectShelf:
    """Behind `Shelf`, on any store of `obstore`."""

    def __init__(self, store: ObjectStore, place: str) -> None:
        self._store = store
        self._place = place

    def put(self, name: str, data: bytes) -> None:
        try:
            obstore.put(self._store, name, data)
        except _ERRORS as error:
            raise self._refusal("write", name, error) from error

    def get(self, name: str) -> bytes:
        try:
            return bytes(obstore.get(self._store, name).bytes())
        except _ERRORS as error:
            raise self._refusal("read", name, error) from error

    def get_range(self, name: str, start: int, size: int) -> bytes:
        try:
            return bytes(obstore.get_range(self._store, name, start=start, length=size))
        except _ERRORS as error:
            raise self._refusal("read", name, error) from error

    def list(self) -> Iterator[Stored]:
        try:
            for page in obstore.list(self._store):
                for found in page:
                    if found["path"] != LOCK_NAME:
                        yield Stored(found["path"], found["size"])
        except _ERRORS as error:
            raise self._refusal("list", "", error) from error

    def delete(self, name: str) -> None:
        try:
            with suppress(FileNotFoundError):
                obstore.delete(self._store, name)
        except _ERRORS as error:
            raise self._refusal("delete", name, error) from error

    @contextmanager
    def lock(self, holder: str, now_ns: int) -> Iterator[ObjectLock]:
        lock = ObjectLock(self, holder)
        lock.take(now_ns)
        try:
            yield lock
        finally:
            lock.release()

    def put_if(self, name: str, data: bytes, tag: str | None) -> str | None:
        """Put an object where there is none (`tag` None), or in place of the one with this tag; give its new
        tag. None where somebody else was first.
        """
        mode: Any = "create" if tag is None else {"e_tag": tag}  # Any: the type of obstore's own stub
        try:
            found: str | None = obstore.put(self._store, name, data, mode=mode)["e_tag"]
        except (exceptions.AlreadyExistsError, exceptions.PreconditionError, FileExistsError):
            return None
        except (exceptions.NotSupportedError, RuntimeError):
            raise ShelfError(
                f"{self._place} does not support conditional writes, so it cannot be locked: use a store "
                "that does, or a folder"
            ) from None
        except _ERRORS as error:
            raise self._refusal("write", name, error) from error
        return found

    def find(self, name: str) -> tuple[bytes, str] | None:
        """Give an object with its tag; None where it is not there."""
        try:
            found = obstore.get(self._store, name)
            return bytes(found.bytes()), str(found.meta["e_tag"])
        except FileNotFoundError:
            return None
        except _ERRORS as error:
            raise self._refusal("read", name, error) from error

    def locked_by(self, holder: str) -> RepositoryLockedError:
        return RepositoryLockedError(
            f"{self._place} is in use by {holder}: wait until that one is done; the lock of one that crashed "
            f"lapses by itself after {BACKUP_LOCK_NS_MAX // 60_000_000_000} minutes"
        )

    def _refusal(self, doing: str, name: str, error: BaseException) -> ShelfError:
        where = f"{self._place.rstrip('/')}/{name}"
        if isinstance(error, FileNotFoundError):
            return MissingError(f"{where} is not there")
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        return ShelfError(f"cannot {doing} {where}: {first_line}")


class ObjectLock:
    """Behind `Lock`: an object that says who holds it, and until when."""

    def __init__(self, shelf: ObjectShelf, holder: str) -> None:
        self._shelf = shelf
        self._holder = holder
        self._tag: str | None = None
        self._until_ns = 0

    def take(self, now_ns: int) -> None:
        """Take the lock; raises `RepositoryLockedError`."""
        self._put(now_ns, None)
        if self._tag is not None:
            return
        found = self._shelf.find(LOCK_NAME)
        holder, until_ns = ("somebody", 0) if found is None else _read_lock(found[0])
        if found is None or until_ns > now_ns:
            raise self._shelf.locked_by(holder)
        self._put(now_ns, found[1])
        if self._tag is None:
            raise self._shelf.locked_by("somebody who was faster")

    def renew(self, now_ns: int) -> None:
        """Hold the lock for longer; raises `RepositoryLockedError` where it lapsed and somebody took it."""
        if now_ns < self._until_ns - BACKUP_LOCK_NS_MAX // 2:
            return
        self._put(now_ns, self._tag)
        if self._tag is None:
            raise self._shelf.locked_by("somebody who took it over, as this one was too slow")

    def release(self) -> None:
        """Let the lock go, unless somebody else has it by now."""
        found = self._shelf.find(LOCK_NAME)
        if found is not None and found[1] == self._tag:
            self._shelf.delete(LOCK_NAME)

    def _put(self, now_ns: int, tag: str | None) -> None:
        self._until_ns = now_ns + BACKUP_LOCK_NS_MAX
        data = json.dumps({"holder": self._holder, "until_ns": self._until_ns}).encode()
        self._tag = self._shelf.put_if(LOCK_NAME, data, tag)


def _read_lock(data: bytes) -> tuple[str, int]:
    """Read who holds a lock until when; a damaged one is held by nobody."""
    try:
        found = json.loads(data)
        return str(found["holder"]), int(found["until_ns"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return "nobody", 0


def open_object_shelf(place: str) -> ObjectShelf:
    """Open an object store by its URL; raises `ShelfError`."""
    from obstore.store import from_url

    try:
        return ObjectShelf(from_url(place), place)
    except _ERRORS as error:
        first_line = next(iter(str(error).splitlines()), type(error).__name__)
        raise ShelfError(
            f"{place} cannot be opened ({first_line}): say a folder, or a URL such as s3://bucket/path, "
            "gs://bucket/path or az://container/path"
        ) from error
