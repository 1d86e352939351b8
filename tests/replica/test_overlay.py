"""Layers over a reader behave as one ordered map, whatever is put, deleted and merged."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.ports import WriteBatch
from cannery.replica import keys, overlay
from cannery.replica.overlay import CachedReader, Layer, batch_of
from tests.replica.memory import MemoryReader

OWNERS = (b"\x01", b"\x02")
short = st.binary(max_size=2)
full_keys = st.builds(
    lambda owner, rest: keys.owned(keys.STABLE, owner, rest), st.sampled_from(OWNERS), short
)
puts = st.tuples(st.just("put"), full_keys, st.binary(max_size=2))
deletes = st.tuples(st.just("delete"), full_keys)
ranges = st.builds(
    lambda owner, start, end: (
        "range",
        keys.owned(keys.STABLE, owner, start),
        keys.owned(keys.STABLE, owner, end),
    ),
    st.sampled_from(OWNERS),
    short,
    short,
)
scans = st.builds(
    lambda owner, start, end, backwards: (
        "scan",
        keys.owned(keys.STABLE, owner, start),
        keys.owned(keys.STABLE, owner, end),
        backwards,
    ),
    st.sampled_from(OWNERS),
    st.just(b"") | short,
    st.just(b"\xff" * 3) | short,
    st.booleans(),
)
moves = st.sampled_from([("open",), ("merge",), ("drop",)])
steps = st.lists(st.one_of(puts, puts, deletes, ranges, scans, moves), max_size=60)


def _scan(model: dict[bytes, bytes], start: bytes, end: bytes, backwards: bool) -> list[tuple[bytes, bytes]]:
    found = sorted(item for item in model.items() if start <= item[0] < end)
    return found[::-1] if backwards else found


def _apply(model: dict[bytes, bytes], layer: Layer, step: tuple) -> None:
    match step:
        case ("put", key, value):
            model[key] = value
            layer.put(key, value)
        case ("delete", key):
            model.pop(key, None)
            layer.delete(key)
        case ("range", start, end):
            for key, _ in _scan(model, start, end, False):
                del model[key]
            layer.delete_range(start, end)
        case ("scan", start, end, backwards):
            assert list(layer.scan(start, end, reverse=backwards)) == _scan(model, start, end, backwards)


@pytest.mark.parametrize(("insert_count", "late_count"), [(4_096, 64), (2, 1), (2, 3)])
@given(stored=st.dictionaries(full_keys, st.binary(max_size=2), max_size=20), plan=steps)
def test_layers_behave_as_one_map(
    insert_count: int, late_count: int, stored: dict[bytes, bytes], plan: list[tuple]
) -> None:
    """Also where a layer has so many keys that late ones wait: put in one by one, or sorted in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, "SORTED_INSERT_COUNT_MAX", insert_count)
        patch.setattr(overlay, "SORTED_LATE_COUNT_MAX", late_count)
        run_plan(stored, plan)


def run_plan(stored: dict[bytes, bytes], plan: list[tuple]) -> None:
    store = MemoryReader()
    store.write(WriteBatch(dict(stored)))
    reader = CachedReader(store)
    lower = Layer(reader)
    layers, models = [lower], [dict(stored)]
    for step in plan:
        if step == ("open",):
            if len(layers) < 3:
                layers.append(Layer(layers[-1]))
                models.append(dict(models[-1]))
        elif step in (("merge",), ("drop",)):
            if len(layers) > 1:
                layer, model = layers.pop(), models.pop()
                if step == ("merge",):
                    layer.merge_into(layers[-1])
                    models[-1] = model
        else:
            _apply(models[-1], layers[-1], step)
        for key in (
            keys.owned(keys.STABLE, owner, rest) for owner in OWNERS for rest in (b"", b"\x00", b"a")
        ):
            assert layers[-1].get(key) == models[-1].get(key)
    while len(layers) > 1:
        layers.pop().merge_into(layers[-1])
        top = models.pop()
        models[-1] = top
    store.write(batch_of(lower, reader))
    assert dict(store.scan(b"", b"\xff")) == models[0]


def test_a_change_during_a_scan_shows_where_its_key_was_there() -> None:
    store = MemoryReader()
    prefix = keys.owned(keys.STABLE, b"\x01")
    store.write(WriteBatch({prefix + bytes((n,)): b"old" for n in range(5)}))
    layer = Layer(CachedReader(store))
    seen = []
    for key, value in layer.scan(prefix, prefix + b"\xff"):
        seen.append((key[-1], value))
        layer.put(prefix + b"\x02", b"new")
        layer.delete(prefix + b"\x03")
    assert seen == [(0, b"old"), (1, b"old"), (2, b"new"), (4, b"old")]


def test_a_batch_is_the_same_whatever_was_read_besides() -> None:
    store = MemoryReader()
    key = keys.owned(keys.STABLE, b"\x01", b"k")
    store.write(WriteBatch({key: b"same"}))
    batches = []
    for reads in (True, False):
        reader = CachedReader(store)
        layer = Layer(reader)
        if reads:
            layer.get(key)
        layer.put(key, b"same")
        layer.put(key + b"2", None)
        batches.append(batch_of(layer, reader))
    assert batches[0] == batches[1] == WriteBatch()


def test_many_keys_in_any_order_are_scanned_in_order() -> None:
    layer = Layer(MemoryReader())
    prefix = keys.owned(keys.STABLE, b"\x01")
    for number in range(10_000):
        layer.put(prefix + (number * 7919 % 10_007).to_bytes(2, "big"), b"")
        if number % 1000 == 0:
            list(layer.scan(prefix, prefix + b"\x00\x05"))
    found = [key for key, _ in layer.scan(prefix, keys.after_prefix(prefix))]
    assert found == sorted(found)
    assert len(found) == 10_000
