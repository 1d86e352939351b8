"""The file system as Diode's clients use it: directories, files that share contents by hash, chunks.

With its faults mended: the limit holds for every content; `finalize_file` wants all bytes and the hash; what
is not finished does not show; deleting the last file of a content frees its bytes and its place in the
directory.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import Context, nat, nat64, query, update
from cannery.cdk.component import Component, Uses
from cannery.cdk.content_store import ContentRefused

from . import bounds
from .diode_types import BytesResult, Directory, Done, File, FileResult, NatResult
from .file_tree import ROOT, FileTree
from .mailbox import Mailbox
from .members import Members
from .refusal import refuse
from .retention import BYTES_MIN, Retention
from .roles import ADMIN, MEMBER

_NO_PARENT = "cannot create directory without parent - only root directory can have null parent"


class Files(Component, prefix="files"):
    """Diode's methods about directories and files. A content's hash is 16 to 32 bytes of its SHA-256."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)
    tree = Uses(FileTree)
    retention = Uses(Retention)

    # directories

    @update
    def create_directory(
        self, ctx: Context, directory_id: bytes, name_hash: bytes, parent_id: bytes | None
    ) -> Done:
        """Create a directory in another one."""
        self.members.require(ctx, MEMBER)
        fault = self._directory_fault(directory_id, name_hash, parent_id)
        if fault is not None or parent_id is None:
            return Done.err(fault or _NO_PARENT)
        self.tree.add_directory(ctx, directory_id, name_hash, parent_id)
        return Done.ok()

    def _directory_fault(self, id: bytes, name: bytes, parent_id: bytes | None) -> str | None:
        least, most = bounds.DIRECTORY_ID_SIZE_BYTES_MIN, bounds.DIRECTORY_ID_SIZE_BYTES_MAX
        if not least <= len(id) <= most:
            return f"directory_id must be at least {least} bytes and at most {most}, not {len(id)}"
        if id == ROOT:
            return "cannot create directory with reserved root ID"
        if len(name) > bounds.NAME_SIZE_BYTES_MAX:
            return f"a name has at most {bounds.NAME_SIZE_BYTES_MAX} bytes, not {len(name)}"
        parent = None if parent_id is None else self.tree.find_directory(parent_id)
        if parent_id is not None and parent is None:
            return "parent directory not found"
        if parent is not None and parent.child_count >= bounds.DIRECTORY_ENTRY_COUNT_MAX:
            return f"the parent holds {bounds.DIRECTORY_ENTRY_COUNT_MAX} entries, the most there can be"
        if id in self.tree.directories:
            return "directory already exists"
        if len(self.tree.directories) >= bounds.DIRECTORY_COUNT_MAX:
            return f"there are {bounds.DIRECTORY_COUNT_MAX} directories, the most that a zone keeps"
        return None

    @query
    def get_directory(self, ctx: Context, directory_id: bytes) -> Directory | None:
        """Return a directory and what lies in it."""
        self.members.require(ctx)
        return self.tree.directory(directory_id)

    @query
    def get_child_directories(self, ctx: Context, directory_id: bytes) -> list[Directory]:
        """Return the directories in a directory."""
        self.members.require(ctx)
        found = [self.tree.directory(child) for child in self.tree.children(directory_id)]
        return [directory for directory in found if directory is not None]

    @query
    def get_directory_count(self, ctx: Context) -> nat:
        """Return how many directories there are, the root included."""
        self.members.require(ctx)
        return len(self.tree.directories)

    # writing files

    @update
    def write_file(
        self, ctx: Context, directory_id: bytes, name_hash: bytes, content_hash: bytes, ciphertext: bytes
    ) -> NatResult:
        """Write a whole file; return its id. A content that is there already is not written again."""
        self.members.require(ctx, MEMBER)
        file = self._add(ctx, directory_id, name_hash, content_hash, ciphertext)
        return NatResult.err(file) if isinstance(file, str) else NatResult.ok(file.id)

    @update
    def allocate_file(
        self, ctx: Context, directory_id: bytes, name_hash: bytes, content_hash: bytes, size: nat64
    ) -> FileResult:
        """Add a file whose content comes in chunks, or is there already."""
        self.members.require(ctx, MEMBER)
        file = self._add(ctx, directory_id, name_hash, content_hash, size)
        return FileResult.err(file) if isinstance(file, str) else FileResult.ok(file)

    def _add(
        self, ctx: Context, directory: bytes, name: bytes, content_hash: bytes, content: bytes | int
    ) -> File | str:
        """Add a file with its whole content, or with the size of one that comes in chunks; find it where it
        is there.
        """
        fault = self._file_fault(directory, name, content_hash)
        if fault is not None:
            return fault
        sharing = {id: self.tree.files[id] for id in self.tree.files_of(content_hash)}
        known = next(
            (id for id, file in sharing.items() if (file.directory, file.name) == (directory, name)), None
        )
        stored = self.tree.find_directory(directory)
        if known is None and stored is not None and stored.child_count >= bounds.DIRECTORY_ENTRY_COUNT_MAX:
            return f"the directory holds {bounds.DIRECTORY_ENTRY_COUNT_MAX} entries, the most there can be"
        if known is None and len(sharing) >= bounds.FILES_PER_CONTENT_COUNT_MAX:
            return f"{bounds.FILES_PER_CONTENT_COUNT_MAX} files share this content, the most there can be"
        contents = self.mailbox.contents
        try:
            if isinstance(content, int):
                begun = contents.begin(content_hash, content)
            else:
                begun = contents.put(content_hash, content, content_hash)
        except ContentRefused as refused:
            self.tree.forget_contents(refused.dropped)
            return str(refused)
        self.tree.forget_contents(begun.dropped)
        id = self.tree.add_file(ctx, directory, name, content_hash) if known is None else known
        self.retention.arm(ctx)
        file = self.tree.file(id)
        assert file is not None, "it was just added, or its content found"
        return file

    def _file_fault(self, directory_id: bytes, name: bytes, content_hash: bytes) -> str | None:
        least, most = bounds.CONTENT_HASH_SIZE_BYTES_MIN, bounds.CONTENT_HASH_SIZE_BYTES_MAX
        if not least <= len(content_hash) <= most:
            return f"content_hash must be at least {least} bytes and at most {most}, not {len(content_hash)}"
        if len(name) > bounds.NAME_SIZE_BYTES_MAX:
            return f"a name has at most {bounds.NAME_SIZE_BYTES_MAX} bytes, not {len(name)}"
        return None if self.tree.find_directory(directory_id) is not None else "directory not found"

    @update
    def write_file_chunk(self, ctx: Context, content_hash: bytes, chunk_offset: nat64, chunk: bytes) -> Done:
        """Write a chunk of an allocated content, in any order."""
        self.members.require(ctx, MEMBER)
        if len(chunk) > bounds.CHUNK_SIZE_BYTES_MAX:
            return Done.err(f"a chunk has at most {bounds.CHUNK_SIZE_BYTES_MAX} bytes, not {len(chunk)}")
        content = self.mailbox.contents.get(content_hash)
        if content is not None and content.is_finished:
            return Done.err("file is already finalized: it cannot be changed")
        try:
            self.mailbox.contents.write(content_hash, chunk_offset, chunk)
        except ContentRefused as refused:
            return Done.err(str(refused))
        return Done.ok()

    @update
    def finalize_file(self, ctx: Context, content_hash: bytes) -> Done:
        """Make a whole content readable; its SHA-256 must begin with its hash."""
        self.members.require(ctx, MEMBER)
        try:
            self.mailbox.contents.finish(content_hash, content_hash)
        except ContentRefused as refused:
            return Done.err(str(refused))
        return Done.ok()

    @update
    def delete_file(self, ctx: Context, file_id: nat) -> Done:
        """Delete a file; the last one of a content frees its bytes."""
        self.members.require(ctx, MEMBER)
        removed = self.tree.remove_file(file_id) if file_id < 2**64 else None
        return Done.ok() if removed is not None else Done.err("file not found")

    # reading files

    @query
    def read_file_chunk(
        self, ctx: Context, content_hash: bytes, chunk_offset: nat64, chunk_size: nat
    ) -> BytesResult:
        """Return a part of a content."""
        self.members.require(ctx)
        if chunk_size > bounds.CHUNK_SIZE_BYTES_MAX:
            return BytesResult.err(
                f"a chunk has at most {bounds.CHUNK_SIZE_BYTES_MAX} bytes, not {chunk_size}"
            )
        try:
            return BytesResult.ok(self.mailbox.contents.read(content_hash, chunk_offset, chunk_size))
        except ContentRefused as refused:
            return BytesResult.err(str(refused))

    @query
    def get_file_by_hash(self, ctx: Context, content_hash: bytes) -> FileResult:
        """Return the oldest file that has a content."""
        self.members.require(ctx)
        files = self.tree.files_of(content_hash)
        file = self.tree.file(files[0]) if files else None
        return FileResult.err("file not found") if file is None else FileResult.ok(file)

    @query
    def get_file_by_id(self, ctx: Context, file_id: nat) -> File | None:
        """Return a file."""
        self.members.require(ctx)
        return self.tree.file(file_id)

    @query
    def get_file_by_id_batch(self, ctx: Context, file_ids: list[nat]) -> list[File | None]:
        """Return several files, in the order asked."""
        self.members.require(ctx)
        if len(file_ids) > bounds.FILE_BATCH_COUNT_MAX:
            refuse(
                ctx, f"at most {bounds.FILE_BATCH_COUNT_MAX} files are asked at a time, not {len(file_ids)}"
            )
        return [self.tree.file(id) for id in file_ids]

    @query
    def get_files_in_directory(self, ctx: Context, directory_id: bytes) -> list[File]:
        """Return the finished files of a directory."""
        self.members.require(ctx)
        return self.tree.finished_files(directory_id)

    # figures

    @query
    def get_file_system_usage(self, ctx: Context) -> nat64:
        """Return how many bytes the contents take."""
        self.members.require(ctx)
        return self.mailbox.contents.usage().size_bytes

    @query
    def get_file_system_max_usage(self, ctx: Context) -> nat64:
        """Return how many bytes the contents may take."""
        self.members.require(ctx)
        return self.mailbox.contents.rule.bytes_max

    @query
    def get_file_count(self, ctx: Context) -> nat:
        """Return how many files there are, unfinished ones included."""
        self.members.require(ctx)
        return len(self.tree.files)

    @query
    def get_last_file_id(self, ctx: Context) -> nat:
        """Return the last id that a file was given; 0 where none was."""
        self.members.require(ctx)
        return self.tree.next_file.get() - 1

    @update(oneway=True)
    def set_file_system_max_storage(self, ctx: Context, max_storage: nat64) -> None:
        """Set how many bytes the contents may take; what is beyond goes, oldest first."""
        self.members.require(ctx, ADMIN)
        if max_storage < BYTES_MIN:
            refuse(ctx, f"files: keep at least {BYTES_MIN} bytes")
        self.mailbox.contents.set_rule(replace(self.mailbox.contents.rule, bytes_max=max_storage))
        self.retention.clean(ctx)
