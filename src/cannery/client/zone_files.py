"""Files and attachments of a zone: files by path, attachments by their hash.

The names in a directory are what its cover makes of them. A file that is put where one is takes its place;
what is there under a name is what was put last.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from hashlib import sha256
from pathlib import Path

from cannery.client.errors import ClientError, Unreachable
from cannery.client.transfer import ProgressReport
from cannery.client.zone_cover import Cover, CoverFault
from cannery.client.zone_door import ZoneDoor
from cannery.client.zone_transfer import ATTACHMENT, FILE, ContentMethods, download, upload
from cannery.client.zone_values import Fields, FileInfo, ZoneRefused, is_text
from cannery.limits import CONTENT_SIZE_BYTES_MAX

ROOT = bytes(32)
_DIRECTORY_ID_SIZE_BYTES = 16
_GIVE_UP_S = 5.0


class NotThere(ClientError):
    """A path leads nowhere."""


class Uncovered(ClientError):
    """What the zone keeps cannot be opened: cut, changed, or sealed with a key that one does not have."""


class ZoneFiles:
    """The file system and the attachments of a zone."""

    def __init__(
        self, door: ZoneDoor, cover: Callable[[], Cover], learn_keys: Callable[[], Awaitable[None]]
    ) -> None:
        self._door = door
        self._cover = cover
        self._learn_keys = learn_keys

    # the tree

    async def entries(self, path: str = "/") -> list[FileInfo]:
        """List a directory: directories first, then files, by name."""
        await self._learn_keys()
        parts = _parts(path)
        directory = await self._directory(parts)
        at = "/" + "".join(f"{part}/" for part in parts)
        found = [
            FileInfo(f"{at}{name}", True, 0, each["timestamp"])
            for name, each in await self._named("get_child_directories", directory)
        ]
        for name, file in self._latest(await self._named("get_files_in_directory", directory)).items():
            found.append(_info(f"{at}{name}", file))
        return sorted(found, key=lambda info: (not info.is_directory, info.path))

    async def find(self, path: str) -> FileInfo:
        """Give the file at a path. Raises `NotThere`."""
        await self._learn_keys()
        parts = _parts(path)
        if not parts:
            raise NotThere("/ is a directory: name a file in it")
        directory = await self._directory(parts[:-1])
        files = self._latest(await self._named("get_files_in_directory", directory))
        if parts[-1] not in files:
            raise NotThere(f"there is no file {path} in the zone")
        return _info("/" + "/".join(parts), files[parts[-1]])

    async def make_directory(self, path: str) -> bytes:
        """Make a directory and those above it, as far as they are not there; return its id. Raises `NotThere`
        where a file stands in the way.
        """
        await self._learn_keys()
        directory, parts = ROOT, _parts(path)
        for place, name in enumerate(parts):
            inner = await self._child(directory, name)
            if inner is None:
                if name in dict(await self._named("get_files_in_directory", directory)):
                    raise NotThere(f"/{'/'.join(parts[: place + 1])} is a file, and no directory")
                inner = secrets.token_bytes(_DIRECTORY_ID_SIZE_BYTES)
                await self._door.tell(
                    "create_directory", inner, self._cover().seal_name(directory, name, b""), directory
                )
            directory = inner
        return directory

    async def delete(self, path: str) -> None:
        """Delete a file."""
        info = await self.find(path)
        await self._door.tell("delete_file", info.file_id)

    async def _directory(self, parts: Sequence[str]) -> bytes:
        directory = ROOT
        for place, name in enumerate(parts):
            inner = await self._child(directory, name)
            if inner is None:
                raise NotThere(f"there is no directory /{'/'.join(parts[: place + 1])} in the zone")
            directory = inner
        return directory

    async def _child(self, directory: bytes, name: str) -> bytes | None:
        named = await self._named("get_child_directories", directory)
        # Two clients may have made it at the same time: everybody takes the first.
        ids = sorted((each["timestamp"], bytes(each["id"])) for found, each in named if found == name)
        return ids[0][1] if ids else None

    async def _named(self, method: str, directory: bytes) -> list[tuple[str, Fields]]:
        found = await self._door.ask(method, directory)
        return [(self._name(directory, each), each) for each in found]

    def _name(self, directory: bytes, each: Fields) -> str:
        stored: bytes = each["metadata_ciphertext"]
        try:
            return self._cover().open_name(directory, stored, each.get("content_hash", b""))
        except CoverFault:
            return f"?{stored.hex()[:32]}"

    def _latest(self, named: Sequence[tuple[str, Fields]]) -> dict[str, Fields]:
        return dict(sorted(named, key=lambda pair: pair[1]["id"]))

    # contents

    async def put(self, path: str, data: bytes, *, on_progress: ProgressReport | None = None) -> FileInfo:
        """Write a file, in the place of one that is there; return it. Directories above it are made. Raises
        `NotThere` where it would stand in the place of a directory.
        """
        parts = _parts(path)
        if not parts:
            raise NotThere("/ is a directory: name a file in it")
        directory = await self.make_directory("/".join(parts[:-1]))
        before = [
            each["id"]
            for name, each in await self._named("get_files_in_directory", directory)
            if name == parts[-1]
        ]
        if not before and await self._child(directory, parts[-1]) is not None:
            raise NotThere(f"/{'/'.join(parts)} is a directory: name a file in it")
        stored, digest = self._sealed(data)
        name = self._cover().seal_name(directory, parts[-1], digest)
        file = await self._door.tell("allocate_file", directory, name, digest, len(stored))
        if not file["finalized"]:
            async with self._given_up_by("delete_file", file["id"]):
                await upload(self._door, FILE, digest, stored, on_progress or _ignore)
        for id in before:
            if id != file["id"]:
                await self._door.tell("delete_file", id)
        return _info("/" + "/".join(parts), file)

    async def get(self, path: str, target: Path, *, on_progress: ProgressReport | None = None) -> FileInfo:
        """Read a file into one on disk, which is there whole or not at all."""
        info = await self.find(path)
        await _write_file(target, self._read(FILE, info.content_hash, info.size, on_progress))
        return info

    async def read(self, path: str, *, on_progress: ProgressReport | None = None) -> bytes:
        """Read a file into memory."""
        info = await self.find(path)
        return b"".join([p async for p in self._read(FILE, info.content_hash, info.size, on_progress)])

    async def put_attachment(self, data: bytes, *, on_progress: ProgressReport | None = None) -> bytes:
        """Write an attachment; return its name, the SHA-256 of what the zone keeps of it."""
        await self._learn_keys()
        stored, digest = self._sealed(data)
        known = await self._attachment_size(digest)
        if known is None:
            await self._door.tell("allocate_attachment", digest, len(stored))
            async with self._given_up_by("delete_attachment", digest):
                await upload(self._door, ATTACHMENT, digest, stored, on_progress or _ignore)
        return digest

    @asynccontextmanager
    async def _given_up_by(self, method: str, *args: object) -> AsyncIterator[None]:
        """Give the room of an upload back that ends in the middle and that nobody can go on with: the next
        try is sealed anew. What is left of others is found again, or makes room after a day.
        """
        try:
            yield
        except BaseException as error:
            if not self._cover().is_repeatable and not isinstance(error, Unreachable):
                with suppress(ClientError, TimeoutError):
                    async with asyncio.timeout(_GIVE_UP_S):
                        await self._door.tell(method, *args)
            raise

    async def get_attachment(
        self, digest: bytes, target: Path, *, on_progress: ProgressReport | None = None
    ) -> None:
        """Read an attachment into a file on disk, which is there whole or not at all."""
        size = await self._found_size(digest)
        await _write_file(target, self._read(ATTACHMENT, digest, size, on_progress))

    async def read_attachment(self, digest: bytes, *, on_progress: ProgressReport | None = None) -> bytes:
        """Read an attachment into memory."""
        size = await self._found_size(digest)
        return b"".join([part async for part in self._read(ATTACHMENT, digest, size, on_progress)])

    async def _attachment_size(self, digest: bytes) -> int | None:
        try:
            found = await self._door.ask("get_attachment_metadata", digest)
        except ZoneRefused as refused:
            if refused.reason == "attachment not found":
                return None
            raise
        return found["size"] if found["finalized"] else None

    async def _found_size(self, digest: bytes) -> int:
        await self._learn_keys()
        size = await self._attachment_size(digest)
        if size is None:
            raise NotThere(f"there is no attachment {digest.hex()} in the zone")
        return size

    def _sealed(self, data: bytes) -> tuple[bytes, bytes]:
        stored = self._cover().seal_content(data)
        if not stored:
            raise ZoneRefused("a zone keeps no empty contents: put at least one byte", None)
        if len(stored) > CONTENT_SIZE_BYTES_MAX:
            sealed = "" if len(stored) == len(data) else f", sealed {len(stored)}"
            most = f"a zone keeps contents of up to {CONTENT_SIZE_BYTES_MAX} bytes"
            raise ZoneRefused(f"{most}: this one has {len(data)}{sealed}", None)
        return stored, sha256(stored).digest()

    async def _read(
        self, methods: ContentMethods, digest: bytes | None, size: int, on_progress: ProgressReport | None
    ) -> AsyncGenerator[bytes]:
        assert digest is not None, "a file has a content"
        chunks = download(self._door, methods, digest, size, on_progress or _ignore)
        opener = self._cover().content_opener()
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield opener.take(chunk)
            yield opener.end()
        except CoverFault as fault:
            raise Uncovered(f"what the zone keeps under this name cannot be opened: {fault}") from None


async def _write_file(target: Path, parts: AsyncGenerator[bytes]) -> None:
    """Write parts to a file that appears when all are there."""
    # A name of its own: the target's may be as long as a name can be.
    draft = target.with_name(f".cannery-{secrets.token_hex(4)}.part")
    try:
        async with aclosing(parts):
            with draft.open("xb") as file:
                async for part in parts:
                    file.write(part)
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def _info(path: str, file: Fields) -> FileInfo:
    return FileInfo(path, False, file["size"], file["timestamp"], file["id"], file["content_hash"])


def _parts(path: str) -> list[str]:
    """Take a path apart. Raises `NotThere` where a part cannot be a name."""
    parts = [part for part in path.split("/") if part]
    if any(part in (".", "..") for part in parts):
        raise NotThere(f"{path!r} is no path in a zone: it goes down from the root, without '.' and '..'")
    if not is_text(path):
        raise NotThere(f"{path!r} is no path in a zone: its names are text in UTF-8")
    return parts


def _ignore(done: int, in_all: int) -> None:
    """Tell nobody how far it is."""
