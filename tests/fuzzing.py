"""The law of decoders: whatever the bytes, a decoder accepts, or raises its one error and says why.

Each room has a table of its decoders (`decoders.py`); `test_fuzz.py` beside this file holds all to the law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hypothesis import strategies as st

# What breaks decoders of CBOR, MessagePack and JSON: ends, lengths of gigabytes, text that is none, depth,
# and numbers of more digits than Python writes down.
HOSTILE = (
    b"\xff",
    b"\x9f",
    b"\xbf",
    b"\xf6",
    b"\xd9\xd9\xf7",
    b"\x1b" * 9,
    b"\xdd\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xa2\xc3\x28",
    b"\x91" * 5_000,
    b"\xc2\x59\x08\x00" + b"\xff" * 2_048,
    b"[" * 5_000,
    b"Infinity",
    b"9" * 5_000,
)
# What a decoder of some kind might count, or take as the beginning of something, again and again.
REPEATED = b"\x00\x2d\x30\x5f\x80\x81\x91\x9f\xa1\xbf\xc2\xc6\xdd\xff[{(9"


class NeverRefused(Exception):
    """The one error of what reads any bytes at all."""


@dataclass(frozen=True)
class Decoder:
    """A decoder, its one error, inputs that it accepts, and `nearly`: others that are worth damaging.

    `heads`: what long inputs begin with, so that they are read at all; `long_bytes`: how long those are, less
    where reading is work of seconds.
    """

    run: Callable[[bytes], object]
    error: type[Exception] | tuple[type[Exception], ...]
    accepted: tuple[bytes, ...]
    nearly: tuple[bytes, ...] = ()
    heads: tuple[bytes, ...] = (b"",)
    long_bytes: int = 1_000_000


def damaged(data: st.DataObject, original: bytes) -> bytes:
    """Change, drop, repeat or insert a few bytes."""
    changed = bytearray(original)
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(changed)))
        end = min(len(changed), start + data.draw(st.integers(0, 4)))
        changed[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from(HOSTILE))
    return bytes(changed)


def accepts_or_raises_its_error(decoder: Decoder, data: bytes) -> None:
    """Hold the law for some bytes."""
    try:
        decoder.run(data)
        return
    except decoder.error as error:
        refusal = error
    assert str(refusal), "a refusal says why"
    assert len(str(refusal)) < 2_000, "a refusal does not repeat its input at length"
