"""Encoders and decoders of messages and of single values, compiled once per type.

Candid specification, section "Binary Format". A decoder whose message begins with the very header that it
expects goes straight to generated source; so does one whose header differs in form alone (another order of
the type table). Any other header is compiled to a coercion, and the last of them are kept. All functions
raise `CandidError` and nothing else for input that they do not accept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

from cannery.candid.coerce import Coercion
from cannery.candid.decoder_source import compile_decoder, refuse_end
from cannery.candid.encoder_source import compile_encoder
from cannery.candid.errors import CandidError
from cannery.candid.graph import Graph, describe, equal_structure, graph_of, reduce_graph
from cannery.candid.measure import new_meter
from cannery.candid.read import ENDS_EARLY, Reader, refuse_ending
from cannery.candid.types import Type
from cannery.candid.wire import decode_header, encode_header, encode_type, types_of_graph
from cannery.limits import (
    CANDID_CODEC_CACHE_COUNT_MAX,
    CANDID_HEADER_CACHE_COUNT_MAX,
    CANDID_HEADER_CACHED_SIZE_BYTES_MAX,
)

_Values = Callable[[bytes, int], tuple[object, ...]]


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def encoder(types: tuple[Type, ...]) -> Callable[[Sequence[object]], bytes]:
    """Return the function that encodes values of these types as a message."""
    graph = reduce_graph(graph_of(types), bindings=True)
    header = encode_header(reduce_graph(graph, bindings=False))
    return compile_encoder(graph, header, single=False)


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def decoder(types: tuple[Type, ...]) -> Callable[[bytes], tuple[object, ...]]:
    """Return the function that decodes a message, of whatever types, to values of these types."""
    return _MessageDecoder(reduce_graph(graph_of(types), bindings=True)).decode


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def value_encoder(t: Type) -> Callable[[object], bytes]:
    """Return the function that encodes one value of type `t`, without header."""
    return compile_encoder(reduce_graph(graph_of((t,)), bindings=True), b"", single=True)


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def value_decoder(t: Type) -> Callable[[bytes], object]:
    """Return the function that decodes the bytes of one value of type `t`."""
    read = compile_decoder(reduce_graph(graph_of((t,)), bindings=True), single=True)

    def decode(data: bytes) -> object:
        return read(data if data.__class__ is bytes else _as_bytes(data), 0)

    return decode


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def value_converter(wire: Type, expected: Type) -> Callable[[bytes], object]:
    """Return the function that decodes the bytes of one value of type `wire` to a value of type `expected`.

    Where `wire` is a subtype of `expected` it accepts every value; elsewhere those that fit.
    """
    if encode_type(wire) == encode_type(expected):
        return value_decoder(expected)
    source = graph_of((wire,))
    target = reduce_graph(graph_of((expected,)), bindings=True)
    coercion = Coercion(source, target)
    reader = coercion.reader(source.roots[0], target.roots[0])
    units = coercion.skips.charge_inside(source.roots[0])

    def decode(data: bytes) -> object:
        return _read_all((reader,), units, _as_bytes(data), 0)[0]

    return decode


def decode_dynamic(data: bytes) -> tuple[list[Type], list[object]]:
    """Decode a message by its own types; fields have numbers and no names there."""
    data = _as_bytes(data)
    graph, position = decode_header(data)
    coercion = Coercion(graph, graph)
    readers = tuple([coercion.reader(ref, ref) for ref in graph.roots])
    units = sum(coercion.skips.charge_inside(ref) for ref in graph.roots)
    values = _read_all(readers, units, data, position)
    return list(types_of_graph(graph)), list(values)


class _MessageDecoder:
    """Decodes messages at one tuple of expected types."""

    __slots__ = ("_fast", "_foreign", "_graph", "_header", "_sizes")

    def __init__(self, graph: Graph) -> None:
        read = compile_decoder(graph, single=False)
        self._fast: _Values = read  # type: ignore[assignment]  # with several roots it returns a tuple
        self._graph = graph
        self._header = encode_header(reduce_graph(graph, bindings=False))
        self._foreign: dict[bytes, _Values] = {}
        self._sizes: tuple[int, ...] = ()

    def decode(self, data: bytes) -> tuple[object, ...]:
        """Decode one message.

        A header says itself where it ends, so no header is the beginning of another: comparing the first
        bytes of a message with the headers known is enough to recognise one.
        """
        if data.__class__ is not bytes:
            data = _as_bytes(data)
        if data.startswith(self._header):
            return self._fast(data, len(self._header))
        for size in self._sizes:
            read = self._foreign.get(data[:size])
            if read is not None:
                return read(data, size)
        return self._learn(data)

    def _learn(self, data: bytes) -> tuple[object, ...]:
        """Decode a message whose header is new, and keep what was compiled for it."""
        wire, position = decode_header(data)
        read = self._fast if equal_structure(wire, self._graph) else _coercion(wire, self._graph)
        values = read(data, position)
        if position <= CANDID_HEADER_CACHED_SIZE_BYTES_MAX:
            while len(self._foreign) >= CANDID_HEADER_CACHE_COUNT_MAX:
                del self._foreign[next(iter(self._foreign))]
            self._foreign[data[:position]] = read
            self._sizes = tuple(sorted({len(header) for header in self._foreign}))
        return values


def _coercion(wire: Graph, expected: Graph) -> _Values:
    """Compile the coercion of a message's arguments: like a tuple, surplus ones ignored, missing ones
    null."""
    coercion = Coercion(wire, expected)
    readers: list[Reader] = []
    for place, ref in enumerate(wire.roots):
        if place < len(expected.roots):
            readers.append(coercion.reader(ref, expected.roots[place]))
        else:
            readers.append(coercion.ignore(ref))
    for place, ref in enumerate(expected.roots[len(wire.roots) :], len(wire.roots)):
        if not coercion.missing(ref):
            raise CandidError(f"argument {place} is missing, and {describe(expected, ref)} is not optional")
    units = sum(coercion.skips.charge_inside(ref) for ref in wire.roots)
    count, made = len(expected.roots), tuple(readers)
    absent = (None,) * (count - len(wire.roots))

    def read(data: bytes, position: int) -> tuple[object, ...]:
        return _read_all(made, units, data, position)[:count] + absent

    return read


def _read_all(readers: tuple[Reader, ...], units: int, data: bytes, position: int) -> tuple[object, ...]:
    meter = new_meter(len(data))
    meter[0] -= units
    values = []
    place = 0
    try:
        if meter[0] < 0:
            raise CandidError(
                "the message costs more work than its size pays for: it was built to be expensive"
            )
        for place, reader in enumerate(readers):  # noqa: B007 - the place is for the error text
            value, position = reader(data, position, 0, meter)
            values.append(value)
    except ENDS_EARLY as error:
        raise refuse_ending(error) from None
    except CandidError as error:
        raise CandidError(f"argument {place}: {error}") from None
    if position != len(data):
        raise refuse_end(position, len(data))
    return tuple(values)


def _as_bytes(data: object) -> bytes:
    if isinstance(data, (bytes, bytearray, memoryview)):
        return bytes(data)
    raise CandidError(f"a message is made of bytes, not of {type(data).__name__}")
