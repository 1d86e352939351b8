"""What a method of the management canister is: a name, Candid types, who may call it, and how it runs.

The modules beside this one declare their methods with `update_method`, `query_method` and `status_method`;
`dispatch` gathers them. Codecs are compiled once, here, from the hints of `types`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from cannery.candid import codec
from cannery.candid.python import type_of
from cannery.candid.types import Type
from cannery.errors import DecodeError, Reject, RejectCode
from cannery.replica.management.request import Change, Request

A = TypeVar("A")
R = TypeVar("R")

Rule = Callable[[Request, A], None]


@dataclass(frozen=True, slots=True)
class Method:
    """A method. `from_users`: callable over HTTP; `update` or `query` is None where it cannot be called so.

    `check` raises `Reject` where the caller may not; `update` and `query` give the result's value.
    """

    name: str
    args: tuple[Type, ...]
    results: tuple[Type, ...]
    check: Callable[[Request, object], None]
    update: Callable[[Change, object], object] | None
    query: Callable[[Request, object], object] | None
    from_users: bool
    _decode: Callable[[bytes], tuple[object, ...]]
    _encode: Callable[[Sequence[object]], bytes]

    def decode(self, arg: bytes) -> object:
        """Decode the argument (None for a method without one); raises `Reject`."""
        try:
            values = self._decode(arg)
        except DecodeError as error:
            raise Reject(
                RejectCode.CANISTER_ERROR, f"The argument of {self.name} does not decode: {error}", "IC0408"
            ) from None
        return values[0] if values else None

    def encode(self, result: object) -> bytes:
        """Encode what the method gave (None for a method without a result)."""
        return self._encode((result,) if self.results else ())


def update_method(
    name: str,
    args: object,
    results: object,
    may: Rule[A],
    run: Callable[[Change, A], object],
    *,
    from_users: bool = True,
) -> Method:
    """Declare a method that changes the state. `args` and `results` are hints; None: none."""
    return _build(name, args, results, may, _update(run), None, from_users)


def query_method(
    name: str, args: object, results: object, may: Rule[A], run: Callable[[Request, A], object]
) -> Method:
    """Declare a method that only queries can call."""
    return _build(name, args, results, may, None, _query(run), True)


def status_method(
    name: str,
    args: object,
    results: object,
    may: Rule[A],
    run: Callable[[Request, A], object],
    *,
    from_users: bool = True,
    as_query: bool = True,
) -> Method:
    """Declare a method that only reads, and that updates may call too, or alone."""

    def update(change: Change, args: A) -> object:
        return run(change.request, args)

    return _build(name, args, results, may, _update(update), _query(run) if as_query else None, from_users)


def _update(run: Callable[[Change, A], object]) -> Callable[[Change, object], object]:
    # The value comes from the decoder of the hint that A stands for.
    return lambda change, args: run(change, cast(A, args))


def _query(run: Callable[[Request, A], object]) -> Callable[[Request, object], object]:
    # As above.
    return lambda request, args: run(request, cast(A, args))


def _build(
    name: str,
    args: object,
    results: object,
    may: Rule[A],
    update: Callable[[Change, object], object] | None,
    query: Callable[[Request, object], object] | None,
    from_users: bool,
) -> Method:
    arg_types = () if args is None else (type_of(args),)
    result_types = () if results is None else (type_of(results),)
    return Method(
        name=name,
        args=arg_types,
        results=result_types,
        check=lambda request, value: may(request, cast(A, value)),  # as above
        update=update,
        query=query,
        from_users=from_users,
        _decode=codec.decoder(arg_types),
        _encode=codec.encoder(result_types),
    )
