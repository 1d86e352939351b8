"""Which effective canister id a call of the management canister goes with, over HTTP.

IC interface specification, "Effective canister id". Gateways ask this before they pass a call on: it looks at
the argument's `canister_id` alone and knows nothing of state or rights.
"""

from __future__ import annotations

from collections.abc import Callable

from cannery.candid import codec
from cannery.candid.python import record, type_of
from cannery.errors import DecodeError, Reject, RejectCode
from cannery.protocol.principal import Principal
from cannery.replica.management.absent import ABSENT
from cannery.replica.management.dispatch import METHODS

management_query_methods: frozenset[str] = frozenset(m.name for m in METHODS.values() if m.query is not None)
"""Methods that queries can call."""

management_update_methods: frozenset[str] = frozenset(
    m.name for m in METHODS.values() if m.update is not None and m.from_users
)
"""Methods that signed updates can call."""

subnet_call_methods: frozenset[str] = frozenset(
    {"create_canister", "provisional_create_canister_with_cycles", "cannery_create_installed"}
)
"""Updates that may go to a subnet instead of a canister (`/api/v4/subnet/.../call`)."""

subnet_query_methods: frozenset[str] = frozenset({"list_canisters"})
"""Queries that may go to a subnet instead of a canister (`/api/v3/subnet/.../query`)."""


@record
class _Target:
    canister_id: Principal


@record
class _ChunkedTarget:
    target_canister: Principal


_ANY = subnet_call_methods | subnet_query_methods | {name for name in METHODS if name.startswith("cannery_")}


def effective_canister_id(method: str, arg: bytes) -> bytes | None:
    """Give the effective canister id that a call must have; None where any will do.

    Raises `Reject` where the argument names no canister. Methods that are absent or unknown go with any id:
    their reject says what they are.
    """
    if method in _ANY or method in ABSENT or method not in METHODS:
        return None
    try:
        if method == "install_chunked_code":
            return _decode_chunked(arg)
        return _decode_target(arg)
    except DecodeError as error:
        field = "target_canister" if method == "install_chunked_code" else "canister_id"
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"The argument of {method} names no canister in {field}: {error}",
            "IC0408",
        ) from None


def _target_decoder(hint: type, field: str) -> Callable[[bytes], bytes]:
    decode = codec.decoder((type_of(hint),))

    def read(arg: bytes) -> bytes:
        found = getattr(decode(arg)[0], field)
        assert isinstance(found, Principal), "the hint of this field is Principal"
        return found.raw

    return read


_decode_target = _target_decoder(_Target, "canister_id")
_decode_chunked = _target_decoder(_ChunkedTarget, "target_canister")
