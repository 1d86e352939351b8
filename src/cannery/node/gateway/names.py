"""The list of canister names as the subnet's management canister gives it.

`cannery_name_list() -> (vec record { name : text; canister_id : principal }) query`, an extension of
Cannery's.
"""

from __future__ import annotations

from cannery.candid import types as ct
from cannery.candid.codec import decoder, encoder
from cannery.candid.errors import CandidError
from cannery.errors import DecodeError
from cannery.protocol.principal import Principal

NAME_LIST_METHOD = "cannery_name_list"
NAME_LIST_ARG = encoder(())(())

_decode = decoder((ct.Vec(ct.record_of({"name": ct.Text(), "canister_id": ct.PrincipalType()})),))


class NameListError(DecodeError):
    """The subnet's list of names is not what this gateway expects."""


def decode_name_list(reply: bytes) -> list[tuple[str, Principal]]:
    """Read the reply to `cannery_name_list`, in its order."""
    try:
        (entries,) = _decode(reply)
    except CandidError as error:
        raise NameListError(str(error)) from None
    names = []
    for entry in entries if isinstance(entries, list) else []:
        if (
            isinstance(entry, dict)
            and isinstance(entry["name"], str)
            and isinstance(entry["canister_id"], Principal)
        ):
            names.append((entry["name"], entry["canister_id"]))
    return names
