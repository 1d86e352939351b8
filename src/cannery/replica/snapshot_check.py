"""Whether an archive that somebody uploaded may become a canister's state: every part decoded by its type.

An archive that a subnet made itself holds what its canisters wrote; one that was uploaded may hold anything.
Here its collections are compared with its module, each key is read by its collection's shape, each value by
the type that its number names, each timer by its method. Candid specification, "Binary Format"; the forms of
collections stand in the modules `stable_map`, `stable_log` and `stable_cell` of the kit. This module reads no
state and changes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from cannery import limits
from cannery.candid.codec import value_decoder
from cannery.candid.errors import CandidError
from cannery.candid.wire import decode_type
from cannery.cdk.key_shapes import codec_of_shape
from cannery.cdk.manifest import TYPE_NUMBER_SIZE_BYTES, ModuleManifest, number_of_encoded
from cannery.cdk.schema import (
    CollectionState,
    Schema,
    SchemaDecodeError,
    SchemaError,
    check_in_flight,
    decode_schema,
    encode_schema,
    plan_schema,
)
from cannery.cdk.stable_keys import KeyCodec, KeyTypeError, StoredKeyError
from cannery.replica.snapshot_archive import ArchivedTimer, ArchiveError, ArchiveHead, read_entries

TypeBytes = Callable[[bytes], bytes | None]

_COUNT_SIZE_BYTES = 8
_BOUNDS_SIZE_BYTES = 16
_TIME_NS_MAX = 2**63 - 1


@dataclass(frozen=True, slots=True)
class CheckedHead:
    """What a checked head brings: the schema, and each of its types by number."""

    schema: Schema
    types: Mapping[bytes, bytes]


def check_archive(
    archive: bytes, head: ArchiveHead, start: int, manifest: ModuleManifest, node_types: TypeBytes
) -> CheckedHead:
    """Check a whole archive against its module; raises `ArchiveError` with the first thing that is wrong.

    `node_types` gives the types that the node knows; the archive's own come first.
    """
    types = _check_types(head)

    def type_bytes(number: bytes) -> bytes | None:
        return types.get(number) or node_types(number)

    schema = _check_schema(head, manifest, type_bytes)
    readers = {state.slot: _Collection(state, type_bytes) for state in schema.collections}
    _check_timers(head.timers, manifest, type_bytes)
    _check_entries(archive, start, readers)
    return CheckedHead(schema, types)


def _check_types(head: ArchiveHead) -> dict[bytes, bytes]:
    if len(head.types) > limits.MODULE_TYPE_COUNT_MAX:
        raise ArchiveError(f"an archive has at most {limits.MODULE_TYPE_COUNT_MAX} types")
    try:
        return {number_of_encoded(encoded): encoded for encoded in head.types}
    except CandidError as error:
        raise ArchiveError(f"a type of the archive does not decode: {error}") from None


def _check_schema(head: ArchiveHead, manifest: ModuleManifest, type_bytes: TypeBytes) -> Schema:
    try:
        schema = decode_schema(head.schema)
        if encode_schema(schema) != head.schema:
            raise ArchiveError("the archive's collections are not in their one form")
        _check_collections(schema.collections)
        planned = plan_schema(schema, manifest, type_bytes)
    except (SchemaDecodeError, SchemaError) as error:
        raise ArchiveError(f"the archive's collections do not fit its module: {error}") from None
    if planned != schema:
        raise ArchiveError("the archive's collections are not those of its module: it was changed")
    return schema


def _check_collections(states: tuple[CollectionState, ...]) -> None:
    if len(states) > limits.STABLE_COLLECTION_COUNT_MAX:
        raise ArchiveError(f"a canister has at most {limits.STABLE_COLLECTION_COUNT_MAX} collections")
    if len({state.name for state in states}) < len(states) or len({s.slot for s in states}) < len(states):
        raise ArchiveError("two collections of the archive have the same name or slot")
    for state in states:
        first = state.slot[0] if state.slot else 0
        size = 1 if 0 < first < 0x80 else 2
        if not 0 < first < 0xFF or len(state.slot) != size:
            raise ArchiveError(f"{state.name}: {state.slot.hex()} is no slot of a collection")
        if len(state.values) > limits.STABLE_VALUE_TYPE_COUNT_MAX:
            raise ArchiveError(f"{state.name}: its values have too many types")


def _check_timers(timers: tuple[ArchivedTimer, ...], manifest: ModuleManifest, type_bytes: TypeBytes) -> None:
    if len(timers) > limits.TIMER_COUNT_MAX:
        raise ArchiveError(f"a canister has at most {limits.TIMER_COUNT_MAX} timers")
    before = 0
    for timer in timers:
        every_ns = timer.every_ns
        if not before < timer.number <= limits.SNAPSHOT_TIMER_NUMBER_MAX:
            raise ArchiveError(f"the timers' numbers are not in order, or out of range: {timer.number}")
        before = timer.number
        repeats = limits.TIMER_EVERY_NS_MIN <= every_ns <= _TIME_NS_MAX
        if not 0 <= timer.due_ns <= _TIME_NS_MAX or not (every_ns == 0 or repeats):
            raise ArchiveError(f"timer {timer.number}: its time or interval is out of range")
        if timer.saved:
            _Values(f"timer {timer.number}", type_bytes).check(timer.saved)
    try:
        check_in_flight(manifest, (), [(timer.method, timer.saved) for timer in timers], type_bytes)
    except SchemaError as error:
        raise ArchiveError(f"the archive's timers do not fit its module: {error}") from None


def _check_entries(archive: bytes, start: int, readers: Mapping[bytes, _Collection]) -> None:
    current: _Collection | None = None
    for count, (key, value) in enumerate(read_entries(archive, start), start=1):
        if count > limits.SNAPSHOT_KEY_COUNT_MAX:
            raise ArchiveError(f"a snapshot has at most {limits.SNAPSHOT_KEY_COUNT_MAX} keys")
        slot = key[:1] if key[0] < 0x80 else key[:2]
        if current is None or current.slot != slot:
            if current is not None:
                current.finish()
            current = readers.get(slot)
            if current is None:
                raise ArchiveError(f"the key {key.hex():.100} is not of a collection's slot")
        current.check(key, value)
    if current is not None:
        current.finish()


class _Values:
    """Decodes stored values: a type's number, then a value of that type; `allowed` None: any known type."""

    __slots__ = ("_allowed", "_decoders", "_type_bytes", "_where")

    def __init__(self, where: str, type_bytes: TypeBytes, allowed: Iterable[bytes] | None = None) -> None:
        self._where = where
        self._type_bytes = type_bytes
        self._allowed = None if allowed is None else frozenset(allowed)
        self._decoders: dict[bytes, Callable[[bytes], object]] = {}

    def check(self, data: bytes) -> None:
        number = data[:TYPE_NUMBER_SIZE_BYTES]
        decode = self._decoders.get(number)
        if decode is None:
            decode = self._decoders[number] = self._find(number)
        try:
            decode(data[TYPE_NUMBER_SIZE_BYTES:])
        except CandidError as error:
            raise ArchiveError(
                f"{self._where}: a value of type {number.hex()} does not decode: {error}"
            ) from None

    def _find(self, number: bytes) -> Callable[[bytes], object]:
        encoded = self._type_bytes(number)
        if encoded is None or (self._allowed is not None and number not in self._allowed):
            raise ArchiveError(f"{self._where}: a value has the unknown type {number.hex() or 'none'}")
        return value_decoder(decode_type(encoded))


class _Collection:
    """Reads one collection's entries, which come in key order, and its count or bounds, which come first."""

    __slots__ = ("_bounds", "_count", "_keys", "_state", "_values", "slot")

    def __init__(self, state: CollectionState, type_bytes: TypeBytes) -> None:
        self.slot = state.slot
        self._state = state
        self._values = _Values(state.name, type_bytes, state.values)
        self._count = 0
        self._bounds: bytes | None = None
        self._keys: KeyCodec | None = None
        if state.kind in ("map", "counted_map", "set", "counted_set"):
            try:
                self._keys = codec_of_shape(state.key)
            except KeyTypeError as error:
                raise ArchiveError(f"{state.name}: {error}") from None

    def check(self, key: bytes, value: bytes) -> None:
        """Check an entry."""
        if len(key) == len(self.slot):
            self._check_first(value)
            return
        self._count += 1
        if self._keys is not None:
            self._check_key(self._keys, key)
        elif self._state.kind != "log" or len(key) != len(self.slot) + 8:
            raise self._refusal(f"the key {key.hex():.100} is none of a {self._state.kind}")
        elif self._bounds is None or not self._bounds[:8] <= key[len(self.slot) :] < self._bounds[8:]:
            raise self._refusal("an entry lies outside the bounds of the log")
        if self._state.kind not in ("set", "counted_set"):
            self._values.check(value)
        elif value:
            raise self._refusal("a set has no values")

    def finish(self) -> None:
        """Check what was counted against what the collection says."""
        bounds = self._bounds
        if bounds is None:
            return
        said = int.from_bytes(bounds[-8:], "big")
        if self._state.kind == "log":
            said -= int.from_bytes(bounds[:8], "big")
        if said != self._count:
            raise self._refusal(f"it has {self._count} entries and says {said}")

    def _check_first(self, value: bytes) -> None:
        """Check what stands under the slot itself: a cell's value, a count, the bounds of a log."""
        kind = self._state.kind
        if kind == "cell":
            self._values.check(value)
        elif kind in ("map", "set"):
            raise self._refusal("it keeps no count, and the archive has one")
        elif len(value) != (_BOUNDS_SIZE_BYTES if kind == "log" else _COUNT_SIZE_BYTES):
            raise self._refusal("its count or bounds are malformed")
        else:
            self._bounds = value

    def _check_key(self, codec: KeyCodec, key: bytes) -> None:
        try:
            codec.decode(key, len(self.slot))
        except StoredKeyError as error:
            raise self._refusal(f"the key {key.hex():.100} does not decode: {error}") from None

    def _refusal(self, text: str) -> ArchiveError:
        return ArchiveError(f"{self._state.name}: {text}")
