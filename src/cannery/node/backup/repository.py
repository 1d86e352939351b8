"""A repository at work: its backups by number, its chunks by hash, packs and manifests written in safe order.

Packs come first and a manifest last, so that whatever ends a backup midway leaves packs that no backup needs,
and every backup that is listed whole. Chunks that any pack holds are never written again, those of a backup
that was cut short included.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from cannery.limits import (
    BACKUP_COUNT_MAX,
    BACKUP_FRAME_CACHE_COUNT_MAX,
    BACKUP_FRAME_CACHED_SIZE_BYTES_MAX,
    BACKUP_HEAD_SIZE_BYTES_MAX,
    BACKUP_PACK_SIZE_BYTES,
)
from cannery.node.backup.errors import BackupError, MissingError
from cannery.node.backup.format.chunks import read_unit
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.manifest import (
    BackupHead,
    Manifest,
    UnitEntry,
    apply_manifest,
    decode_head,
    decode_manifest,
    encode_manifest,
)
from cannery.node.backup.format.names import (
    MARKER_NAME,
    ManifestName,
    decode_marker,
    encode_marker,
    pack_name,
    parse_manifest_name,
    parse_pack_name,
)
from cannery.node.backup.format.pack import (
    PACK_TAIL_SIZE_BYTES,
    ChunkPlace,
    Pack,
    PackBuilder,
    index_size_bytes,
    read_frame,
    read_index,
    take_chunk,
)
from cannery.node.backup.shelf import Shelf

_TAIL_GUESS_BYTES = 64 * 1024
_HEAD_GUESS_BYTES = 64 * 1024
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup in its repository."""

    name: ManifestName
    head: BackupHead


def open_repository(shelf: Shelf, *, create: bool = False) -> Repository:
    """Open a repository, or with `create` make one where nothing is; raises `BackupError`."""
    try:
        repository_id = decode_marker(shelf.get(MARKER_NAME))
    except MissingError:
        strangers = [stored.name for stored in shelf.list()]
        if strangers:
            raise BackupError(
                f"this is no repository of backups (it holds {min(strangers)!r} and no {MARKER_NAME!r}): "
                "name an empty place, or the right one"
            ) from None
        if not create:
            raise BackupError("there are no backups here: make one with 'cannery backup create'") from None
        repository_id = secrets.token_bytes(16)
        shelf.put(MARKER_NAME, encode_marker(repository_id))
    return Repository(shelf, repository_id)


class Repository:
    """An open repository. Chunks are known after `load_index`."""

    def __init__(self, shelf: Shelf, repository_id: bytes) -> None:
        self.shelf = shelf
        self.id = repository_id
        self.packs: dict[str, Mapping[bytes, ChunkPlace]] = {}
        self._chunks: dict[bytes, str] = {}
        self._frames: OrderedDict[tuple[str, int], bytes] = OrderedDict()

    # --- backups

    def backups(self) -> list[Backup]:
        """List the backups, oldest first; raises `BackupFormatError` with the name of a damaged one."""
        found: dict[int, Backup] = {}
        for name in self.manifest_names():
            backup = Backup(name, self._read_head(name))
            other = found.get(name.number)
            # A pruning that was cut short leaves the whole one beside the difference that it replaces.
            if other is None or backup.head.base is None:
                found[name.number] = backup
        return [found[number] for number in sorted(found)]

    def manifest_names(self) -> list[ManifestName]:
        """List the names of manifests."""
        names = (parse_manifest_name(stored.name) for stored in self.shelf.list())
        return sorted((name for name in names if name is not None), key=lambda name: (name.number, name.hash))

    def find(self, wanted: int | None) -> Backup:
        """Give the backup with a number, or the newest; raises `BackupError`."""
        backups = self.backups()
        if not backups:
            raise BackupError("there are no backups here yet: make one with 'cannery backup create'")
        if wanted is None:
            return backups[-1]
        for backup in backups:
            if backup.head.number == wanted:
                return backup
        raise BackupError(
            f"there is no backup {wanted}; there are {backups[0].head.number} to {backups[-1].head.number}: "
            "'cannery backup list' shows them"
        )

    def newest_of_node(self) -> Backup:
        """Give the newest backup of a whole node; raises `BackupError`."""
        for backup in reversed(self.backups()):
            if backup.head.is_node:
                return backup
        raise BackupError("there is no backup of a whole node here: make one with 'cannery backup create'")

    def read_manifest(self, name: ManifestName) -> Manifest:
        """Read a manifest and check it by its name."""
        data = self.shelf.get(str(name))
        if sha256(data).hexdigest() != name.hash:
            raise BackupFormatError(f"{name} is damaged: its SHA-256 is not that of its name")
        try:
            manifest = decode_manifest(data)
        except BackupFormatError as error:
            raise BackupFormatError(f"{name}: {error}") from None
        if manifest.head.number != name.number:
            raise BackupFormatError(f"{name} is that of backup {manifest.head.number}: it was renamed")
        return manifest

    def units(self, backup: Backup, backups: Sequence[Backup]) -> dict[bytes, UnitEntry]:
        """Put a backup's units together from its chain of manifests."""
        by_number = {other.head.number: other for other in backups}
        chain: list[Manifest] = []
        at: Backup | None = backup
        while at is not None:
            manifest = self.read_manifest(at.name)
            chain.append(manifest)
            base = manifest.head.base
            if base is None:
                break
            at = by_number.get(base.number)
            if at is None or at.head.listing != base.listing or len(chain) > BACKUP_COUNT_MAX:
                raise BackupFormatError(
                    f"backup {backup.head.number} needs backup {base.number}, which is not here as it was"
                )
        units: dict[bytes, UnitEntry] = {}
        for manifest in reversed(chain):
            units = apply_manifest(manifest, units)
        return units

    def _read_head(self, name: ManifestName) -> BackupHead:
        try:
            start = self.shelf.get_range(str(name), 0, _HEAD_GUESS_BYTES)
            size = int.from_bytes(start[8:12], "big")
            if _HEAD_GUESS_BYTES - 64 < size <= BACKUP_HEAD_SIZE_BYTES_MAX:
                start = self.shelf.get_range(str(name), 0, size + 64)
            head, _ = decode_head(start)
        except BackupFormatError as error:
            raise BackupFormatError(f"{name}: {error}; 'cannery backup verify' tells more") from None
        if head.number != name.number:
            raise BackupFormatError(f"{name} is that of backup {head.number}: it was renamed")
        return head

    # --- chunks

    def load_index(self, say: Say) -> None:
        """Read which chunks lie in which packs; raises `BackupFormatError` with the name of a damaged one."""
        for count, (pack, size_bytes) in enumerate(self.pack_names()):
            if pack not in self.packs:
                say(f"reading the index of pack {count + 1}")
                self.add_pack(pack, self.read_index(pack, size_bytes))

    def pack_names(self) -> list[tuple[str, int]]:
        """List the packs with their sizes."""
        found = ((parse_pack_name(stored.name), stored.size_bytes) for stored in self.shelf.list())
        return sorted((name, size) for name, size in found if name is not None)

    def read_index(self, pack: str, size_bytes: int) -> dict[bytes, ChunkPlace]:
        """Read the index at the end of a pack."""
        name = pack_name(pack)
        try:
            wanted = min(_TAIL_GUESS_BYTES, size_bytes)
            end = self.shelf.get_range(name, size_bytes - wanted, wanted)
            taken = index_size_bytes(end[-PACK_TAIL_SIZE_BYTES:])
            if taken > wanted:
                wanted = min(taken, size_bytes)
                end = self.shelf.get_range(name, size_bytes - wanted, wanted)
            return read_index(end, size_bytes)
        except BackupFormatError as error:
            raise BackupFormatError(f"{name}: {error}; 'cannery backup verify' tells more") from None

    def add_pack(self, pack: str, places: Mapping[bytes, ChunkPlace]) -> None:
        """Note a pack and its chunks."""
        self.packs[pack] = places
        for chunk in places:
            self._chunks.setdefault(chunk, pack)

    def has(self, chunk: bytes) -> bool:
        """Say whether a pack holds a chunk."""
        return chunk in self._chunks

    def chunk(self, wanted: bytes) -> bytes:
        """Read a chunk and check it; raises `BackupFormatError`."""
        pack = self._chunks.get(wanted)
        if pack is None:
            raise BackupFormatError(f"chunk {wanted.hex()[:16]} is in no pack: a pack is missing")
        place = self.packs[pack][wanted]
        try:
            return take_chunk(self._frame(pack, place), place, wanted)
        except BackupFormatError as error:
            raise BackupFormatError(
                f"{pack_name(pack)}: {error}; take another backup, or that file from a copy: "
                "'cannery backup verify' tells what else needs it"
            ) from None

    def entries(self, unit: UnitEntry) -> Iterator[tuple[bytes, bytes]]:
        """Yield the entries of a unit, each chunk checked by its hash."""
        return read_unit(unit.name, (self.chunk(chunk) for chunk in unit.chunks))

    def _frame(self, pack: str, place: ChunkPlace) -> bytes:
        key = pack, place.frame_start
        frame = self._frames.get(key)
        if frame is None:
            stored = self.shelf.get_range(pack_name(pack), place.frame_start, place.frame_bytes)
            frame = read_frame(stored, place)
            is_large = place.raw_bytes > BACKUP_FRAME_CACHED_SIZE_BYTES_MAX
            while self._frames and (is_large or len(self._frames) >= BACKUP_FRAME_CACHE_COUNT_MAX):
                self._frames.popitem(last=False)
            self._frames[key] = frame
        else:
            self._frames.move_to_end(key)
        return frame

    # --- writing

    def write_manifest(self, manifest: Manifest) -> tuple[ManifestName, int]:
        """Write a manifest: with this a backup exists. Give its name and size."""
        data = encode_manifest(manifest)
        name = ManifestName(manifest.head.number, sha256(data).hexdigest())
        self.shelf.put(str(name), data)
        return name, len(data)


class PackWriter:
    """Writes chunks that the repository does not have, in packs of about `BACKUP_PACK_SIZE_BYTES`."""

    def __init__(self, repository: Repository, before_put: Callable[[], None]) -> None:
        """`before_put` is called before each pack is written (it renews the lock)."""
        self._repository = repository
        self._before_put = before_put
        self._builder = PackBuilder()
        self._waiting: set[bytes] = set()
        self.written_bytes = 0

    def add(self, chunk: bytes) -> bytes:
        """Add a chunk, unless it is there already, and give its hash."""
        chunk_hash = sha256(chunk).digest()
        if chunk_hash not in self._waiting and not self._repository.has(chunk_hash):
            self._waiting.add(chunk_hash)
            self._builder.add(chunk_hash, chunk)
            if self._builder.size_bytes >= BACKUP_PACK_SIZE_BYTES:
                self.flush()
        return chunk_hash

    def flush(self) -> None:
        """Write what is left."""
        if len(self._builder):
            pack: Pack = self._builder.finish()
            self._before_put()
            self._repository.shelf.put(pack_name(pack.name), pack.data)
            self._repository.add_pack(pack.name, pack.places)
            self.written_bytes += len(pack.data)
            self._builder, self._waiting = PackBuilder(), set()
