"""Messages that were built to hurt: every one is read or refused with the one error, soon and in little
memory."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.codec import decode_dynamic, decoder, encoder, value_decoder, value_encoder
from cannery.candid.coerce import Coercion
from cannery.candid.decoder_source import compile_decoder
from cannery.candid.errors import CandidError
from cannery.candid.graph import graph_of, reduce_graph
from cannery.candid.leb128 import encode_leb128
from cannery.candid.measure import Measures, new_meter
from cannery.candid.read import ENDS_EARLY
from cannery.candid.values import Some, Variant
from cannery.candid.wire import encode_header
from cannery.limits import CANDID_VALUE_DEPTH_LEVELS_MAX
from tests.candid.strategies import typed_values, types

BILLION = "8094ebdc03"
DOUBLING = "17" + "6c02017f027f" + "".join(f"6c0201{i:02x}02{i:02x}" for i in range(20)) + "6e14" + "6d15"
BOMBS = {
    "vec null": f"016d7f0100{BILLION}",
    "vec reserved": f"016d700100{BILLION}",
    "vec of empty records": f"026d016c000100{BILLION}",
    "vec of records of nulls": f"046c03007f010102026c0100706c006d000103{BILLION}",
    "vec vec null": "026d016d7f010005" + "ffff3f" * 5,
    "opt of 2^20 nulls": DOUBLING + "01150101"[:4] + "01",
    "vec of 2^20 nulls": DOUBLING + "0116" + "020101",
    "2^20 nulls": DOUBLING + "0114",
    "vec of bools": f"016d7e0100{BILLION}0000",
    "text": f"000171{BILLION}",
}
EXPECTED: list[tuple[ct.Type, ...]] = [
    (),
    (ct.Reserved(),),
    (ct.Opt(ct.Nat()),),
    (ct.Vec(ct.Null()),),
    (ct.Vec(ct.Reserved()),),
    (ct.Vec(ct.Opt(ct.Nat())),),
    (ct.Vec(ct.record_of({})),),
    (ct.Vec(ct.Vec(ct.Null())),),
    (ct.Vec(ct.Opt(ct.record_of({}))),),
    (ct.Opt(ct.Vec(ct.Opt(ct.Empty()))),),
]


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_in_little_memory(name: str) -> None:
    message = b"DIDL" + bytes.fromhex(BOMBS[name])
    for expected in EXPECTED:
        decode = decoder(expected)
        tracemalloc.start()
        try:
            with pytest.raises(CandidError):
                decode(message)
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
    with pytest.raises(CandidError):
        decode_dynamic(message)


def test_modest_vectors_without_bytes_are_read() -> None:
    t = ct.Vec(ct.Null())
    assert decoder((t,))(encoder((t,))(([None] * 1000,))) == ([None] * 1000,)


def test_the_receivers_own_types_do_not_help_a_bomb() -> None:
    t = ct.Vec(ct.tuple_record(ct.Null(), ct.record_of({})))
    with pytest.raises(CandidError, match="expensive"):
        value_decoder(t)(b"\xff\xff\x3f")
    assert value_decoder(t)(b"\x02") == [(None, {}), (None, {})]


def test_large_messages_may_cost_more() -> None:
    t = ct.Vec(ct.tuple_record(ct.Null(), ct.Text()))
    values = [(None, "some text")] * 100_000
    assert value_decoder(t)(value_encoder(t)(values)) == values


OPT = ct.Rec("Opt", ct.Env({"Opt": ct.Opt(ct.Ref("Opt"))}))
TREE = ct.Rec("Tree", ct.Env({"Tree": ct.Vec(ct.Ref("Tree"))}))


@pytest.mark.parametrize("expected", [OPT, TREE, ct.Reserved(), ct.Opt(ct.Nat()), ct.Opt(ct.Text())])
@pytest.mark.parametrize("wire", ["016e00", "016d00", "026e016c0100" + "00"])
def test_deep_values_are_refused(wire: str, expected: ct.Type) -> None:
    message = b"DIDL" + bytes.fromhex(wire) + b"\1\0" + b"\1" * 100_000 + b"\0"
    for _ in range(2):
        with pytest.raises(CandidError, match=r"nested over 256|not a subtype of vec"):
            decoder((expected,))(message)
    with pytest.raises(CandidError, match="nested over 256"):
        decode_dynamic(message)


def test_depth_is_the_same_for_encoders_and_decoders() -> None:
    value: object = None
    for _ in range(CANDID_VALUE_DEPTH_LEVELS_MAX - 1):
        value = Some(value)
    message = encoder((OPT,))((value,))
    assert decoder((OPT,))(message)[0] == value
    other_form = b"DIDL\2\x6e\1\x6e\0\1\1" + value_encoder(OPT)(value)
    assert decoder((OPT,))(other_form)[0] == value
    assert decode_dynamic(message)[1] == [value]
    for _ in range(3):
        value = Some(value)
    with pytest.raises(CandidError, match="nested"):
        encoder((OPT,))((value,))


def test_a_list_inside_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CandidError, match="nested"):
        encoder((TREE,))((loop,))


def test_recovering_again_and_again_is_charged() -> None:
    wire = ct.Rec("T", ct.Env({"T": ct.Opt(ct.tuple_record(ct.Ref("T"), ct.variant_of({"x": ct.Null()})))}))
    expected = ct.Rec(
        "T", ct.Env({"T": ct.Opt(ct.tuple_record(ct.Ref("T"), ct.variant_of({"y": ct.Null()})))})
    )
    value: object = None
    for _ in range(100):
        value = (value, Variant("x"))
    message = encoder((ct.Vec(wire),))(([value] * 200,))
    with pytest.raises(CandidError, match="expensive"):
        decoder((ct.Vec(expected),))(message)
    assert decoder((ct.Vec(expected),))(encoder((ct.Vec(wire),))(([value],))) == ([None],)


@pytest.mark.parametrize("bits", [31, 63, 64, 70, 13_000])
@pytest.mark.parametrize("after", [ct.Nat64(), ct.Nat8(), ct.Bool(), ct.Text(), ct.Vec(ct.Nat32())])
@pytest.mark.parametrize("inner", [ct.Vec(ct.Nat8()), ct.Text(), ct.Vec(ct.Nat64()), ct.Vec(ct.Null())])
def test_a_length_beyond_all_bounds_is_refused(inner: ct.Type, after: ct.Type, bits: int) -> None:
    length = encode_leb128(1 << bits)
    for t in (ct.tuple_record(inner, after), inner):
        message = encode_header(reduce_graph(graph_of((t,)), bindings=False)) + length
        for expected in (t, ct.Opt(t)):
            with pytest.raises(CandidError):
                decoder((expected,))(message + bytes(40))
        with pytest.raises(CandidError):
            value_decoder(t)(length + bytes(40))


@given(st.binary(max_size=60), types)
def test_any_bytes_are_read_or_refused(data: bytes, t: ct.Type) -> None:
    for message in (data, b"DIDL" + data, b"DIDL\0" + data):
        _read_or_refuse(message, t)
    try:
        value_decoder(t)(data)
    except CandidError:
        return


@given(typed_values(), types, st.data())
def test_mutated_messages_are_read_or_refused(
    typed: tuple[ct.Type, object], other: ct.Type, data: st.DataObject
) -> None:
    t, value = typed
    raw = bytearray(encoder((t,))((value,)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        change = data.draw(st.sampled_from(["set", "cut", "insert"]))
        if change == "set":
            raw[place] = data.draw(st.integers(0, 255))
        elif change == "cut" and len(raw) > 1:
            del raw[place]
        else:
            raw.insert(place, data.draw(st.integers(0, 255)))
    for expected in (t, other):
        _read_or_refuse(bytes(raw), expected)


def _read_or_refuse(message: bytes, t: ct.Type) -> None:
    try:
        values = decoder((t,))(message)
    except CandidError:
        pass
    else:
        assert decoder((t,))(message) == values or values != values  # NaN alone differs from itself
    try:
        decode_dynamic(message)
    except CandidError:
        return


@settings(max_examples=200)
@given(typed_values(), st.data())
def test_generated_source_and_closures_agree(typed: tuple[ct.Type, object], data: st.DataObject) -> None:
    t, value = typed
    raw = bytearray(value_encoder(t)(value))
    if raw and data.draw(st.booleans()):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    graph = reduce_graph(graph_of((t,)), bindings=True)
    assert _generated(graph, bytes(raw)) == _closures(graph, bytes(raw))


def _generated(graph: object, raw: bytes) -> str:
    try:
        return repr(compile_decoder(graph, single=True)(raw, 0))  # type: ignore[arg-type]  # a Graph
    except CandidError:
        return "refused"


def _closures(graph: object, raw: bytes) -> str:
    coercion = Coercion(graph, graph)  # type: ignore[arg-type]  # a Graph
    root = graph.roots[0]  # type: ignore[attr-defined]  # a Graph
    try:
        value, position = coercion.reader(root, root)(raw, 0, 0, new_meter(len(raw)))
        skipped = coercion.skips.skipper(root)(raw, 0, 0, new_meter(len(raw)))
    except (CandidError, *ENDS_EARLY):
        return "refused"
    assert skipped == position
    return repr(value) if position == len(raw) else "refused"


@given(types)
def test_types_without_values_are_found(t: ct.Type) -> None:
    graph = graph_of((t,))
    measure = Measures(graph).of(graph.roots[0])
    if measure is None:
        with pytest.raises(CandidError):
            value_decoder(t)(b"\0" * 50)
    else:
        assert measure.size >= 0


@given(typed_values())
def test_no_value_is_smaller_than_its_measure(typed: tuple[ct.Type, object]) -> None:
    t, value = typed
    graph = graph_of((t,))
    measure = Measures(graph).of(graph.roots[0])
    assert measure is not None
    assert len(value_encoder(t)(value)) >= measure.size
