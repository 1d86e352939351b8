"""What a described class looks like from outside: its manifest and its interface text.

Both are functions of the description alone: the same class gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cannery.candid import types as ct
from cannery.candid.did import Interface, format_did
from cannery.candid.wire import encode_type
from cannery.cdk.describe import HOOKS, Description
from cannery.cdk.entries import MethodEntry
from cannery.cdk.forward import ANSWERER, FORWARD
from cannery.cdk.manifest import (
    CollectionManifest,
    ContinuationManifest,
    MethodKind,
    MethodManifest,
    ModuleManifest,
    TimerManifest,
    type_number,
)
from cannery.cdk.part import CollectionSpec

KIT_VERSION = "0.1.0"

_MODES = {"query": ("query",), "composite_query": ("composite_query",), "oneway": ("oneway",)}
_KINDS: dict[str, MethodKind] = {
    "query": "query",
    "composite_query": "composite_query",
    "update": "update",
    "oneway": "oneway",
}


def did_of(description: Description) -> str:
    """Write the interface text of a canister class; docstrings become comments."""
    funcs = {m.name: _func(m) for m in description.methods.values()}
    docs = {m.name: m.doc for m in description.methods.values() if m.doc}
    init = description.hooks.get("init")
    if init is None:
        return format_did(Interface.of(funcs, docs=docs))
    return format_did(Interface.of(funcs, init.args, init.arg_names, docs))


def manifest_of(description: Description, entry: str) -> ModuleManifest:
    """Make the manifest of a canister class that is found at `entry` (`module:Class`)."""
    d = description
    types = list(_types(d))
    init, post_upgrade = d.hooks.get("init"), d.hooks.get("post_upgrade")
    continuations = [ContinuationManifest(FORWARD, ANSWERER.number)]
    continuations += [
        ContinuationManifest(c.name, c.saved.number if c.saved is not None else b"")
        for c in d.continuations.values()
    ]
    timers = [
        TimerManifest(t.name, t.saved.number if t.saved is not None else b"") for t in d.timers.values()
    ]
    for handler in d.internal_continuations.values():
        continuations.append(ContinuationManifest(handler.name, _number(handler.saved)))
    for handler in d.internal_timers.values():
        timers.append(TimerManifest(handler.name, _number(handler.saved)))
    return ModuleManifest(
        kit_version=KIT_VERSION,
        entry=entry,
        methods=tuple(_method(m) for m in sorted(d.methods.values(), key=lambda m: m.name)),
        init=_numbers(init.args) if init is not None else None,
        post_upgrade=_numbers(post_upgrade.args) if post_upgrade is not None else None,
        hooks=tuple(hook for hook in HOOKS if hook in d.hooks or (hook == "inspect_message" and d.inspects)),
        collections=tuple(_collection(c) for c in d.collections),
        continuations=tuple(sorted(continuations, key=lambda c: c.name)),
        timers=tuple(sorted(timers, key=lambda t: t.name)),
        types=tuple(sorted({encode_type(t) for t in types})),
        field_names=tuple(sorted(_field_names(types))),
    )


def _func(method: MethodEntry) -> ct.Func:
    return ct.Func(method.args, method.results, _MODES.get(method.role, ()), method.arg_names)


def _number(type_: ct.Type | None) -> bytes:
    return b"" if type_ is None else type_number(type_)


def _numbers(types: Iterable[ct.Type]) -> tuple[bytes, ...]:
    return tuple(type_number(t) for t in types)


def _method(method: MethodEntry) -> MethodManifest:
    return MethodManifest(method.name, _KINDS[method.role], _numbers(method.args), _numbers(method.results))


def _collection(spec: CollectionSpec) -> CollectionManifest:
    converts_from = _numbers(c.old for c in spec.conversions)
    return CollectionManifest(
        spec.name, spec.kind, spec.key, _number(spec.value), spec.renamed_from, converts_from
    )


def _types(d: Description) -> Iterator[ct.Type]:
    yield ANSWERER.type
    for method in (*d.methods.values(), *d.hooks.values()):
        yield from method.args
        yield from method.results
    for spec in d.collections:
        if spec.value is not None:
            yield spec.value
        yield from (c.old for c in spec.conversions)
    for codec in (*(c.saved for c in d.continuations.values()), *(t.saved for t in d.timers.values())):
        if codec is not None:
            yield codec.type
    for handler in (*d.internal_continuations.values(), *d.internal_timers.values()):
        if handler.saved is not None:
            yield handler.saved


def _field_names(types: Iterable[ct.Type]) -> set[str]:
    """Collect the names of fields and cases in types."""
    names: set[str] = set()
    met: set[int] = set()
    todo = list(types)
    while todo:
        type_ = todo.pop()
        if isinstance(type_, ct.Record | ct.Variant):
            names.update(f.name for f in type_.fields if f.name is not None)
        if isinstance(type_, ct.Rec):
            if id(type_.env) not in met:
                met.add(id(type_.env))
                todo.extend(t for _, t in type_.env.definitions)
        else:
            todo.extend(ct.children(type_))
    return names
