"""Every decoder of what comes from outside, on arbitrary, on damaged and on endless bytes: it accepts or
raises its one error, and keeps little of what it was sent.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.client.answer_decoders import DECODERS as OF_ANSWERS
from tests.client.decoders import DECODERS as OF_CLIENTS
from tests.fuzzing import REPEATED, Decoder, accepts_or_raises_its_error, damaged
from tests.gateway.decoders import DECODERS as OF_GATEWAYS
from tests.node.decoders import DECODERS as OF_NODES
from tests.node.file_decoders import DECODERS as OF_FILES
from tests.protocol.decoders import DECODERS as OF_THE_PROTOCOL
from tests.replica.decoders import DECODERS as OF_SUBNETS

ROOMS = {
    "protocol": OF_THE_PROTOCOL,
    "gateway": OF_GATEWAYS,
    "node": OF_NODES,
    "outside": OF_FILES,
    "replica": OF_SUBNETS,
    "client": OF_CLIENTS,
    "answer": OF_ANSWERS,
}
DECODERS: dict[str, Decoder] = {
    f"{room}: {name}": decoder for room, table in ROOMS.items() for name, decoder in table.items()
}
NAMES = list(DECODERS)
MEGABYTE = 1_000_000
LITTLE_MEMORY_BYTES = 25 * MEGABYTE


@pytest.mark.parametrize("name", NAMES)
def test_the_accepted_inputs_are_accepted(name: str) -> None:
    decoder = DECODERS[name]
    for data in decoder.accepted:
        decoder.run(data)
    for data in decoder.nearly:
        accepts_or_raises_its_error(decoder, data)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=60)
@given(data=st.data())
def test_arbitrary_bytes(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    head = data.draw(st.sampled_from(decoder.heads))
    accepts_or_raises_its_error(decoder, head + data.draw(st.binary(max_size=300)))


@pytest.mark.parametrize("name", [name for name in NAMES if DECODERS[name].accepted or DECODERS[name].nearly])
@settings(max_examples=150)
@given(data=st.data())
def test_damaged_bytes(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    original = data.draw(st.sampled_from((*decoder.accepted, *decoder.nearly)))
    accepts_or_raises_its_error(decoder, damaged(data, original))


@pytest.mark.parametrize("name", NAMES)
def test_fuzz_a_megabyte_of_one_byte(name: str) -> None:
    for data in _long(DECODERS[name], DECODERS[name].long_bytes):
        accepts_or_raises_its_error(DECODERS[name], data)


@pytest.mark.parametrize("name", NAMES)
def test_fuzz_long_bytes_take_little_memory(name: str) -> None:
    tracemalloc.start()
    try:
        for data in _long(DECODERS[name], MEGABYTE // 20):
            accepts_or_raises_its_error(DECODERS[name], data)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < LITTLE_MEMORY_BYTES


def _long(decoder: Decoder, size_bytes: int) -> Iterator[bytes]:
    for byte in REPEATED:
        for head in decoder.heads:
            yield head + bytes([byte]) * size_bytes
