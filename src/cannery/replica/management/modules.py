"""The modules of the node: each stored once under the SHA-256 of its file, whatever the number of canisters
on it.

Only operators bring modules (Python canisters are trusted code); whoever controls a canister may install what
is here. Beside a module's file stand its description, the types and the first schema that it brings, and the
number of canisters that run it, so that an operator sees which are unused.
"""

from __future__ import annotations

from hashlib import sha256

from cannery.cdk.manifest import ModuleManifest
from cannery.cdk.module_file import ModuleError, parse_module
from cannery.cdk.schema import Schema, SchemaError, encode_schema, plan_schema
from cannery.errors import Reject, RejectCode
from cannery.limits import MODULE_COUNT_MAX
from cannery.ports import EntryKind
from cannery.replica import keys
from cannery.replica.management.access import anyone, check_controller, operators
from cannery.replica.management.chunks import join_chunks
from cannery.replica.management.methods import Method, query_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.types import ModuleAddChunkedArgs, ModuleInfo
from cannery.replica.records import MODULE, ModuleRecord, SchemaRecord, encode_record, schema_id
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show

_KINDS = {
    "query": EntryKind.QUERY,
    "composite_query": EntryKind.COMPOSITE_QUERY,
    "update": EntryKind.UPDATE,
    "oneway": EntryKind.UPDATE,
}


def bring_module(change: Change, data: bytes) -> tuple[bytes, ModuleRecord]:
    """Give the module with this content; a new one is stored where an operator brings it, else `Reject`."""
    module_hash = sha256(data).digest()
    known = change.message.module(module_hash)
    if known is not None:
        return module_hash, known
    if not change.message.is_operator(change.caller):
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Module {module_hash.hex()} is not on this node, and {show(change.caller)} is no operator: only "
            "operators bring modules. Ask one to add it with `cannery module add`, then install it again",
            "IC0406",
        )
    return module_hash, _store(change, module_hash, data)


def read_manifest(message: MessageOverlay, module_hash: bytes) -> ModuleManifest:
    """Read a stored module's manifest out of its file."""
    data = message.get(keys.hashed(keys.MODULE_FILES, module_hash))
    assert data is not None, "a module's file stands beside its description"
    return parse_module(data).manifest


def store_schema(message: MessageOverlay, schema: Schema) -> bytes:
    """Store a schema where it is new, and give its id."""
    encoded = encode_record(SchemaRecord(schema.slots(), encode_schema(schema)))
    number = schema_id(encoded)
    key = keys.hashed(keys.SCHEMAS, number)
    if message.get(key) is None:
        message.put(key, encoded)
    return number


def hold_module(message: MessageOverlay, module_hash: bytes) -> None:
    """Count a canister more on a module."""
    _count_uses(message, module_hash, 1)


def release_module(message: MessageOverlay, module_hash: bytes | None) -> None:
    """Count a canister less on a module."""
    if module_hash is not None:
        _count_uses(message, module_hash, -1)


def _count_uses(message: MessageOverlay, module_hash: bytes, change: int) -> None:
    key = keys.hashed(keys.MODULE_USES, module_hash)
    message.put(key, keys.u64(_uses(message.get(key)) + change))


def _uses(stored: bytes | None) -> int:
    return 0 if stored is None else int.from_bytes(stored, "big")


def take_module(message: MessageOverlay, data: bytes) -> None:
    """Store a module that another subnet of the node has sent; it was checked there."""
    module_hash = sha256(data).digest()
    if message.module(module_hash) is None:
        _put_module(message, module_hash, data)


def _store(change: Change, module_hash: bytes, data: bytes) -> ModuleRecord:
    """Store a new module, and send it to the node's other subnets."""
    message = change.message
    if sum(1 for _ in message.scan(*keys.space_range(keys.MODULE_USES))) >= MODULE_COUNT_MAX:
        raise Reject(
            RejectCode.SYS_FATAL, f"This node has {MODULE_COUNT_MAX} modules, as many as it may", "IC0102"
        )
    record = _put_module(message, module_hash, data)
    message.new_modules = [*(message.new_modules or ()), module_hash]
    return record


def _put_module(message: MessageOverlay, module_hash: bytes, data: bytes) -> ModuleRecord:
    try:
        manifest = parse_module(data).manifest
    except ModuleError as error:
        raise Reject(
            RejectCode.CANISTER_ERROR, f"This module cannot be installed: {error}", "IC0505"
        ) from None
    for number, encoded in manifest.numbered_types():
        key = keys.hashed(keys.TYPES, number)
        if message.get(key) is None:
            message.put(key, encoded)
    try:
        schema = plan_schema(None, manifest, message.type_bytes)
    except SchemaError as error:
        raise Reject(
            RejectCode.CANISTER_ERROR, f"This module cannot be installed: {error}", "IC0505"
        ) from None
    record = ModuleRecord(
        size_bytes=len(data),
        added_ns=message.state.time_ns,
        name=manifest.entry,
        kit_version=manifest.kit_version,
        methods={m.name: int(_KINDS[m.kind]) for m in manifest.methods},
        hooks=tuple(manifest.hooks),
        continuations=tuple(c.name for c in manifest.continuations),
        timers=tuple(t.name for t in manifest.timers),
        schema_id=store_schema(message, schema),
    )
    message.put(keys.hashed(keys.MODULE_FILES, module_hash), data)
    message.put(keys.hashed(keys.MODULES, module_hash), encode_record(record))
    message.put(keys.hashed(keys.MODULE_USES, module_hash), keys.u64(0))
    message.program(module_hash)
    return record


# --- methods -------------------------------------------------------------------------------------------


def _add(change: Change, data: bytes) -> bytes:
    module_hash, _ = bring_module(change, data)
    return module_hash


def _may_add_chunked(request: Request, args: ModuleAddChunkedArgs) -> None:
    """Let in operators who control the store, or are it."""
    operators(request, args)
    if request.caller != args.store_canister.raw:
        check_controller(request, args.store_canister.raw)


def _add_chunked(change: Change, args: ModuleAddChunkedArgs) -> bytes:
    if change.message.module(args.module_hash) is None:
        store, wanted = args.store_canister.raw, args.chunk_hashes_list
        bring_module(change, join_chunks(change.message, store, wanted, args.module_hash))
    return args.module_hash


def _list(request: Request, _args: None) -> list[ModuleInfo]:
    uses = dict(request.reader.scan(*keys.space_range(keys.MODULE_USES)))
    found: list[ModuleInfo] = []
    for key, data in request.reader.scan(*keys.space_range(keys.MODULES)):
        record = MODULE.decode(data)
        canisters = _uses(uses.get(keys.hashed(keys.MODULE_USES, key[1:])))
        found.append(
            ModuleInfo(
                key[1:], record.size_bytes, record.added_ns, record.name, record.kit_version, canisters
            )
        )
    return found


METHODS: tuple[Method, ...] = (
    update_method("cannery_module_add", bytes, bytes, operators, _add),
    update_method("cannery_module_add_chunked", ModuleAddChunkedArgs, bytes, _may_add_chunked, _add_chunked),
    query_method("cannery_module_list", None, list[ModuleInfo], anyone, _list),
)
