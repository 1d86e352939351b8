"""Calls with types that this code knows beforehand: Python hints in, instances of their classes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar, cast

from cannery.candid.codec import decoder, encoder
from cannery.candid.errors import CandidError
from cannery.candid.python import type_of
from cannery.client.agent import Agent
from cannery.client.errors import Unverified
from cannery.protocol.principal import Principal

T = TypeVar("T")
# A hint such as `nat64 | None` is no class: nothing narrower than Any names them all.
Hint = Any


class TypedCanister:
    """One canister, whose methods are called with hints for arguments and result."""

    def __init__(self, agent: Agent, canister_id: Principal) -> None:
        self._agent = agent
        self._canister_id = canister_id

    def call(
        self,
        method: str,
        result: type[T],
        args: Sequence[object] = (),
        hints: Sequence[Hint] | None = None,
        effective: Principal | None = None,
    ) -> T:
        """Call an update that has one result; hints follow from the arguments where they are unambiguous."""
        reply = self._agent.call(self._canister_id, method, _encode(args, hints), effective=effective)
        return _decode(reply, result)

    def call_for_effect(
        self,
        method: str,
        args: Sequence[object] = (),
        hints: Sequence[Hint] | None = None,
        effective: Principal | None = None,
    ) -> None:
        """Call an update that has no result."""
        self._agent.call(self._canister_id, method, _encode(args, hints), effective=effective)

    def query(
        self,
        method: str,
        result: type[T],
        args: Sequence[object] = (),
        hints: Sequence[Hint] | None = None,
        effective: Principal | None = None,
    ) -> T:
        """Ask a query that has one result."""
        reply = self._agent.query(self._canister_id, method, _encode(args, hints), effective=effective)
        return _decode(reply, result)

    def query_option(
        self, method: str, result: type[T], args: Sequence[object] = (), hints: Sequence[Hint] | None = None
    ) -> T | None:
        """Ask a query whose one result is an option."""
        reply = self._agent.query(self._canister_id, method, _encode(args, hints))
        return _decode(reply, cast(type[T | None], result | None))


def _encode(args: Sequence[object], hints: Sequence[Hint] | None) -> bytes:
    chosen = [type(arg) for arg in args] if hints is None else hints
    return encoder(tuple(type_of(hint) for hint in chosen))(args)


def _decode(reply: bytes, result: type[T]) -> T:
    try:
        values = decoder((type_of(result),))(reply)
    except CandidError as error:
        raise Unverified(f"the reply is not of the type expected here: {error}") from None
    # The decoder of a hint makes instances of that hint.
    return cast(T, values[0])
