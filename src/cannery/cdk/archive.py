"""The source archive inside a module: a zip file of stored files, sorted by path, without times.

One set of files has one archive, byte for byte: nothing is compressed (compressors differ between versions),
and an archive that is not in this form is refused. The whole module may be gzipped instead. Any zip tool
opens it.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from cannery import limits
from cannery.errors import DecodeError


class ArchiveError(DecodeError):
    """Bytes are not an archive in its one form."""


def build_archive(files: Mapping[str, bytes]) -> bytes:
    """Build the archive of files by path (`pkg/module.py`); raise ArchiveError for a path or size it cannot
    hold."""
    if len(files) > limits.MODULE_FILE_COUNT_MAX:
        raise ArchiveError(f"a module holds at most {limits.MODULE_FILE_COUNT_MAX} files, got {len(files)}")
    bodies: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for path in sorted(files):
        content = files[path]
        _check_file(path, content)
        name = path.encode()
        facts = _FACTS.pack(
            20, _FLAGS, 0, 0, _DATE, zlib.crc32(content), len(content), len(content), len(name), 0
        )
        body = _LOCAL + facts + name + content
        directory.append(
            _CENTRAL + _MADE_BY + facts + _CENTRAL_TAIL.pack(0, 0, 0, _ATTRIBUTES, offset) + name
        )
        bodies.append(body)
        offset += len(body)
    central = b"".join(directory)
    end = _END.pack(b"PK\x05\x06", 0, 0, len(directory), len(directory), len(central), offset, 0)
    return b"".join(bodies) + central + end


def read_archive(data: bytes) -> dict[str, bytes]:
    """Read an archive's files, sorted by path; raise ArchiveError where it is not in its one form."""
    files: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == _LOCAL:
        if len(files) >= limits.MODULE_FILE_COUNT_MAX:
            raise ArchiveError(f"a module holds at most {limits.MODULE_FILE_COUNT_MAX} files")
        path, content, at = _read_file(data, at + 4)
        files[path] = content
    if build_archive(files) != data:
        raise ArchiveError(
            "the archive is not in its one form (stored, sorted, without times): build the module again"
        )
    return files


def _read_file(data: bytes, at: int) -> tuple[str, bytes, int]:
    try:
        facts = _FACTS.unpack_from(data, at)
    except struct.error:
        raise ArchiveError("the archive ends inside a file's header") from None
    size, name_size = facts[6], facts[8]
    name_at = at + _FACTS.size
    content_at = name_at + name_size
    end = content_at + size
    if end > len(data):
        raise ArchiveError("the archive ends inside a file")
    try:
        path = data[name_at:content_at].decode()
    except UnicodeDecodeError:
        raise ArchiveError("a path in the archive is not UTF-8") from None
    return path, data[content_at:end], end


def _check_file(path: str, content: bytes) -> None:
    if len(path) > 1_000 or not _PATH.fullmatch(path) or "__pycache__" in path:
        raise ArchiveError(
            f"{path!r:.200} is not a path of the form folder/name.ext in letters, digits, _ - ."
        )
    if len(content) > limits.MODULE_FILE_SIZE_BYTES_MAX:
        raise ArchiveError(f"{path} has {len(content)} bytes, more than {limits.MODULE_FILE_SIZE_BYTES_MAX}")


_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]*(/[A-Za-z0-9_][A-Za-z0-9_.\-]*)*")
_FLAGS = 0x0800  # names are UTF-8
_DATE = 0x0021  # 1 January 1980, the zero of zip files
_ATTRIBUTES = 0o100644 << 16
_LOCAL = b"PK\x03\x04"
_CENTRAL = b"PK\x01\x02"
_MADE_BY = struct.pack("<H", (3 << 8) | 20)
_FACTS = struct.Struct("<HHHHHIIIHH")
_CENTRAL_TAIL = struct.Struct("<HHHII")
_END = struct.Struct("<4sHHHHIIH")
