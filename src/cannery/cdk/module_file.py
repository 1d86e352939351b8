"""A module as a file: a valid Wasm binary of custom sections alone, so that every IC tool carries and hashes
it.

WebAssembly core specification, "Binary Format / Modules"; section names as in the IC's canister metadata
(`icp:public NAME`, `icp:private NAME`). A Cannery module has `candid:service` (the interface as text),
`cannery:module` (see `manifest`) and `cannery:archive` (see `archive`, private). Wasm code is not run here or
anywhere yet. Nothing is imported or executed by parsing.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

from cannery import limits
from cannery.cdk.archive import ArchiveError, read_archive
from cannery.cdk.manifest import ManifestError, ModuleManifest, decode_manifest, encode_manifest, entry_path
from cannery.errors import DecodeError

MAGIC = b"\x00asm\x01\x00\x00\x00"
GZIP_MAGIC = b"\x1f\x8b"
CANDID_SECTION = "icp:public candid:service"
MANIFEST_SECTION = "icp:public cannery:module"
ARCHIVE_SECTION = "icp:private cannery:archive"


class ModuleError(DecodeError):
    """A file is not a module that can be installed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class ModuleFile:
    """The parts of a module. `extras` are further custom sections by full name, kept as they came."""

    did: str
    manifest: ModuleManifest
    archive: bytes
    extras: tuple[tuple[str, bytes], ...] = ()

    def files(self) -> dict[str, bytes]:
        """Return the sources by path."""
        return read_archive(self.archive)

    def encode(self) -> bytes:
        """Return the module's bytes; their SHA-256 is the module hash."""
        sections = (
            (CANDID_SECTION, self.did.encode()),
            (MANIFEST_SECTION, encode_manifest(self.manifest)),
            (ARCHIVE_SECTION, self.archive),
            *self.extras,
        )
        return MAGIC + b"".join([_encode_section(name, content) for name, content in sections])

    def metadata(self, name: str) -> tuple[bytes, bool] | None:
        """Look a metadata section up by its name without prefix; give its content and whether it is
        public."""
        if name == "candid:service":
            return self.did.encode(), True
        if name == "cannery:module":
            return encode_manifest(self.manifest), True
        if name == "cannery:archive":
            return self.archive, False
        for full_name, content in self.extras:
            for prefix, public in (("icp:public ", True), ("icp:private ", False)):
                if full_name == prefix + name:
                    return content, public
        return None


def module_hash(data: bytes) -> bytes:
    """Return the hash by which a module's file is known."""
    return hashlib.sha256(data).digest()


def parse_module(data: bytes) -> ModuleFile:
    """Parse a module's file, plain or gzipped; raise ModuleError."""
    sections = _read_sections(_unpack(data))
    own = {name for _, name, _ in sections if name in (MANIFEST_SECTION, ARCHIVE_SECTION)}
    if not own:
        raise ModuleError("Wasm programs are not supported yet: a Cannery module is made by 'cannery build'")
    if any(number != 0 for number, _, _ in sections):
        raise ModuleError(
            "a Cannery section stands beside a standard section: a module is Python or Wasm, not both"
        )
    contents: dict[str, bytes] = {}
    for _, name, content in sections:
        if name in contents:
            raise ModuleError(f"section {name!r:.100} stands twice")
        contents[name] = content
    return _assemble(contents)


def _assemble(contents: dict[str, bytes]) -> ModuleFile:
    for name in (CANDID_SECTION, MANIFEST_SECTION, ARCHIVE_SECTION):
        if name not in contents:
            raise ModuleError(f"section {name!r} is missing: build the module again")
    if len(contents[CANDID_SECTION]) > limits.DID_SIZE_BYTES_MAX:
        raise ModuleError(f"the interface text is longer than {limits.DID_SIZE_BYTES_MAX} bytes")
    archive = contents[ARCHIVE_SECTION]
    try:
        did = contents[CANDID_SECTION].decode()
        manifest = decode_manifest(contents[MANIFEST_SECTION])
        files = read_archive(archive)
    except UnicodeDecodeError:
        raise ModuleError("the interface text is not UTF-8") from None
    except (ManifestError, ArchiveError) as error:
        raise ModuleError(str(error)) from None
    if not any(path in files for path in entry_path(manifest)):
        raise ModuleError(
            f"the archive lacks {entry_path(manifest)[0]}, which the entry {manifest.entry!r} names"
        )
    named = (CANDID_SECTION, MANIFEST_SECTION, ARCHIVE_SECTION)
    extras = tuple((name, content) for name, content in contents.items() if name not in named)
    return ModuleFile(did, manifest, archive, extras)


def _unpack(data: bytes) -> bytes:
    if data[:2] == GZIP_MAGIC:
        unpacker = zlib.decompressobj(wbits=31)
        try:
            data = unpacker.decompress(data, limits.MODULE_SIZE_BYTES_MAX + 1)
        except zlib.error as error:
            raise ModuleError(f"the module is not valid gzip: {error}") from None
        if len(data) <= limits.MODULE_SIZE_BYTES_MAX and (not unpacker.eof or unpacker.unused_data):
            raise ModuleError("the module is not valid gzip: it is cut short, or bytes follow it")
    if len(data) > limits.MODULE_SIZE_BYTES_MAX:
        raise ModuleError(f"the module is larger than {limits.MODULE_SIZE_BYTES_MAX} bytes")
    if data[:8] != MAGIC:
        raise ModuleError("this is not a Wasm file: a Cannery module is made by 'cannery build'")
    return data


def _read_sections(data: bytes) -> list[tuple[int, str, bytes]]:
    sections: list[tuple[int, str, bytes]] = []
    at = len(MAGIC)
    while at < len(data):
        if len(sections) >= limits.MODULE_SECTION_COUNT_MAX:
            raise ModuleError(f"the module has more than {limits.MODULE_SECTION_COUNT_MAX} sections")
        number = data[at]
        size, start = _read_leb128(data, at + 1, len(data))
        at = start + size
        if at > len(data):
            raise ModuleError("the module ends inside a section")
        if number != 0:
            sections.append((number, "", b""))
            continue
        name_size, name_at = _read_leb128(data, start, at)
        content_at = name_at + name_size
        if content_at > at:
            raise ModuleError("a custom section ends inside its name")
        try:
            name = data[name_at:content_at].decode()
        except UnicodeDecodeError:
            raise ModuleError("the name of a custom section is not UTF-8") from None
        sections.append((0, name, data[content_at:at]))
    return sections


def _read_leb128(data: bytes, at: int, end: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 35, 7):
        if at >= end:
            raise ModuleError("the module ends inside a size")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            if value >> 32:
                break
            return value, at
    raise ModuleError("a size in the module is not below 2^32")


def _encode_section(name: str, content: bytes) -> bytes:
    label = name.encode()
    body = _encode_leb128(len(label)) + label + content
    return b"\x00" + _encode_leb128(len(body)) + body


def _encode_leb128(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
