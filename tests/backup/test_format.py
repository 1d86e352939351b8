"""Laws of the format of backups: chunks, packs, manifests, names; any bytes are read or refused."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.limits import BACKUP_CHAIN_COUNT_MAX
from cannery.node.backup.format.chunks import cut_chunks, read_chunk, read_unit
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.manifest import (
    BackupHead,
    BlockPoint,
    CanisterScope,
    FleetScope,
    NodeScope,
    UnitEntry,
    apply_manifest,
    decode_head,
    decode_manifest,
    encode_manifest,
    listing_of,
    plan_manifest,
    whole_manifest,
)
from cannery.node.backup.format.names import (
    ManifestName,
    decode_marker,
    encode_marker,
    pack_name,
    parse_manifest_name,
    parse_pack_name,
)
from cannery.node.backup.format.pack import PackBuilder, read_index, read_pack
from cannery.node.backup.format.units import (
    MODULE_SPACES,
    OWNED_SPACES,
    Entry,
    module_unit,
    node_entries,
    owner_unit,
    space_unit,
    unit_of,
)
from cannery.replica import keys
from tests.replica.memory import MemoryReader

hashes = st.binary(min_size=32, max_size=32)
entries = st.dictionaries(st.binary(min_size=1, max_size=40), st.binary(max_size=6_000), max_size=60)


def unit_entries(pairs: dict[bytes, bytes], name: bytes = b"\x02\x03") -> list[Entry]:
    return [(name, key, pairs[key]) for key in sorted(pairs)]


# --- chunks


@given(entries, entries)
def test_chunks_give_their_entries_back_and_never_span_units(
    first: dict[bytes, bytes], second: dict[bytes, bytes]
) -> None:
    one, other = owner_unit(b"one"), space_unit(keys.REQUESTS)
    cut = list(cut_chunks([*unit_entries(first, one), *unit_entries(second, other)]))
    for name, pairs in ((one, first), (other, second)):
        chunks = [chunk for unit, chunk in cut if unit == name]
        assert list(read_unit(name, chunks)) == sorted(pairs.items())
    assert cut == list(cut_chunks([*unit_entries(first, one), *unit_entries(second, other)]))


@given(st.integers(0, 999), st.binary(max_size=300))
@settings(max_examples=30)
def test_a_change_in_one_place_changes_the_chunks_around_it_alone(place: int, value: bytes) -> None:
    pairs = {b"%06d" % number: sha256(b"%d" % number).digest() * 8 for number in range(1_000)}
    before = [chunk for _, chunk in cut_chunks(unit_entries(pairs))]
    for changed in ({**pairs, b"%06d+" % place: value}, {**pairs, b"%06d" % place: value}):
        after = [chunk for _, chunk in cut_chunks(unit_entries(changed))]
        assert len(before) > 50
        assert len(set(after) - set(before)) <= 3
    gone = {key: value for key, value in pairs.items() if key != b"%06d" % place}
    assert len({chunk for _, chunk in cut_chunks(unit_entries(gone))} - set(before)) <= 3


@given(st.binary(max_size=200))
def test_a_chunk_of_any_bytes_is_read_or_refused_with_one_error(data: bytes) -> None:
    try:
        found = list(read_chunk(data))
    except BackupFormatError:
        return
    assert b"".join(chunk for _, chunk in cut_chunks([(b"\x04x", *pair) for pair in found])) == data


# --- units


def test_every_space_of_keys_has_its_unit() -> None:
    spaces = {name: value for name, value in vars(keys).items() if name.isupper() and type(value) is int}
    spaces = {name: value for name, value in spaces.items() if value < keys.HEAD and "DUE_" not in name}
    shared = {
        "META", "SCHEMAS", "TYPES", "MODULE_USES", "READY", "STREAM_HEADS", "STREAMS", "DUE", "REQUESTS",
        "OPERATORS", "NAMES", "BLOCKS", "LOCAL_SPACE", "SENT_MODULES", "CREATIONS", "PEERS", "FLEETS_AWAY",
        "FLEET_WAITS", "FANS", "FAN_PARTS",
    }  # fmt: skip
    known = {name for name, value in spaces.items() if value in (*OWNED_SPACES, *MODULE_SPACES)}
    assert known | shared == set(spaces) - {"MINUTE_NS"}, "say in units.py what orders the new space"


@given(
    st.dictionaries(
        st.tuples(
            st.sampled_from([keys.CANISTERS, keys.STABLE, keys.LOGS, keys.FLEET_MEMBERS]),
            st.sampled_from([b"", b"a", b"b", b"ab", b"\x00" * 10]),
            st.binary(max_size=3),
        ),
        st.binary(max_size=5),
        max_size=40,
    ),
    st.dictionaries(
        st.sampled_from([b"\x01\x01", b"\x07" + b"h" * 32, b"\x08" + b"h" * 32, b"\x81"]), st.binary()
    ),
)
def test_a_store_is_read_whole_each_unit_together_and_in_order(
    owned: dict[tuple[int, bytes, bytes], bytes], others: dict[bytes, bytes]
) -> None:
    pairs = {keys.owned(space, owner, rest): value for (space, owner, rest), value in owned.items()} | others
    reader = MemoryReader()
    from cannery.ports import WriteBatch

    reader.write(WriteBatch(dict(pairs)))
    found = list(node_entries(reader))
    assert sorted((key, value) for _, key, value in found) == sorted(pairs.items())
    assert all(unit_of(key) == name for name, key, _ in found)
    order = [name for at, (name, _, _) in enumerate(found) if at == 0 or found[at - 1][0] != name]
    assert len(order) == len(set(order))
    for name in order:
        own = [key for unit, key, _ in found if unit == name]
        assert own == sorted(own)
    assert module_unit(b"h" * 32) in order or not any(key[0] in MODULE_SPACES for key in pairs)


# --- packs


def build_pack(chunks: list[bytes]) -> tuple[str, bytes]:
    builder = PackBuilder()
    for chunk in dict.fromkeys(chunks):
        builder.add(sha256(chunk).digest(), chunk)
    pack = builder.finish()
    return pack.name, pack.data


chunk_lists = st.lists(st.binary(min_size=1, max_size=100_000), min_size=1, max_size=8)


@given(chunk_lists)
def test_a_pack_gives_its_chunks_back(chunks: list[bytes]) -> None:
    name, data = build_pack(chunks)
    assert name == sha256(data).hexdigest()
    assert dict(read_pack(data)) == {sha256(chunk).digest(): chunk for chunk in chunks}


@given(chunk_lists, st.data())
def test_a_damaged_pack_is_refused_with_one_error(chunks: list[bytes], draw: st.DataObject) -> None:
    _, data = build_pack(chunks)
    at = draw.draw(st.integers(0, len(data) - 1))
    broken = data[:at] + bytes((data[at] ^ draw.draw(st.integers(1, 255)),)) + data[at + 1 :]
    cut = data[:at]
    for changed in (broken, cut, data + b"x"):
        try:
            found = dict(read_pack(changed))
        except BackupFormatError:
            continue
        # zstandard has bits that change nothing; the name of the pack still tells.
        assert found == {sha256(chunk).digest(): chunk for chunk in chunks}


@given(st.binary(max_size=300), st.integers(0, 400))
def test_an_index_of_any_bytes_is_read_or_refused_with_one_error(data: bytes, size: int) -> None:
    for junk in (
        data,
        data + b"CANPACK\x01",
        b"CANPACK\x01" + data + b"\x00\x00\x00\x01\x00\x00\x00\x01CANPACK\x01",
    ):
        with pytest.raises(BackupFormatError):
            read_index(junk, size)


# --- manifests

scopes = st.one_of(
    st.just(NodeScope()),
    st.builds(FleetScope, st.binary(max_size=29)),
    st.builds(CanisterScope, st.lists(st.binary(max_size=29), max_size=3).map(tuple)),
)
units = st.dictionaries(st.binary(min_size=1, max_size=12), st.lists(hashes, max_size=3), max_size=12).map(
    lambda found: {name: UnitEntry(name, tuple(chunks), len(chunks)) for name, chunks in found.items()}
)


def head_of(number: int, found: dict[bytes, UnitEntry], **fields: object) -> BackupHead:
    values: dict[str, object] = {
        "number": number,
        "made_ns": number,
        "scope": NodeScope(),
        "node": b"n",
        "kit_version": "1",
        "block": BlockPoint(number, bytes(32), bytes(32), number, 1),
        "state_hash": b"",
        "has_keys": False,
        "hash_seed": 0,
        "follows": (),
        "canister_count": 0,
        "size_bytes": 0,
        "written_bytes": 0,
        "listing": listing_of(found),
    }
    return BackupHead(**{**values, **fields})  # type: ignore[arg-type]


@given(scopes, units, st.integers(0, 2**40))
def test_a_manifest_gives_its_values_back(
    scope: NodeScope | FleetScope | CanisterScope, found: dict[bytes, UnitEntry], written: int
) -> None:
    head = head_of(7, found, scope=scope, written_bytes=written, follows=(1, 2))
    manifest = whole_manifest(head, found)
    data = encode_manifest(manifest)
    assert decode_manifest(data) == manifest
    assert decode_head(data)[0] == head
    assert apply_manifest(manifest, {}) == found


@given(st.lists(units, min_size=1, max_size=6))
def test_a_chain_of_differences_gives_each_backup_back(states: list[dict[bytes, UnitEntry]]) -> None:
    base, base_units = None, {}
    for number, found in enumerate(states, 1):
        manifest = plan_manifest(head_of(number, found), found, base, base_units, BACKUP_CHAIN_COUNT_MAX)
        manifest = decode_manifest(encode_manifest(manifest))
        assert apply_manifest(manifest, base_units) == found
        base, base_units = manifest.head, found


def test_a_chain_is_bounded_and_a_difference_is_small() -> None:
    found = {b"%d" % n: UnitEntry(b"%d" % n, (sha256(b"%d" % n).digest(),), 9) for n in range(100)}
    base, depths = head_of(1, found), []
    for number in range(2, 12):
        manifest = plan_manifest(head_of(number, found), found, base, found, 4)
        depths.append(0 if manifest.head.base is None else manifest.head.base.depth)
        base = manifest.head
    assert depths == [1, 2, 3, 4, 0, 1, 2, 3, 4, 0]
    changed = {**found, b"5": UnitEntry(b"5", (), 0)}
    manifest = plan_manifest(head_of(2, changed), changed, head_of(1, found), found, 4)
    assert (manifest.changed, manifest.removed) == ((changed[b"5"],), ())


@given(units, units)
def test_a_difference_on_another_base_is_refused(
    first: dict[bytes, UnitEntry], second: dict[bytes, UnitEntry]
) -> None:
    found = {**first, b"more": UnitEntry(b"more", (), 0)}
    manifest = plan_manifest(head_of(2, found), found, head_of(1, first), first, 4)
    if manifest.head.base is None or second == first:
        return
    try:
        assert apply_manifest(manifest, second) == found
    except BackupFormatError:
        assert {**second, **{unit.name: unit for unit in manifest.changed}} != found


@given(units, st.data())
def test_a_damaged_manifest_is_refused_with_one_error(
    found: dict[bytes, UnitEntry], draw: st.DataObject
) -> None:
    manifest = whole_manifest(head_of(1, found), found)
    data = encode_manifest(manifest)
    at = draw.draw(st.integers(0, len(data) - 1))
    broken = data[:at] + bytes((data[at] ^ draw.draw(st.integers(1, 255)),)) + data[at + 1 :]
    for changed in (broken, data[:at]):
        try:
            assert apply_manifest(decode_manifest(changed), {}) == found
        except BackupFormatError:
            continue


@given(st.binary(max_size=300))
@pytest.mark.parametrize("decode", [decode_head, decode_manifest, decode_marker])
def test_any_bytes_are_refused_with_one_error(decode: Callable[[bytes], object], data: bytes) -> None:
    for junk in (data, b"CANLIST\x01" + data, b"cannery backup " + data):
        with pytest.raises(BackupFormatError):
            decode(junk)


# --- names


@given(hashes, st.integers(1, 99_999_999))
def test_names_give_back_what_they_say(found: bytes, number: int) -> None:
    assert parse_pack_name(pack_name(found.hex())) == found.hex()
    name = ManifestName(number, found.hex())
    assert parse_manifest_name(str(name)) == name
    assert parse_pack_name(str(name)) is None
    assert parse_manifest_name(pack_name(found.hex())) is None


def test_a_marker_says_what_is_wrong_with_it() -> None:
    marker = encode_marker(b"r" * 16)
    assert decode_marker(marker) == b"r" * 16
    with pytest.raises(BackupFormatError, match="use the version that wrote it"):
        decode_marker(b"cannery backup 2\nwhatever")
    for at in range(len(marker)):
        with pytest.raises(BackupFormatError):
            decode_marker(marker[:at] + bytes((marker[at] ^ 1,)) + marker[at + 1 :])
