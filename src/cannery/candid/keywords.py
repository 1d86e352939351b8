"""Words of the Candid grammar, and how a name is written beside them.

Candid specification, sections "Core Grammar" and "Names".
"""

from __future__ import annotations

import re

PRIMITIVE_WORDS = frozenset(
    [
        "nat",
        "nat8",
        "nat16",
        "nat32",
        "nat64",
        "int",
        "int8",
        "int16",
        "int32",
        "int64",
        "float32",
        "float64",
        "bool",
        "text",
        "null",
        "reserved",
        "empty",
    ]
)
KEYWORDS = PRIMITIVE_WORDS | frozenset(
    [
        "import",
        "service",
        "func",
        "type",
        "opt",
        "vec",
        "record",
        "variant",
        "blob",
        "principal",
        "oneway",
        "query",
        "composite_query",
    ]
)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", '"': '\\"', "'": "\\'", "\\": "\\\\"}


def format_text(text: str) -> str:
    """Write text in quotes."""
    return '"' + "".join(_escaped(char) for char in text) + '"'


def format_name(name: str) -> str:
    """Write the name of a field, method or type: as it is where it is an identifier, else in quotes."""
    if _IDENTIFIER.fullmatch(name) and name not in KEYWORDS:
        return name
    return format_text(name)


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"
