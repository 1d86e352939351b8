"""Keys of stable collections read by shape alone: what a schema says of them, without the author's classes.

A shape is the text in `KeyCodec.shape` (module `stable_keys`, which holds the encoding): a primitive, a tuple
`(text; nat)` or a record `{zone text; owner principal}`. A record's bytes are those of the tuple of its
parts, so names matter to shapes alone. This module compares no shapes and knows no collections.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from types import MappingProxyType

from cannery import limits
from cannery.candid import types as ct
from cannery.cdk.stable_keys import KeyCodec, KeyTypeError, key_codec

_PRIMITIVES: Mapping[str, ct.Type] = MappingProxyType(
    {
        "bool": ct.Bool(),
        "nat8": ct.Nat8(),
        "nat16": ct.Nat16(),
        "nat32": ct.Nat32(),
        "nat64": ct.Nat64(),
        "int8": ct.Int8(),
        "int16": ct.Int16(),
        "int32": ct.Int32(),
        "int64": ct.Int64(),
        "nat": ct.Nat(),
        "int": ct.Int(),
        "text": ct.Text(),
        "blob": ct.Vec(ct.Nat8()),
        "principal": ct.PrincipalType(),
    }
)
_TOKEN = re.compile(r"[(){};]|[^(){}; ]+")


@lru_cache(maxsize=limits.CANDID_CODEC_CACHE_COUNT_MAX)
def codec_of_shape(shape: str) -> KeyCodec:
    """Compile the codec of the keys of a shape, records as tuples; raise KeyTypeError where it is none."""
    tokens = _TOKEN.findall(shape)
    type_, end = _read(tokens, 0, 0)
    if end != len(tokens):
        raise KeyTypeError(f"{shape!r:.200} is not the shape of a key")
    return key_codec(type_)


def _read(tokens: list[str], at: int, depth: int) -> tuple[ct.Type, int]:
    if at >= len(tokens) or depth > limits.STABLE_KEY_DEPTH_MAX:
        raise KeyTypeError("the shape of a key ends early, or lies too deep")
    token = tokens[at]
    if token in ("(", "{"):
        return _read_parts(tokens, at + 1, depth + 1, is_record=token == "{")
    primitive = _PRIMITIVES.get(token)
    if primitive is None:
        raise KeyTypeError(f"{token!r:.200} is not the shape of a key")
    return primitive, at + 1


def _read_parts(tokens: list[str], at: int, depth: int, *, is_record: bool) -> tuple[ct.Type, int]:
    parts: list[ct.Type] = []
    while True:
        part, at = _read(tokens, at + 1 if is_record else at, depth)
        parts.append(part)
        after = tokens[at] if at < len(tokens) else ""
        if after == ("}" if is_record else ")"):
            return ct.tuple_record(*parts), at + 1
        if after != ";":
            raise KeyTypeError("the parts of a key's shape are divided by semicolons")
        at += 1
