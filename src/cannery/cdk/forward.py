"""The continuation that every canister has: it passes a callee's answer on to the caller as it is.

`return ctx.call(Other(id).method(x))` sends a call with this continuation; the saved value is the name of the
method or continuation whose result types the reply must have.
"""

from __future__ import annotations

from cannery.candid import types as ct
from cannery.cdk.stable_values import ValueCodec
from cannery.ports import System

FORWARD = "cannery.forward"
ANSWERER = ValueCodec[str]("the method that waits", ct.Text())


def encode_answerer(name: str) -> bytes:
    """Encode the saved value of a forwarded call."""
    return ANSWERER.write(name)


def decode_answerer(data: bytes, system: System) -> str:
    """Decode the saved value of a forwarded call."""
    return ANSWERER.read(data, system)
