"""Manifests: what a backup holds, as the chunks of each unit; whole, or as the difference to an earlier one.

    manifest = "CANLIST" 01 ‖ size of the head (4 bytes) ‖ head ‖ SHA-256 of all before ‖
               raw size of the body (8 bytes) ‖ body
    head     = MessagePack array, `BackupHead`
    body     = MessagePack array, compressed (zstandard): changed units, names of removed units

The name of the file holds the backup's number and the SHA-256 of the whole file. `listing` is the SHA-256 of
all units in order, whichever way they are written down: a difference names its base by number and listing,
so that a base may be rewritten as a whole one, and the result of putting differences together is checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from struct import Struct

import msgspec
import zstandard

from cannery.limits import BACKUP_HEAD_SIZE_BYTES_MAX, BACKUP_INDEX_SIZE_BYTES_MAX
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.pack import HASH_SIZE_BYTES, decompress

MANIFEST_MAGIC = b"CANLIST\x01"

_HEAD_SIZE = Struct(">I")
_BODY_SIZE = Struct(">Q")
_HEAD_START = len(MANIFEST_MAGIC) + _HEAD_SIZE.size
_LEVEL = 3


class _Shape(msgspec.Struct, frozen=True, array_like=True):
    """What is written down; fields that later versions add stand last and are passed over."""


class NodeScope(_Shape, frozen=True, array_like=True, tag=1):
    """A whole node."""


class FleetScope(_Shape, frozen=True, array_like=True, tag=2):
    """A fleet: its index, and all its members."""

    fleet: bytes


class CanisterScope(_Shape, frozen=True, array_like=True, tag=3):
    """Some canisters."""

    canisters: tuple[bytes, ...]


Scope = NodeScope | FleetScope | CanisterScope


class BlockPoint(_Shape, frozen=True, array_like=True):
    """The last block in a backup's state, and the oldest one that it holds."""

    number: int
    hash: bytes
    root: bytes
    time_ns: int
    oldest: int


class SubnetPoint(_Shape, frozen=True, array_like=True):
    """A further subnet of the node: the last block in its state, and the hash of it."""

    block: BlockPoint
    state_hash: bytes


class BaseRef(_Shape, frozen=True, array_like=True):
    """The backup that a difference is taken from, and how many follow each other down to a whole one."""

    number: int
    listing: bytes
    depth: int


class BackupHead(_Shape, frozen=True, array_like=True):
    """All of a backup but its units.

    `node`: SHA-256 of the node's root key; `state_hash`: of the node's replicated state, empty for parts of
    it; `hash_seed`: under which its blocks ran, so that a replay gives the same; `follows`: backups whose
    state the blocks in this one lead on from, on each subnet; `written_bytes`: what it added to the
    repository's packs; `subnets`: the further ones, where `block` and `state_hash` are the first one's.
    """

    number: int
    made_ns: int
    scope: Scope
    node: bytes
    kit_version: str
    block: BlockPoint
    state_hash: bytes
    has_keys: bool
    hash_seed: int
    follows: tuple[int, ...]
    canister_count: int
    size_bytes: int
    written_bytes: int
    listing: bytes
    base: BaseRef | None = None
    subnets: tuple[SubnetPoint, ...] = ()

    def of(self, subnet: int) -> BackupHead:
        """Give the head as one of its subnets alone would have it."""
        if subnet == 0:
            return self
        point = self.subnets[subnet - 1]
        return msgspec.structs.replace(self, block=point.block, state_hash=point.state_hash, subnets=())

    @property
    def subnet_count(self) -> int:
        return 1 + len(self.subnets)

    @property
    def last_ns(self) -> int:
        """The time of the last block of any subnet."""
        return max(self.block.time_ns, *(point.block.time_ns for point in self.subnets), 0)

    @property
    def is_node(self) -> bool:
        return isinstance(self.scope, NodeScope)

    @property
    def series(self) -> tuple[bytes, Scope]:
        """What backups of the same thing share."""
        return self.node, self.scope


class UnitEntry(_Shape, frozen=True, array_like=True):
    """A unit: its name, the hashes of its chunks in order, the bytes of all of them."""

    name: bytes
    chunks: tuple[bytes, ...]
    size_bytes: int


Units = Mapping[bytes, UnitEntry]


class _Body(_Shape, frozen=True, array_like=True):
    changed: tuple[UnitEntry, ...]
    removed: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest as it is written: where `head.base` is set, only what differs from that one."""

    head: BackupHead
    changed: tuple[UnitEntry, ...]
    removed: tuple[bytes, ...]


_ENCODE = msgspec.msgpack.Encoder().encode
_HEAD = msgspec.msgpack.Decoder(BackupHead)
_BODY = msgspec.msgpack.Decoder(_Body)


def listing_of(units: Units) -> bytes:
    """Give the SHA-256 of all units in the order of their names."""
    digest = sha256()
    for name in sorted(units):
        digest.update(_ENCODE(units[name]))
    return digest.digest()


def whole_manifest(head: BackupHead, units: Units) -> Manifest:
    """Give the manifest that names every unit."""
    head = msgspec.structs.replace(head, base=None)
    return Manifest(head, tuple(units[name] for name in sorted(units)), ())


def plan_manifest(
    head: BackupHead, units: Units, base: BackupHead | None, base_units: Units, chain_count_max: int
) -> Manifest:
    """Give the manifest as a difference to the base, unless that is no gain or the chain grows too long."""
    depth = 1 if base is None or base.base is None else base.base.depth + 1
    if base is None or depth > chain_count_max:
        return whole_manifest(head, units)
    changed = tuple(units[name] for name in sorted(units) if base_units.get(name) != units[name])
    removed = tuple(sorted(name for name in base_units if name not in units))
    if 2 * (len(changed) + len(removed)) > len(units):
        return whole_manifest(head, units)
    reference = BaseRef(base.number, base.listing, depth)
    return Manifest(msgspec.structs.replace(head, base=reference), changed, removed)


def apply_manifest(manifest: Manifest, base_units: Units) -> dict[bytes, UnitEntry]:
    """Give all units of a backup; `base_units` are those of its base, if it has one.

    Raises `BackupFormatError` where they are not those that the backup was made of.
    """
    head = manifest.head
    units = {} if head.base is None else dict(base_units)
    for name in manifest.removed:
        if units.pop(name, None) is None:
            raise BackupFormatError(f"backup {head.number} removes a unit that its base does not have")
    for unit in manifest.changed:
        units[unit.name] = unit
    if listing_of(units) != head.listing:
        raise BackupFormatError(f"the units of backup {head.number} are not those that it was made of")
    return units


# --- bytes -------------------------------------------------------------------------------------------------


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode a manifest."""
    head = _ENCODE(manifest.head)
    start = MANIFEST_MAGIC + _HEAD_SIZE.pack(len(head)) + head
    body = _ENCODE(_Body(manifest.changed, manifest.removed))
    stored: bytes = zstandard.ZstdCompressor(level=_LEVEL).compress(body)
    return start + sha256(start).digest() + _BODY_SIZE.pack(len(body)) + stored


def decode_head(data: bytes) -> tuple[BackupHead, int]:
    """Read the head from a manifest or its beginning, and where the body begins.

    Raises `BackupFormatError`.
    """
    if data[: len(MANIFEST_MAGIC)] != MANIFEST_MAGIC:
        raise BackupFormatError(
            f"a manifest begins with {data[: len(MANIFEST_MAGIC)].hex() or 'nothing'}, not with "
            f"{MANIFEST_MAGIC.hex()}: it is damaged, or of another version"
        )
    if len(data) < _HEAD_START:
        raise BackupFormatError("a manifest ends inside its head")
    (size,) = _HEAD_SIZE.unpack_from(data, len(MANIFEST_MAGIC))
    end = _HEAD_START + size
    if size > BACKUP_HEAD_SIZE_BYTES_MAX or end + HASH_SIZE_BYTES > len(data):
        raise BackupFormatError("a manifest ends inside its head")
    if sha256(data[:end]).digest() != data[end : end + HASH_SIZE_BYTES]:
        raise BackupFormatError("a manifest's head is damaged: its SHA-256 is another")
    try:
        head = _HEAD.decode(data[_HEAD_START:end])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackupFormatError(f"a manifest's head does not decode: {error}") from None
    return head, end + HASH_SIZE_BYTES


def decode_manifest(data: bytes) -> Manifest:
    """Decode a manifest; raises `BackupFormatError`."""
    head, start = decode_head(data)
    body_start = start + _BODY_SIZE.size
    if len(data) < body_start:
        raise BackupFormatError("a manifest ends before its body")
    (raw_bytes,) = _BODY_SIZE.unpack_from(data, start)
    if raw_bytes > BACKUP_INDEX_SIZE_BYTES_MAX:
        raise BackupFormatError(f"a manifest's body says that it has {raw_bytes} bytes")
    raw = decompress(data[body_start:], raw_bytes, "a manifest's body")
    try:
        body = _BODY.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackupFormatError(f"a manifest's body does not decode: {error}") from None
    for unit in body.changed:
        if not unit.name or any(len(chunk) != HASH_SIZE_BYTES for chunk in unit.chunks):
            raise BackupFormatError("a manifest has a unit without a name, or a chunk that is no hash")
    return Manifest(head, body.changed, body.removed)
