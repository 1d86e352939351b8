"""Whether one module can follow another: interface against interface.

Candid specification, "Upgrading and Subtyping": a new service must be a subtype of the one that clients know.
Both are read out of the modules' own files. This module changes nothing.
"""

from __future__ import annotations

from cannery.candid.did import Interface, interface_subtype, parse_did
from cannery.candid.errors import CandidError
from cannery.cdk.module_file import parse_module
from cannery.limits import MODULE_DIFFERENCE_COUNT_MAX
from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.state import MessageOverlay


def interface_difference(
    reader: StoreReader | MessageOverlay, old_hash: bytes, new_hash: bytes
) -> str | None:
    """Say why the new module's interface cannot replace the old one's; None where it can."""
    try:
        lines = interface_subtype(_interface(reader, new_hash), _interface(reader, old_hash))
    except CandidError as error:
        return str(error)
    return "; ".join(lines[:MODULE_DIFFERENCE_COUNT_MAX]) if lines else None


def _interface(reader: StoreReader | MessageOverlay, module_hash: bytes) -> Interface:
    data = reader.get(keys.hashed(keys.MODULE_FILES, module_hash))
    assert data is not None, "a module's file stands beside its description"
    return parse_did(parse_module(data).did)
