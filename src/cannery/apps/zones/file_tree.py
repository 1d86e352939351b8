"""Directories and files of a zone as they lie in its state: a tree of directories, files that share contents.

Whoever drops a content tells `forget_contents`, which takes its files out of their directories.
"""

from __future__ import annotations

from collections.abc import Iterable

from cannery import Context, StableCell, StableMap, StableSet, nat64, record
from cannery.cdk.component import Component, Uses

from .bounds import CONTENT_HASH_SIZE_BYTES_MAX, DIRECTORY_ID_SIZE_BYTES_MAX
from .diode_types import Directory, File
from .mailbox import Mailbox
from .refusal import NS_PER_S

ROOT = bytes(32)


@record
class StoredDirectory:
    """A directory without what lies in it."""

    name: bytes
    parent: bytes | None
    created_ns: nat64
    child_count: nat64


@record
class StoredFile:
    """A file: a name in a directory for a content."""

    directory: bytes
    name: bytes
    content_hash: bytes
    created_ns: nat64


class FileTree(Component, prefix="tree"):
    """The tables of the file system."""

    directories = StableMap(bytes, StoredDirectory, counted=True)
    subdirectories = StableSet(tuple[bytes, bytes])
    directory_files = StableSet(tuple[bytes, nat64])
    files = StableMap(nat64, StoredFile, counted=True)
    content_files = StableSet(tuple[bytes, nat64])
    next_file = StableCell(nat64, 1)
    mailbox = Uses(Mailbox)

    def found(self, ctx: Context) -> None:
        """Make the root."""
        self.directories.put(ROOT, StoredDirectory(b"", None, ctx.now_ns, 0))

    def add_directory(self, ctx: Context, id: bytes, name: bytes, parent: bytes) -> None:
        """Add a directory to one that is there."""
        self.directories.put(id, StoredDirectory(name, parent, ctx.now_ns, 0))
        self.subdirectories.add((parent, id))
        self._count(parent, 1)

    def add_file(self, ctx: Context, directory: bytes, name: bytes, content_hash: bytes) -> int:
        """Add a file to a directory that is there; return its id."""
        id = self.next_file.get()
        self.next_file.set(id + 1)
        self.files.put(id, StoredFile(directory, name, content_hash, ctx.now_ns))
        self.directory_files.add((directory, id))
        self.content_files.add((content_hash, id))
        self._count(directory, 1)
        return id

    def remove_file(self, id: int) -> StoredFile | None:
        """Take a file out of its directory; its content goes with the last file that has it."""
        stored = self.files.get(id)
        if stored is None:
            return None
        self.files.delete(id)
        self.directory_files.discard((stored.directory, id))
        self.content_files.discard((stored.content_hash, id))
        self._count(stored.directory, -1)
        if next(self.content_files.keys(prefix=(stored.content_hash,), limit=1), None) is None:
            self.mailbox.contents.remove(stored.content_hash)
        return stored

    def forget_contents(self, hashes: Iterable[bytes]) -> None:
        """Take the files of contents that are gone out of their directories."""
        for content_hash in hashes:
            for _, id in list(self.content_files.keys(prefix=(content_hash,))):
                self.remove_file(id)

    def files_of(self, content_hash: bytes) -> list[int]:
        """List the files that have a content."""
        if len(content_hash) > CONTENT_HASH_SIZE_BYTES_MAX:
            return []
        return [id for _, id in self.content_files.keys(prefix=(content_hash,))]

    def file(self, id: int) -> File | None:
        """Return a file as clients see it."""
        stored = self.files.get(id) if id < 2**64 else None
        content = None if stored is None else self.mailbox.contents.get(stored.content_hash)
        if stored is None or content is None:
            return None
        return File(
            id,
            stored.created_ns // NS_PER_S,
            stored.directory,
            stored.name,
            stored.content_hash,
            0,
            content.size,
            content.is_finished,
        )

    def find_directory(self, id: bytes) -> StoredDirectory | None:
        """Return a directory as it lies here; None where there is none, or can be none with such an id."""
        return self.directories.get(id) if len(id) <= DIRECTORY_ID_SIZE_BYTES_MAX else None

    def directory(self, id: bytes) -> Directory | None:
        """Return a directory as clients see it; files that are not finished do not show."""
        stored = self.find_directory(id)
        if stored is None:
            return None
        children, files = [], []
        if stored.child_count:
            children, files = self.children(id), [file.id for file in self.finished_files(id)]
        return Directory(id, stored.name, stored.parent, stored.created_ns // NS_PER_S, children, files)

    def children(self, directory: bytes) -> list[bytes]:
        """List the directories in a directory, in the order in which they were made."""
        stored = self.find_directory(directory)
        if stored is None or not stored.child_count:
            return []
        found = [child for _, child in self.subdirectories.keys(prefix=(directory,))]
        return sorted(found, key=lambda child: (self.directories[child].created_ns, child))

    def finished_files(self, directory: bytes) -> list[File]:
        """List the finished files of a directory."""
        stored = self.find_directory(directory)
        if stored is None or not stored.child_count:
            return []
        found = [self.file(id) for _, id in self.directory_files.keys(prefix=(directory,))]
        return [file for file in found if file is not None and file.finalized]

    def _count(self, directory: bytes, difference: int) -> None:
        stored = self.directories[directory]
        count = stored.child_count + difference
        self.directories.put(directory, StoredDirectory(stored.name, stored.parent, stored.created_ns, count))
