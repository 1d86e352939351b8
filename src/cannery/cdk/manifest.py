"""What a module says about itself: methods, hooks, collections, continuations, timers and their Candid types.

The content of the section `icp:public cannery:module` (ARCHITECTURE.md, "State on disk"): one version byte,
then msgpack. A type stands once, in `types`; everything else names it by its number, the first 8 bytes of the
SHA-256 of its encoding. This module checks that a manifest is whole; whether two fit together is `schema`'s
part.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Literal

import msgspec

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.wire import decode_type, encode_type
from cannery.errors import DecodeError

FORMAT_VERSION = b"\x01"
TYPE_NUMBER_SIZE_BYTES = 8

MethodKind = Literal["query", "composite_query", "update", "oneway"]
HookName = Literal["init", "pre_upgrade", "post_upgrade", "health", "inspect_message"]
CollectionKind = Literal["map", "counted_map", "set", "counted_set", "log", "cell"]

TypeNumber = Annotated[bytes, msgspec.Meta(min_length=8, max_length=8)]
OptionalTypeNumber = Annotated[bytes, msgspec.Meta(max_length=8)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]


class ManifestError(DecodeError):
    """Bytes are not a manifest that this version reads."""


class MethodManifest(msgspec.Struct, frozen=True, array_like=True):
    """A method of the interface."""

    name: Name
    kind: MethodKind
    args: tuple[TypeNumber, ...]
    results: tuple[TypeNumber, ...]


class CollectionManifest(msgspec.Struct, frozen=True, array_like=True):
    """A collection of stable state: its key type by shape ("" without one), its value type ("" for sets)."""

    name: Name
    kind: CollectionKind
    key: str
    value: OptionalTypeNumber
    renamed_from: tuple[Name, ...]
    converts_from: tuple[TypeNumber, ...]


class ContinuationManifest(msgspec.Struct, frozen=True, array_like=True):
    """A continuation and the type of its saved value ("" without one)."""

    name: Name
    saved: OptionalTypeNumber


class TimerManifest(msgspec.Struct, frozen=True, array_like=True):
    """A timer method and the type of its saved value ("" without one)."""

    name: Name
    saved: OptionalTypeNumber


class ModuleManifest(msgspec.Struct, frozen=True, array_like=True):
    """A module's description of itself; `init` and `post_upgrade` are argument types, None without the hook.

    `field_names` are the names behind the numbers of fields and cases in `types`, for error texts.
    """

    kit_version: str
    entry: Name
    methods: tuple[MethodManifest, ...]
    init: tuple[TypeNumber, ...] | None
    post_upgrade: tuple[TypeNumber, ...] | None
    hooks: tuple[HookName, ...]
    collections: tuple[CollectionManifest, ...]
    continuations: tuple[ContinuationManifest, ...]
    timers: tuple[TimerManifest, ...]
    types: tuple[bytes, ...]
    field_names: tuple[str, ...]

    def has_hook(self, name: str) -> bool:
        """Tell whether the module has this hook."""
        return name in self.hooks

    def method(self, name: str) -> MethodManifest | None:
        """Look a method of the interface up."""
        return next((m for m in self.methods if m.name == name), None)

    def numbered_types(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield every type's number and encoding."""
        for encoded in self.types:
            yield number_of_encoded(encoded), encoded


@lru_cache(maxsize=limits.CANDID_CODEC_CACHE_COUNT_MAX)
def type_number(type_: ct.Type) -> bytes:
    """Return the number of a type: equal for equal structures, whatever the names and Python classes."""
    return hashlib.sha256(encode_type(type_)).digest()[:TYPE_NUMBER_SIZE_BYTES]


def number_of_encoded(encoded: bytes) -> bytes:
    """Return the number of an encoded type; raise CandidError where it is none, or not in its one form."""
    type_ = decode_type(encoded)
    if encode_type(type_) != encoded:
        raise CandidError("a type is not encoded in its one form")
    return type_number(type_)


def encode_manifest(manifest: ModuleManifest) -> bytes:
    """Encode a manifest; equal manifests give equal bytes."""
    return FORMAT_VERSION + _ENCODER.encode(manifest)


def decode_manifest(data: bytes) -> ModuleManifest:
    """Decode and check a manifest; raise ManifestError."""
    if data[:1] != FORMAT_VERSION:
        raise ManifestError("the module was made by another version of the kit: build it again")
    try:
        manifest = _DECODER.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ManifestError(f"the module's manifest is malformed: {error}") from None
    _check(manifest)
    return manifest


def entry_path(manifest: ModuleManifest) -> tuple[str, str]:
    """Return the two archive paths of which one holds the entry module."""
    stem = manifest.entry.partition(":")[0].replace(".", "/")
    return f"{stem}.py", f"{stem}/__init__.py"


def _check(manifest: ModuleManifest) -> None:
    if not _ENTRY.fullmatch(manifest.entry):
        raise ManifestError(f"the entry {manifest.entry!r:.100} is not of the form module:Class")
    _check_unique("method", [m.name for m in manifest.methods], limits.MODULE_METHOD_COUNT_MAX)
    _check_unique("hook", list(manifest.hooks), 5)
    _check_unique("collection", [c.name for c in manifest.collections], limits.STABLE_COLLECTION_COUNT_MAX)
    _check_unique("continuation", [c.name for c in manifest.continuations], limits.MODULE_METHOD_COUNT_MAX)
    _check_unique("timer", [t.name for t in manifest.timers], limits.MODULE_METHOD_COUNT_MAX)
    _check_unique("type", [t.hex() for t in manifest.types], limits.MODULE_TYPE_COUNT_MAX)
    for hook, args in (("init", manifest.init), ("post_upgrade", manifest.post_upgrade)):
        if (args is not None) != manifest.has_hook(hook):
            raise ManifestError(f"the hook {hook} and its argument types do not go together")
    for collection in manifest.collections:
        _check_collection(collection)
    _check_types(manifest)


def _check_unique(what: str, names: list[str], count_max: int) -> None:
    if len(names) > count_max:
        raise ManifestError(f"the module has {len(names)} {what}s, more than {count_max}")
    if len(set(names)) != len(names):
        raise ManifestError(f"a {what} stands twice in the manifest")


def _check_collection(collection: CollectionManifest) -> None:
    kind = collection.kind
    has_key, has_value = kind not in ("log", "cell"), kind not in ("set", "counted_set")
    if has_key != bool(collection.key) or has_value != bool(collection.value):
        raise ManifestError(f"the {kind} {collection.name!r:.100} lacks a type or has one too many")


def _check_types(manifest: ModuleManifest) -> None:
    known = {b""}
    for encoded in manifest.types:
        try:
            known.add(number_of_encoded(encoded))
        except CandidError as error:
            raise ManifestError(f"a type of the module is malformed: {error}") from None
    for number in _numbers(manifest):
        if number not in known:
            raise ManifestError(f"type {number.hex()} is named by the manifest and not given")


def _numbers(manifest: ModuleManifest) -> Iterator[bytes]:
    yield from manifest.init or ()
    yield from manifest.post_upgrade or ()
    for method in manifest.methods:
        yield from method.args
        yield from method.results
    for collection in manifest.collections:
        yield collection.value
        yield from collection.converts_from
    for continuation in manifest.continuations:
        yield continuation.saved
    for timer in manifest.timers:
        yield timer.saved


_ENTRY = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(ModuleManifest)
