"""The chunk store of a canister: parts of modules that were uploaded one by one.

IC interface specification, "IC method upload_chunk" and those around it. A chunk counts to its canister's
memory with its own size. Chunks are needed by clients that cut large modules up; a node takes them whole as
well.
"""

from __future__ import annotations

from hashlib import sha256

from cannery.errors import Reject, RejectCode
from cannery.limits import CHUNK_COUNT_MAX, CHUNK_SIZE_BYTES_MAX, CHUNKS_PER_MODULE_COUNT_MAX
from cannery.replica import cycles, keys
from cannery.replica.management.access import controllers_or_itself
from cannery.replica.management.methods import Method, status_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.types import CanisterIdRecord, ChunkHash, UploadChunkArgs
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show


def find_chunk(message: MessageOverlay, canister_id: bytes, chunk_hash: bytes) -> bytes:
    """Give a stored chunk; raises `Reject` where there is none with this hash."""
    chunk = message.get(keys.owned(keys.CHUNKS, canister_id, chunk_hash))
    if chunk is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Chunk {chunk_hash[:64].hex()} is not in the chunk store of {show(canister_id)}: upload it",
            "IC0505",
        )
    return chunk


def join_chunks(message: MessageOverlay, store: bytes, wanted: list[ChunkHash], module_hash: bytes) -> bytes:
    """Give the module that stored chunks make together; raises `Reject` where it is not the one named."""
    if not wanted:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Module {module_hash[:64].hex()} is not on this node, and no chunks are named: "
            "ask an operator to add it with `cannery module add`",
            "IC0505",
        )
    if len(wanted) > CHUNKS_PER_MODULE_COUNT_MAX:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"A module has at most {CHUNKS_PER_MODULE_COUNT_MAX} chunks, {len(wanted)} are named",
            "IC0504",
        )
    data = b"".join([find_chunk(message, store, chunk.hash) for chunk in wanted])
    found = sha256(data)
    if found.digest() != module_hash:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"The chunks together have the hash {found.hexdigest()}, not {module_hash[:64].hex()}: name each "
            "one once, in the order of the file",
            "IC0505",
        )
    return data


def drop_chunks(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove all chunks of a canister."""
    account = message.account(canister_id)
    if account is not None and account.chunk_bytes:
        cycles.settle_storage(message, canister_id)
        message.delete_range(*keys.owned_range(keys.CHUNKS, canister_id))
        account.chunk_bytes = 0


def _upload(change: Change, args: UploadChunkArgs) -> ChunkHash:
    canister_id, message = args.canister_id.raw, change.message
    if len(args.chunk) > CHUNK_SIZE_BYTES_MAX:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"A chunk has at most {CHUNK_SIZE_BYTES_MAX} bytes, this one has {len(args.chunk)}: cut it up",
            "IC0504",
        )
    chunk_hash = sha256(args.chunk).digest()
    key = keys.owned(keys.CHUNKS, canister_id, chunk_hash)
    if message.get(key) is None:
        if len(_hashes(change.request, canister_id)) >= CHUNK_COUNT_MAX:
            raise Reject(
                RejectCode.CANISTER_ERROR,
                f"The chunk store of {args.canister_id} has {CHUNK_COUNT_MAX} chunks already: clear it first",
                "IC0504",
            )
        cycles.settle_storage(message, canister_id)
        message.put(key, args.chunk)
        change.account(canister_id).chunk_bytes += len(args.chunk)
    return ChunkHash(chunk_hash)


def _clear(change: Change, args: CanisterIdRecord) -> None:
    drop_chunks(change.message, args.canister_id.raw)


def _list(request: Request, args: CanisterIdRecord) -> list[ChunkHash]:
    return [ChunkHash(chunk_hash) for chunk_hash in _hashes(request, args.canister_id.raw)]


def _hashes(request: Request, canister_id: bytes) -> list[bytes]:
    return [key[-32:] for key, _ in request.reader.scan(*keys.owned_range(keys.CHUNKS, canister_id))]


METHODS: tuple[Method, ...] = (
    update_method("upload_chunk", UploadChunkArgs, ChunkHash, controllers_or_itself, _upload),
    update_method("clear_chunk_store", CanisterIdRecord, None, controllers_or_itself, _clear),
    status_method(
        "stored_chunks", CanisterIdRecord, list[ChunkHash], controllers_or_itself, _list, as_query=False
    ),
)
