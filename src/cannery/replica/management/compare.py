"""Whether one module can follow another: interface against interface, stable state against stable state.

Candid specification, "Upgrading and Subtyping": a new service must be a subtype of the one that clients know.
State is compared as an upgrade plans it, from the collections that the older module begins with. All of it is
read out of the modules' own files. What is in flight in a canister is looked at by its upgrade alone.
"""

from __future__ import annotations

from cannery.candid.did import Interface, interface_subtype, parse_did
from cannery.candid.errors import CandidError
from cannery.candid.python import field, record
from cannery.cdk.manifest import ModuleManifest
from cannery.cdk.module_file import ModuleFile, parse_module
from cannery.cdk.schema import Schema, SchemaError, TypeBytes, plan_schema
from cannery.errors import Reject, RejectCode
from cannery.limits import MODULE_DIFFERENCE_COUNT_MAX, UPGRADE_WORK_COUNT
from cannery.ports import StoreReader
from cannery.replica import keys
from cannery.replica.management.access import canisters_or_operators
from cannery.replica.management.methods import Method, status_method
from cannery.replica.management.request import Request
from cannery.replica.state import MessageOverlay


@record
class ModuleCompareArgs:
    """Two modules of the node: the one that is there, and the one that may follow it."""

    from_module: bytes = field(name="from")
    to_module: bytes = field(name="to")


@record
class ModuleDifferences:
    """What keeps a module from following another, and from being followed by it; null: nothing."""

    interface: str | None
    state: str | None
    back_interface: str | None
    back_state: str | None


def interface_difference(
    reader: StoreReader | MessageOverlay, old_hash: bytes, new_hash: bytes
) -> str | None:
    """Say why the new module's interface cannot replace the old one's; None where it can."""
    return _interface_difference(_file(reader, old_hash), _file(reader, new_hash))


def _interface_difference(old: ModuleFile, new: ModuleFile) -> str | None:
    try:
        lines = interface_subtype(_interface(new), _interface(old))
    except CandidError as error:
        return str(error)
    return "; ".join(lines[:MODULE_DIFFERENCE_COUNT_MAX]) if lines else None


def _interface(module: ModuleFile) -> Interface:
    return parse_did(module.did)


def _file(reader: StoreReader | MessageOverlay, module_hash: bytes) -> ModuleFile:
    data = reader.get(keys.hashed(keys.MODULE_FILES, module_hash))
    assert data is not None, "a module's file stands beside its description"
    return parse_module(data)


def _planned(
    old: Schema | None, manifest: ModuleManifest, type_bytes: TypeBytes, field_names: tuple[str, ...]
) -> tuple[Schema | None, str | None]:
    """Plan a module's collections on a state: the new state, or why it does not fit."""
    try:
        return plan_schema(old, manifest, type_bytes, field_names), None
    except SchemaError as error:
        return None, str(error)


# --- the method ----------------------------------------------------------------------------------------


def _compare(request: Request, args: ModuleCompareArgs) -> ModuleDifferences:
    for module_hash in (args.from_module, args.to_module):
        if request.state.module(module_hash) is None:
            raise Reject(
                RejectCode.CANISTER_ERROR,
                f"Module {module_hash[:64].hex()} is not on this node: an operator adds it: "
                "`cannery module add`",
                "IC0537",
            )
    if isinstance(request.state, MessageOverlay):
        request.state.state.events.work += UPGRADE_WORK_COUNT
    old, new = _file(request.reader, args.from_module), _file(request.reader, args.to_module)
    names = (*old.manifest.field_names, *new.manifest.field_names)

    def type_bytes(number: bytes) -> bytes | None:
        return request.reader.get(keys.hashed(keys.TYPES, number))

    start, fault = _planned(None, old.manifest, type_bytes, names)
    state = back_state = fault
    if start is not None:
        following, state = _planned(start, new.manifest, type_bytes, names)
        if following is None:
            following, _ = _planned(None, new.manifest, type_bytes, names)
        _, back_state = _planned(following, old.manifest, type_bytes, names)
    return ModuleDifferences(
        _interface_difference(old, new), state, _interface_difference(new, old), back_state
    )


METHODS: tuple[Method, ...] = (
    status_method(
        "cannery_module_compare", ModuleCompareArgs, ModuleDifferences, canisters_or_operators, _compare
    ),
)
