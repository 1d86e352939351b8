"""Methods of canister classes with their codecs, made once for a process."""

from __future__ import annotations

from cannery.cdk.declare import Canister
from cannery.client.actor import MethodShape, shape_of
from cannery.testing.actor import interface_of_class

_SHAPES: dict[tuple[type[Canister], str], MethodShape] = {}


def shape(cls: type[Canister], name: str) -> MethodShape:
    """Give a method of a canister class with its codecs."""
    found = _SHAPES.get((cls, name))
    if found is None:
        for each, func in interface_of_class(cls).methods.items():
            _SHAPES[cls, each] = shape_of(each, func)
        found = _SHAPES[cls, name]
    return found
