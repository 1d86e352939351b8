"""The reason why a Python value is not of a Candid type, and where.

Encoders test as little as they can while they write; when one fails, this module walks the value again and finds the
path that does not fit, such as `argument 0.author: 'bob' is not a principal`. It encodes nothing.
"""

from __future__ import annotations

import struct

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
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.limits import CANDID_VALUE_DEPTH_LEVELS_MAX
from cannery.protocol.principal import Principal

_SHOWN_CHARS_MAX = 60


def explain_values(graph: Graph, values: object, *, single: bool) -> str | None:
    """Return the path and reason for which the values are not of the types of the roots, or nothing."""
    checker = _Checker(graph)
    if single:
        return checker.reason(graph.roots[0], values, "value", 0)
    if not isinstance(values, (list, tuple)):
        return f"arguments are a list or tuple, not {_show(values)}"
    if len(values) != len(graph.roots):
        return f"{len(values)} values are given for {len(graph.roots)} types"
    found = (
        checker.reason(ref, value, f"argument {place}", 0)
        for place, (ref, value) in enumerate(zip(graph.roots, values, strict=True))
    )
    return next((reason for reason in found if reason is not None), None)


def _show(value: object) -> str:
    text = repr(value) if isinstance(value, (str, int, float, bytes, Principal)) else type(value).__name__
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."


class _Checker:
    """Walks a value along its type."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    def reason(self, ref: int, value: object, path: str, depth: int) -> str | None:
        """Return path and reason where the value does not fit."""
        if depth > CANDID_VALUE_DEPTH_LEVELS_MAX:
            return f"values are nested over {CANDID_VALUE_DEPTH_LEVELS_MAX} levels deep"
        if ref < 0:
            return None if _fits_primitive(ref, value) else f"{path}: {_show(value)} is not a {_kind(ref)}"
        match self.graph.nodes[ref]:
            case OptNode() as node:
                return self._opt(node, value, path, depth)
            case VecNode() as node:
                return self._vec(node, value, path, depth)
            case RecordNode() as node:
                return self._record(node, value, path, depth)
            case VariantNode() as node:
                return self._variant(node, value, path, depth)
            case FuncNode():
                fits = isinstance(value, FuncRef) and isinstance(value.principal, Principal)
                return None if fits else f"{path}: {_show(value)} is not a FuncRef"
            case ServiceNode():
                fits = isinstance(value, (ServiceRef, Principal))
                return None if fits else f"{path}: {_show(value)} is not a ServiceRef"
            case FutureNode():
                return f"{path}: a type of a later Candid has no values here"

    def _opt(self, node: OptNode, value: object, path: str, depth: int) -> str | None:
        if value is None:
            return None
        if is_nullable(self.graph, node.inner):
            if not isinstance(value, Some):
                return f"{path}: {_show(value)} is not None or Some(value), which an opt of a nullable type needs"
            value = value.value
        return self.reason(node.inner, value, path, depth + 1)

    def _vec(self, node: VecNode, value: object, path: str, depth: int) -> str | None:
        if node.inner == NAT8:
            fits = isinstance(value, (bytes, bytearray, memoryview))
            return None if fits else f"{path}: {_show(value)} is not bytes"
        if node.bound is dict:
            if not isinstance(value, dict):
                return f"{path}: {_show(value)} is not a dict"
            value = list(value.items())
        if not isinstance(value, (list, tuple)):
            return f"{path}: {_show(value)} is not a list"
        found = (self.reason(node.inner, v, f"{path}[{i}]", depth + 1) for i, v in enumerate(value))
        return next((reason for reason in found if reason is not None), None)

    def _record(self, node: RecordNode, value: object, path: str, depth: int) -> str | None:
        if node.bound is not None:
            if type(value) is not node.bound:
                return f"{path}: {_show(value)} is not a {node.bound.__name__}"
            binding = binding_of(node.bound)
            inner = [getattr(value, binding.attribute(label)) for label in node.labels]
        elif node.is_tuple:
            if not isinstance(value, (tuple, list)) or len(value) != len(node.ids):
                return f"{path}: {_show(value)} is not a tuple of {len(node.ids)}"
            inner = list(value)
        else:
            if not isinstance(value, dict):
                return f"{path}: {_show(value)} is not a dict"
            reason = self._keys(node, value, path)
            if reason is not None:
                return reason
            inner = [value.get(label) for label in node.labels]
        for label, ref, field in zip(node.labels, node.refs, inner, strict=True):
            reason = self.reason(ref, field, f"{path}.{label}", depth + 1)
            if reason is not None:
                return reason
        return None

    def _keys(self, node: RecordNode, value: dict[object, object], path: str) -> str | None:
        for label, ref in zip(node.labels, node.refs, strict=True):
            if label not in value and not is_nullable(self.graph, ref):
                return f"{path}: field {label!r} is missing"
        unknown = [key for key in value if key not in node.labels]
        if unknown:
            return f"{path}: field {unknown[0]!r} is not known, fields are {', '.join(node.labels)}"
        return None

    def _variant(self, node: VariantNode, value: object, path: str, depth: int) -> str | None:
        wanted = node.bound or Variant
        if not (type(value) is wanted if node.bound else isinstance(value, Variant)):
            return f"{path}: {_show(value)} is not a {wanted.__name__}"
        assert isinstance(value, Variant)
        if value.tag not in node.labels:
            return f"{path}: case {value.tag!r} is not known, cases are {', '.join(node.labels)}"
        ref = node.refs[node.labels.index(value.tag)]
        return self.reason(ref, value.value, f"{path}.{value.tag}", depth + 1)


def _kind(ref: int) -> str:
    return PRIMITIVE_NAMES[ref]


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
