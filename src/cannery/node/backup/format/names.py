"""Names of the objects in a repository, and the marker that says what it is.

    cannery-backup                          the marker: "cannery backup 1", the repository's id, their SHA-256
    packs/<SHA-256>.pack                    chunks
    backups/<number>-<SHA-256>.manifest     backups, numbered from 1

A name that is none of these is a stranger's. This module lists nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from hashlib import sha256

from cannery.node.backup.format.errors import BackupFormatError

MARKER_NAME = "cannery-backup"
LOCK_NAME = "lock"
PACK_FOLDER = "packs"
MANIFEST_FOLDER = "backups"
_FORMAT = "cannery backup 1"
_PACK = re.compile(r"packs/([0-9a-f]{64})\.pack")
_MANIFEST = re.compile(r"backups/(\d{8})-([0-9a-f]{64})\.manifest")
_MARKER = re.compile(rb"(cannery backup 1\n([0-9a-f]{32})\n)([0-9a-f]{64})\n")


@dataclass(frozen=True, slots=True)
class ManifestName:
    """What the name of a manifest says."""

    number: int
    hash: str

    def __str__(self) -> str:
        return f"{MANIFEST_FOLDER}/{self.number:08}-{self.hash}.manifest"


def pack_name(pack_hash: str) -> str:
    """Give the name of a pack."""
    return f"{PACK_FOLDER}/{pack_hash}.pack"


def parse_pack_name(name: str) -> str | None:
    """Give the hash in the name of a pack; None for other names."""
    found = _PACK.fullmatch(name)
    return None if found is None else found[1]


def parse_manifest_name(name: str) -> ManifestName | None:
    """Take the name of a manifest apart; None for other names."""
    found = _MANIFEST.fullmatch(name)
    return None if found is None else ManifestName(int(found[1]), found[2])


def encode_marker(repository_id: bytes) -> bytes:
    """Give the content of the marker."""
    start = f"{_FORMAT}\n{repository_id.hex()}\n".encode()
    return start + sha256(start).hexdigest().encode() + b"\n"


def decode_marker(data: bytes) -> bytes:
    """Give the id of a repository; raises `BackupFormatError`."""
    found = _MARKER.fullmatch(data)
    if found is not None and sha256(found[1]).hexdigest().encode() == found[3]:
        return bytes.fromhex(found[2].decode())
    first = data.split(b"\n", 1)[0][:40]
    if first != _FORMAT.encode() and re.fullmatch(rb"cannery backup \d+", first):
        raise BackupFormatError(
            f"this is a repository of format {first.decode()!r}, and this version reads {_FORMAT!r}: use "
            "the version that wrote it"
        )
    raise BackupFormatError(f"the file {MARKER_NAME} is damaged, or this is no repository of backups")
