"""Whether a new version can take over a canister's stable state, and where each collection lives.

A canister's `Schema` remembers, for every collection it ever had, the slot (the first bytes of its keys),
what its keys mean, and the numbers of all types that its values may still have. `plan_schema` compares it
with a new module and gives the next schema, or refuses with every path that differs; nothing stored is
touched. Slots are one byte 01 to 7f, then two bytes 8000 to feff: no slot is the beginning of another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import msgspec

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.subtype import explain_loss, explain_subtype
from cannery.candid.wire import decode_type
from cannery.cdk.manifest import (
    FORMAT_VERSION,
    TYPE_NUMBER_SIZE_BYTES,
    CollectionKind,
    CollectionManifest,
    ModuleManifest,
)
from cannery.errors import CanneryError, DecodeError

TypeBytes = Callable[[bytes], bytes | None]


class SchemaError(CanneryError):
    """A module does not fit the canister's stable state or what is in flight; the text names every
    difference."""


class SchemaDecodeError(DecodeError):
    """Bytes are not a schema."""


class CollectionState(msgspec.Struct, frozen=True, array_like=True):
    """A collection that the canister has, declared now or earlier; `values` are the type numbers in use,
    latest last."""

    name: str
    slot: bytes
    kind: CollectionKind
    key: str
    values: tuple[bytes, ...]


class Schema(msgspec.Struct, frozen=True, array_like=True):
    """The collections of a canister, in the order in which they came."""

    collections: tuple[CollectionState, ...]

    def slots(self) -> dict[str, bytes]:
        """Return the slot of each collection by name."""
        return {c.name: c.slot for c in self.collections}


def encode_schema(schema: Schema) -> bytes:
    """Encode a schema as a record: version byte, msgpack."""
    return FORMAT_VERSION + msgspec.msgpack.encode(schema)


def decode_schema(data: bytes) -> Schema:
    """Decode a schema; raise SchemaDecodeError."""
    if data[:1] != FORMAT_VERSION:
        raise SchemaDecodeError("the schema was written by another version")
    try:
        return _DECODER.decode(data[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SchemaDecodeError(f"a schema is malformed: {error}") from None


def plan_schema(
    old: Schema | None, new: ModuleManifest, type_bytes: TypeBytes, field_names: Iterable[str] = ()
) -> Schema:
    """Plan the schema of a canister under a new module; raise SchemaError with every path that differs.

    `old` is None at installation and reinstallation. `type_bytes` gives the types of earlier versions by
    number; the new module brings its own. A collection that the module does not declare keeps its slot and
    its data. `field_names` of the old module's manifest make the text readable where a field is gone.
    """
    before = old.collections if old is not None else ()
    states = list(before)
    places = {state.name: place for place, state in enumerate(before)}
    types = _types_of(new, type_bytes)
    faults: list[str] = []
    taken: set[str] = set()
    fresh: list[CollectionManifest] = []
    declared = {c.name for c in new.collections}
    for collection in new.collections:
        earlier = _takes_over(places, collection, declared, faults)
        if earlier is None:
            fresh.append(collection)
            continue
        if earlier in taken:
            faults.append(f"{collection.name}: {earlier!r} is taken over by two collections")
        taken.add(earlier)
        place = places[earlier]
        state = before[place]
        faults.extend(_differences(state, collection, types))
        states[place] = _next_state(state, collection)
    for collection in fresh:
        slot = _free_slot({s.slot for s in states})
        values = (collection.value,) if collection.value else ()
        states.append(CollectionState(collection.name, slot, collection.kind, collection.key, values))
    if faults:
        text = "the module does not fit the canister's stable state: " + "; ".join(faults[:_FAULTS_MAX])
        raise SchemaError(_with_names(text, (*new.field_names, *field_names)))
    return Schema(tuple(states))


def check_in_flight(
    new: ModuleManifest,
    continuations: Iterable[tuple[str, bytes]],
    timers: Iterable[tuple[str, bytes]],
    type_bytes: TypeBytes,
) -> None:
    """Check that a module can serve every open call and timer, given as names and saved values; raise
    SchemaError."""
    types = _types_of(new, type_bytes)
    known_continuations = {c.name: c.saved for c in new.continuations}
    known_timers = {t.name: t.saved for t in new.timers}
    faults: dict[str, None] = {}
    for what, known, open_ones in (
        ("continuation", known_continuations, continuations),
        ("timer", known_timers, timers),
    ):
        for name, number in {(name, saved[:TYPE_NUMBER_SIZE_BYTES]): None for name, saved in open_ones}:
            if name not in known:
                faults[f"the {what} {name!r} is in flight and the module lacks it"] = None
            else:
                for fault in _saved_differences(number, known[name], types):
                    faults[f"the saved value of the {what} {name!r} in flight cannot be read: {fault}"] = None
    if faults:
        raise SchemaError(_with_names("; ".join(list(faults)[:_FAULTS_MAX]), new.field_names))


def _with_names(text: str, names: Iterable[str]) -> str:
    """Write names for the numbers that fields and cases have in stored types."""
    by_number = {str(ct.field_hash(name)): name for name in names}
    return _UNNAMED.sub(lambda match: by_number.get(match[1], match[0]), text)


def _types_of(new: ModuleManifest, type_bytes: TypeBytes) -> Callable[[bytes], ct.Type | None]:
    own = dict(new.numbered_types())

    def look_up(number: bytes) -> ct.Type | None:
        encoded = own.get(number) or type_bytes(number)
        return None if encoded is None else decode_type(encoded)

    return look_up


def _takes_over(
    places: dict[str, int], collection: CollectionManifest, declared: set[str], faults: list[str]
) -> str | None:
    """Return the name under which the canister has a collection: its own, else an earlier one; None if it is
    new."""
    if collection.name in places:
        return collection.name
    earlier = [name for name in collection.renamed_from if name in places and name not in declared]
    if len(earlier) > 1:
        faults.append(
            f"{collection.name}: renamed_from names {', '.join(earlier)}, which are there side by side"
        )
    return earlier[0] if earlier else None


def _differences(
    state: CollectionState, collection: CollectionManifest, types: Callable[[bytes], ct.Type | None]
) -> list[str]:
    name = collection.name
    if state.kind != collection.kind and (state.kind, collection.kind) not in _KIND_CHANGES:
        return [f"{name}: it is a {state.kind}, the module declares a {collection.kind}"]
    if state.key != collection.key:
        return [f"{name}: its keys are {state.key}, the module declares {collection.key}"]
    faults: list[str] = []
    for number in state.values:
        faults.extend(f"{name}: {fault}" for fault in _value_differences(number, collection, types))
    if len(state.values) >= limits.STABLE_VALUE_TYPE_COUNT_MAX and collection.value not in state.values:
        faults.append(
            f"{name}: its values have {len(state.values)} types already; rewrite them into a new collection"
        )
    return faults


def _value_differences(
    number: bytes, collection: CollectionManifest, types: Callable[[bytes], ct.Type | None]
) -> list[str]:
    if number == collection.value or number in collection.converts_from:
        return []
    old, new = types(number), types(collection.value)
    if old is None or new is None:
        return [f"the type {number.hex()} of its stored values is not known"]
    faults = _unreadable(old, new)
    if not faults:
        return []
    for source in collection.converts_from:
        from_type = types(source)
        if from_type is not None and not _unreadable(old, from_type):
            return []
    return faults


def _unreadable(old: ct.Type, new: ct.Type) -> list[str]:
    try:
        return explain_subtype(old, new) or explain_loss(old, new)
    except CandidError as error:
        return [str(error)]


def _saved_differences(number: bytes, saved: bytes, types: Callable[[bytes], ct.Type | None]) -> list[str]:
    if number == saved or not saved:
        return []
    if not number:
        return ["none was saved, the module expects one"]
    old, new = types(number), types(saved)
    if old is None or new is None:
        return [f"its type {number.hex()} is not known"]
    return _unreadable(old, new)


def _next_state(state: CollectionState, collection: CollectionManifest) -> CollectionState:
    values = tuple(v for v in state.values if v != collection.value)
    if collection.value:
        values += (collection.value,)
    return CollectionState(collection.name, state.slot, collection.kind, state.key, values)


def _free_slot(taken: set[bytes]) -> bytes:
    for number in range(1, 0x80):
        slot = bytes((number,))
        if slot not in taken:
            return slot
    for number in range(0x8000, 0xFF00):
        slot = number.to_bytes(2, "big")
        if slot not in taken:
            return slot
    raise SchemaError("the canister has had more collections than there are slots: reinstall it")


_FAULTS_MAX = 50
_UNNAMED = re.compile(r"\b_([0-9]{1,10})_\b", re.ASCII)
_KIND_CHANGES = frozenset({("map", "counted_map"), ("set", "counted_set")})
_DECODER = msgspec.msgpack.Decoder(Schema)
