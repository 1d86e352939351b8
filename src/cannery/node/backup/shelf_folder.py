"""A repository in a folder: files of mode 0600, written beside their name, synced, then renamed.

The lock is the file system's: it goes with its process, whatever that one's end.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from cannery.node.backup.errors import MissingError, RepositoryLockedError, ShelfError
from cannery.node.backup.format.names import LOCK_NAME
from cannery.node.backup.shelf import Stored

_PARTIAL: Final = ".partial"
_FULL: Final = (errno.ENOSPC, errno.EDQUOT)
_HOLDER_SIZE_CHARS_MAX: Final = 200


class FolderShelf:
    """Behind `Shelf`. The folder is made with the first object."""

    def __init__(self, path: Path) -> None:
        self._path = path.absolute()

    def put(self, name: str, data: bytes) -> None:
        path = self._path / name
        partial = path.with_name(path.name + _PARTIAL)
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(partial, data)
            os.rename(partial, path)
            _sync_folder(path.parent)
        except OSError as error:
            _drop(partial)
            raise _refusal("write", path, error) from error

    def get(self, name: str) -> bytes:
        try:
            return (self._path / name).read_bytes()
        except OSError as error:
            raise _refusal("read", self._path / name, error) from error

    def get_range(self, name: str, start: int, size: int) -> bytes:
        try:
            with open(self._path / name, "rb") as file:
                file.seek(start)
                return file.read(size)
        except OSError as error:
            raise _refusal("read", self._path / name, error) from error

    def list(self) -> Iterator[Stored]:
        try:
            for path in sorted(self._path.rglob("*")):
                name = path.relative_to(self._path).as_posix()
                if path.is_file() and not name.endswith(_PARTIAL) and name != LOCK_NAME:
                    yield Stored(name, path.stat().st_size)
        except OSError as error:
            raise _refusal("list", self._path, error) from error

    def delete(self, name: str) -> None:
        try:
            (self._path / name).unlink(missing_ok=True)
        except OSError as error:
            raise _refusal("delete", self._path / name, error) from error

    @contextmanager
    def lock(self, holder: str, now_ns: int) -> Iterator[FolderLock]:  # noqa: ARG002  (the port's name)
        path = self._path / LOCK_NAME
        try:
            self._path.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _refusal("lock", self._path, error) from error
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                other = os.pread(descriptor, _HOLDER_SIZE_CHARS_MAX, 0).decode(errors="replace").strip()
                raise RepositoryLockedError(
                    f"{self._path} is in use by {other or 'another process'}: wait until that one is done"
                ) from None
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder[:_HOLDER_SIZE_CHARS_MAX].encode(), 0)
            self._drop_partial()
            yield FolderLock()
        finally:
            os.close(descriptor)

    def _drop_partial(self) -> None:
        """Remove what a process left half written; nobody else writes while the lock is held."""
        for path in self._path.rglob(f"*{_PARTIAL}"):
            _drop(path)


class FolderLock:
    """Behind `Lock`: it stays as long as the process."""

    def renew(self, now_ns: int) -> None:
        """Do nothing: the file system holds the lock."""


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _drop(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        # It is in nobody's way; the next one that holds the lock tries again.
        return


def _refusal(doing: str, path: Path, error: OSError) -> ShelfError:
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{path} is not there")
    if error.errno in _FULL:
        return ShelfError(
            f"the disk is full: cannot {doing} {path}; what earlier backups hold is safe. Make room, or "
            "prune, and run the backup again: it goes on with what is there"
        )
    return ShelfError(f"cannot {doing} {path}: {error.strerror or error}")
