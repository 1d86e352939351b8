"""The reason why a Python value is not of a Candid type, and where.

Encoders test as little as they can while they write; when one fails, this module walks the value again and
finds the path that does not fit, such as `argument 0.author: 'bob' is not a principal`. It encodes nothing.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TypeAlias

from cannery.candid.binding import binding_of
from cannery.candid.errors import CandidError
from cannery.candid.graph import (
    BOOL,
    FIXED_FORMATS,
    FLOAT32,
    FLOAT64,
    INT,
    NAT,
    NAT8,
    NULL,
    PRIMITIVE_NAMES,
    PRINCIPAL,
    RESERVED,
    TEXT,
    FuncNode,
    FutureNode,
    Graph,
    OptNode,
    RecordNode,
    ServiceNode,
    VariantNode,
    VecNode,
)
from cannery.candid.leb128 import encode_leb128, encode_sleb128
from cannery.candid.source import is_nullable
from cannery.candid.values import FuncRef, Packed, ServiceRef, Some, Variant
from cannery.limits import CANDID_VALUE_DEPTH_LEVELS_MAX
from cannery.protocol.principal import Principal

_SHOWN_CHARS_MAX = 60


def explain_values(graph: Graph, values: object, *, single: bool) -> str | None:
    """Return the path and reason for which the values are not of the types of the roots, or nothing."""
    checker = _Checker(graph)
    if single:
        return checker.first_reason([_Part(graph.roots[0], values, "value", 0)])
    if not isinstance(values, (list, tuple)):
        return f"arguments are a list or tuple, not {_show(values)}"
    if len(values) != len(graph.roots):
        return f"{len(values)} values are given for {len(graph.roots)} types"
    pairs = enumerate(zip(graph.roots, values, strict=True))
    return checker.first_reason([_Part(ref, value, f"argument {place}", 0) for place, (ref, value) in pairs])


@dataclass(frozen=True, slots=True)
class _Part:
    """A value somewhere inside, and the type that it should have."""

    ref: int
    value: object
    path: str
    depth: int


_Found: TypeAlias = str | list[_Part]
"""Why a part does not fit, or the parts inside it."""


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bytes, Principal)) else type(value).__name__
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."


class _Checker:
    """Walks a value along its type, without recursion."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def first_reason(self, parts: list[_Part]) -> str | None:
        """Return path and reason of the first part that does not fit."""
        stack = parts[::-1]
        while stack:
            part = stack.pop()
            if part.depth > CANDID_VALUE_DEPTH_LEVELS_MAX:
                return f"values are nested over {CANDID_VALUE_DEPTH_LEVELS_MAX} levels deep"
            found = self._look(part)
            if isinstance(found, str):
                return f"{part.path}: {found}"
            stack.extend(reversed(found))
        return None

    def _look(self, part: _Part) -> _Found:
        if part.ref < 0:
            fits = _fits_primitive(part.ref, part.value)
            return [] if fits else f"{_show(part.value)} is not a {PRIMITIVE_NAMES[part.ref]}"
        match self.graph.nodes[part.ref]:
            case OptNode() as node:
                return self._opt(node, part)
            case VecNode() as node:
                return self._vec(node, part)
            case RecordNode() as node:
                return self._record(node, part)
            case VariantNode() as node:
                return self._variant(node, part)
            case FuncNode():
                fits = isinstance(part.value, FuncRef) and isinstance(part.value.principal, Principal)
                return [] if fits else f"{_show(part.value)} is not a FuncRef"
            case ServiceNode():
                fits = isinstance(part.value, (ServiceRef, Principal))
                return [] if fits else f"{_show(part.value)} is not a ServiceRef"
            case FutureNode():
                return "a type of a later Candid has no values here"

    def _opt(self, node: OptNode, part: _Part) -> _Found:
        value = part.value
        if value is None:
            return []
        if is_nullable(self.graph, node.inner):
            if not isinstance(value, Some):
                return f"{_show(value)} is not None or Some(value), which an opt of a nullable type needs"
            value = value.value
        return [_Part(node.inner, value, part.path, part.depth + 1)]

    def _vec(self, node: VecNode, part: _Part) -> _Found:
        value = part.value
        if node.inner == NAT8:
            return [] if isinstance(value, (bytes, bytearray, memoryview)) else f"{_show(value)} is not bytes"
        if node.bound is dict:
            if not isinstance(value, dict):
                return f"{_show(value)} is not a dict"
            value = list(value.items())
        if isinstance(value, Packed) and node.inner not in FIXED_FORMATS:
            return []
        if not isinstance(value, (list, tuple)):
            return f"{_show(value)} is not a list"
        return [_Part(node.inner, v, f"{part.path}[{i}]", part.depth + 1) for i, v in enumerate(value)]

    def _record(self, node: RecordNode, part: _Part) -> _Found:
        value = part.value
        if node.bound is not None:
            if type(value) is not node.bound:
                return f"{_show(value)} is not a {node.bound.__name__}"
            binding = binding_of(node.bound)
            inner = [getattr(value, binding.attribute(label)) for label in node.labels]
        elif node.is_tuple:
            if not isinstance(value, (tuple, list)) or len(value) != len(node.ids):
                return f"{_show(value)} is not a tuple of {len(node.ids)}"
            inner = list(value)
        else:
            if not isinstance(value, dict):
                return f"{_show(value)} is not a dict"
            reason = self._keys(node, value)
            if reason is not None:
                return reason
            inner = [value.get(label) for label in node.labels]
        parts = zip(node.labels, node.refs, inner, strict=True)
        return [_Part(ref, v, f"{part.path}.{label}", part.depth + 1) for label, ref, v in parts]

    def _keys(self, node: RecordNode, value: dict[object, object]) -> str | None:
        for label, ref in zip(node.labels, node.refs, strict=True):
            if label not in value and not is_nullable(self.graph, ref):
                return f"field {label!r} is missing"
        unknown = [key for key in value if key not in node.labels]
        if unknown:
            return f"field {unknown[0]!r} is not known, fields are {', '.join(node.labels)}"
        return None

    def _variant(self, node: VariantNode, part: _Part) -> _Found:
        value = part.value
        wanted = node.bound or Variant
        if not isinstance(value, Variant) or (node.bound is not None and type(value) is not node.bound):
            return f"{_show(value)} is not a {wanted.__name__}"
        if value.tag not in node.labels:
            return f"case {value.tag!r} is not known, cases are {', '.join(node.labels)}"
        ref = node.refs[node.labels.index(value.tag)]
        return [_Part(ref, value.value, f"{part.path}.{value.tag}", part.depth + 1)]


def _fits_primitive(ref: int, value: object) -> bool:
    if ref == RESERVED:
        return True
    if ref == NULL:
        return value is None
    if ref == BOOL:
        return isinstance(value, bool)
    if ref == TEXT:
        return isinstance(value, str) and _is_encodable(value)
    if ref == PRINCIPAL:
        return isinstance(value, Principal)
    if isinstance(value, bool):
        return False
    if ref in (FLOAT32, FLOAT64):
        return isinstance(value, (float, int)) and _packs(FIXED_FORMATS[ref], value)
    if ref in FIXED_FORMATS:
        return isinstance(value, int) and _packs(FIXED_FORMATS[ref], value)
    return isinstance(value, int) and ref in (NAT, INT) and _is_in_range(ref, value)


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _packs(format: str, value: float) -> bool:
    try:
        struct.pack("<" + format, value)
    except (struct.error, OverflowError):
        return False
    return True


def _is_in_range(ref: int, value: int) -> bool:
    try:
        encode_leb128(value) if ref == NAT else encode_sleb128(value)
    except CandidError:
        return False
    return True
