"""Random Candid types and values of them, for the laws of this folder."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import assume
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from cannery.candid import types as ct
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.protocol.principal import Principal

PRIMITIVES: tuple[ct.Type, ...] = (
    ct.Null(),
    ct.Bool(),
    ct.Nat(),
    ct.Int(),
    ct.Nat8(),
    ct.Nat16(),
    ct.Nat32(),
    ct.Nat64(),
    ct.Int8(),
    ct.Int16(),
    ct.Int32(),
    ct.Int64(),
    ct.Float32(),
    ct.Float64(),
    ct.Text(),
    ct.Reserved(),
    ct.PrincipalType(),
)
NAMES = ("id", "name", "ok", "err", "text", "to be", "_7_", "class", "é", '"q"', "a")

names = st.sampled_from(NAMES)
principals = st.binary(max_size=29).map(Principal)
texts = st.text(st.characters(codec="utf-8"), max_size=8)


class Uninhabited(Exception):
    """The type has no value of bounded depth."""


def fields(inner: SearchStrategy[ct.Type], least: int = 0) -> SearchStrategy[tuple[ct.Field, ...]]:
    """Named and numbered fields of unlike numbers."""
    named = st.tuples(names, inner).map(lambda p: ct.Field.named(*p))
    numbered = st.tuples(st.integers(0, 4) | st.just(2**32 - 1), inner).map(
        lambda p: ct.Field(p[0], None, p[1])
    )
    return st.lists(named | numbered, min_size=least, max_size=4, unique_by=lambda f: f.id).map(tuple)


def opaque(strategy: SearchStrategy[ct.Type]) -> SearchStrategy[ct.Type]:
    """The same strategy with a short description: hypothesis writes out those of nested ones."""

    @st.composite
    def drawn(draw: DrawFn) -> ct.Type:
        return draw(strategy)

    return drawn()


def composites(inner: SearchStrategy[ct.Type]) -> SearchStrategy[ct.Type]:
    """One level of composite types."""
    inner = opaque(inner)
    functions = st.builds(
        ct.Func,
        st.lists(inner, max_size=2).map(tuple),
        st.lists(inner, max_size=2).map(tuple),
        st.sampled_from([(), ("query",), ("composite_query",)]),
    )
    methods = st.dictionaries(names, functions, max_size=2).map(lambda d: ct.Service(tuple(d.items())))
    return st.one_of(
        inner.map(ct.Opt),
        inner.map(ct.Vec),
        fields(inner).map(ct.Record),
        fields(inner, 1).map(ct.Variant),
        st.lists(inner, min_size=1, max_size=3).map(lambda ts: ct.tuple_record(*ts)),
        functions,
        methods,
    )


plain_types: SearchStrategy[ct.Type] = st.recursive(st.sampled_from(PRIMITIVES), composites, max_leaves=6)


@st.composite
def recursive_types(draw: DrawFn) -> ct.Rec:
    """Types that refer to themselves and each other by name."""
    all_names = ["A", "B", "C"][: draw(st.integers(1, 3))]
    leaves = st.sampled_from([*PRIMITIVES, *map(ct.Ref, all_names)])
    bodies = st.recursive(leaves, composites, max_leaves=5)
    composite = bodies.filter(lambda t: not isinstance(t, ct.Ref))
    return ct.Rec(draw(st.sampled_from(all_names)), ct.Env({name: draw(composite) for name in all_names}))


types = plain_types | recursive_types()


def resolve(t: ct.Type, env: ct.Env | None) -> tuple[ct.Type, ct.Env | None]:
    """Follow names."""
    while isinstance(t, (ct.Ref, ct.Rec)):
        env = t.env if isinstance(t, ct.Rec) else env
        assert env is not None
        t = env[t.name]
    return t, env


def float32s() -> SearchStrategy[float]:
    return st.floats(width=32, allow_nan=False)


PRIMITIVE_VALUES: dict[type, SearchStrategy[object]] = {
    ct.Null: st.none(),
    ct.Reserved: st.none(),
    ct.Bool: st.booleans(),
    ct.Nat: st.integers(0, 2**70) | st.integers(0, 200),
    ct.Int: st.integers(-(2**70), 2**70) | st.integers(-200, 200),
    ct.Nat8: st.integers(0, 2**8 - 1),
    ct.Nat16: st.integers(0, 2**16 - 1),
    ct.Nat32: st.integers(0, 2**32 - 1),
    ct.Nat64: st.integers(0, 2**64 - 1),
    ct.Int8: st.integers(-(2**7), 2**7 - 1),
    ct.Int16: st.integers(-(2**15), 2**15 - 1),
    ct.Int32: st.integers(-(2**31), 2**31 - 1),
    ct.Int64: st.integers(-(2**63), 2**63 - 1),
    ct.Float32: float32s(),
    ct.Float64: st.floats(allow_nan=False),
    ct.Text: texts,
    ct.PrincipalType: principals,
    ct.Func: st.builds(FuncRef, principals, texts),
    ct.Service: st.builds(ServiceRef, principals),
}


def draw_value(draw: DrawFn, t: ct.Type, env: ct.Env | None = None, fuel: int = 6) -> object:
    """Draw a value of a type in its Python form."""
    t, env = resolve(t, env)
    if type(t) in PRIMITIVE_VALUES:
        return draw(PRIMITIVE_VALUES[type(t)])
    if fuel == 0 and not isinstance(t, (ct.Opt, ct.Vec)):
        raise Uninhabited
    match t:
        case ct.Opt():
            return _draw_opt(draw, t, env, fuel)
        case ct.Vec():
            return _draw_vec(draw, t, env, fuel)
        case ct.Record():
            inner = [draw_value(draw, f.type, env, fuel - 1) for f in t.fields]
            return tuple(inner) if t.is_tuple else {f.label: v for f, v in zip(t.fields, inner, strict=True)}
        case ct.Variant():
            start = draw(st.integers(0, len(t.fields) - 1)) if t.fields else 0
            for f in (*t.fields[start:], *t.fields[:start]):
                try:
                    return Variant(f.label, draw_value(draw, f.type, env, fuel - 1))
                except Uninhabited:
                    continue
    raise Uninhabited


def _draw_opt(draw: DrawFn, t: ct.Opt, env: ct.Env | None, fuel: int) -> object:
    if fuel == 0 or draw(st.booleans()):
        return None
    try:
        value = draw_value(draw, t.inner, env, fuel - 1)
    except Uninhabited:
        return None
    return Some(value) if isinstance(resolve(t.inner, env)[0], (ct.Null, ct.Opt, ct.Reserved)) else value


def _draw_vec(draw: DrawFn, t: ct.Vec, env: ct.Env | None, fuel: int) -> object:
    if isinstance(resolve(t.inner, env)[0], ct.Nat8):
        return draw(st.binary(max_size=6))
    count = 0 if fuel == 0 else draw(st.integers(0, 3))
    try:
        return [draw_value(draw, t.inner, env, fuel - 1) for _ in range(count)]
    except Uninhabited:
        return []


@st.composite
def typed_values(draw: DrawFn, of: SearchStrategy[ct.Type] = types) -> tuple[ct.Type, object]:
    """A type and a value of it."""
    t = draw(of)
    try:
        return t, draw_value(draw, t)
    except Uninhabited:
        assume(False)
        raise


def draw_supertype(draw: DrawFn, t: ct.Type) -> ct.Type:
    """Draw a type of which a plain (not recursive) type is a subtype, without the special rules of opt."""
    choice = draw(st.integers(0, 7))
    if choice == 0:
        return ct.Reserved()
    if choice == 1 and not isinstance(t, (ct.Null, ct.Opt, ct.Reserved)):
        return ct.Opt(draw_supertype(draw, t))
    match t:
        case ct.Nat():
            return draw(st.sampled_from([ct.Nat(), ct.Int()]))
        case ct.Opt():
            return ct.Opt(draw_supertype(draw, t.inner))
        case ct.Null():
            return draw(st.sampled_from([ct.Null(), ct.Opt(ct.Text())]))
        case ct.Vec():
            return ct.Vec(draw_supertype(draw, t.inner))
        case ct.Record():
            return ct.Record(_wider_fields(draw, t, lambda inner: draw_supertype(draw, inner)))
        case ct.Variant():
            kept = {f.id: ct.Field(f.id, f.name, draw_supertype(draw, f.type)) for f in t.fields}
            more = {f.id: f for f in draw(fields(st.just(ct.Text())))}
            return ct.Variant(tuple((more | kept).values()))
        case ct.Service():
            return draw(st.sampled_from([ct.PrincipalType(), ct.Service(), t]))
        case _:
            return t


def _wider_fields(draw: DrawFn, t: ct.Record, widen: Callable[[ct.Type], ct.Type]) -> tuple[ct.Field, ...]:
    kept = [ct.Field(f.id, f.name, widen(f.type)) for f in t.fields if draw(st.booleans())]
    taken = {f.id for f in t.fields}
    more = [
        ct.Field(f.id, f.name, ct.Opt(f.type)) for f in draw(fields(st.just(ct.Text()))) if f.id not in taken
    ]
    return tuple(kept + more)
