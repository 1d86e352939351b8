"""Candid on the command line: arguments read against an interface, results written as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cannery.candid.codec import decode_dynamic, decoder, encoder
from cannery.candid.errors import CandidError
from cannery.candid.text import format_values, parse_values
from cannery.candid.types import Func, Type
from cannery.cli.problem import Problem
from cannery.client.actor import parse_interface, type_texts

_SHOWN_CHARS_MAX = 80


@dataclass(frozen=True, slots=True)
class Arguments:
    """Arguments as values and as bytes."""

    values: tuple[object, ...]
    encoded: bytes


def read_arguments(text: str, types: Sequence[Type] | None, what: str) -> Arguments:
    """Read arguments written as `("x", 3 : nat64)`; parentheses may be left out around one value.

    Without `types` they follow from the text.
    """
    trimmed = text.strip()
    if not trimmed.startswith("("):
        trimmed = f"({trimmed})"
    try:
        found, values = parse_values(trimmed, types)
        return Arguments(tuple(values), encoder(tuple(found))(values))
    except CandidError as error:
        wanted = "" if types is None else f"; {what} takes ({', '.join(type_texts(types))})"
        raise Problem(f"the argument {_shortened(text)!r} does not fit: {error}{wanted}") from None


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS_MAX else text[:_SHOWN_CHARS_MAX] + "..."


def install_argument(did: str | None, text: str | None) -> bytes:
    """Encode the install argument of a module, against its interface where that is known."""
    types = None if did is None else parse_interface(did).init_args
    return read_arguments("()" if text is None else text, types, "the module").encoded


def decode_text(reply: bytes, func: Func | None) -> tuple[str, list[object]]:
    """Write a reply as Candid text: with the interface's types and names where there is one."""
    if func is not None:
        values = list(decoder(func.results)(reply))
        return format_values(func.results, values), values
    types, values = decode_dynamic(reply)
    return format_values(types, values), values
