"""What `read_state` may read: request statuses and canister facts, path by path.

IC interface specification, "Request: Read state". A value is the bytes that stand in the tree, None where
the path is provably absent; what the caller may not see raises `Reject` (HTTP 403). Time and everything
under /subnet are the gateway's own.
"""

from __future__ import annotations

from collections.abc import Sequence

from cannery.cdk.module_file import parse_module
from cannery.errors import DecodeError, Reject, RejectCode
from cannery.limits import INGRESS_EXPIRY_SKEW_NS, INGRESS_EXPIRY_WINDOW_NS
from cannery.ports import StoreReader
from cannery.protocol import cbor
from cannery.protocol.representation import encode_leb128
from cannery.replica import keys, records
from cannery.replica.records import CanisterRecord, RequestState, RequestStatus

_REQUEST_ID_SIZE_BYTES = 32
_STATES = {
    RequestState.PROCESSING: b"processing",
    RequestState.REPLIED: b"replied",
    RequestState.REJECTED: b"rejected",
}


def read_path(reader: StoreReader, path: Sequence[bytes], sender: bytes) -> bytes | None:
    """Read one path that ends at a leaf. Raises `Reject` where the sender may not read it."""
    if len(path) == 3 and path[0] == b"request_status":
        return _read_status(reader, path[1], path[2], sender)
    if len(path) in (3, 4) and path[0] == b"canister":
        return _read_canister(reader, path, sender)
    raise Reject(
        RejectCode.CANISTER_REJECT,
        "this path cannot be read: readable are time, subnet, request_status/ID/... and canister/ID/...",
    )


def find_request(reader: StoreReader, request_id: bytes) -> RequestStatus | None:
    """Find a call's status by its id alone: in one of the few minutes whose statuses are kept."""
    if len(request_id) != _REQUEST_ID_SIZE_BYTES:
        return None
    stored_subnet, stored_head = reader.multi_get([keys.SUBNET_KEY, keys.HEAD_KEY])
    if stored_subnet is None or stored_head is None:
        return None
    first = records.SUBNET.decode(stored_subnet).pruned_minute
    latest_ns = records.HEAD.decode(stored_head).time_ns + INGRESS_EXPIRY_WINDOW_NS + INGRESS_EXPIRY_SKEW_NS
    # A block's time may lag behind the gateways' clocks by the time that a message waited for it.
    last = keys.minute_of(latest_ns) + 2
    wanted = [keys.request_minute_start(minute) + request_id for minute in range(first, last + 1)]
    for data in reader.multi_get(wanted):
        if data is not None:
            return records.REQUEST.decode(data)
    return None


def status_leaf(status: RequestStatus, leaf: bytes) -> bytes | None:
    """Give one leaf under a request's status as it stands in the tree."""
    if leaf == b"status":
        return _STATES[status.state]
    if status.state is RequestState.REPLIED:
        return status.reply if leaf == b"reply" else None
    if status.state is not RequestState.REJECTED:
        return None
    if leaf == b"reject_code":
        return encode_leb128(status.code)
    if leaf == b"reject_message":
        return status.text.encode()
    if leaf == b"error_code" and status.error_code is not None:
        return status.error_code.encode()
    return None


def _read_status(reader: StoreReader, request_id: bytes, leaf: bytes, sender: bytes) -> bytes | None:
    status = find_request(reader, request_id)
    if status is None:
        return None
    if status.sender != sender:
        text = "the status of a request can be read by its sender alone: sign with the identity that sent it"
        raise Reject(RejectCode.CANISTER_REJECT, text)
    return status_leaf(status, leaf)


def _read_canister(reader: StoreReader, path: Sequence[bytes], sender: bytes) -> bytes | None:
    canister_id, leaf = path[1], path[2]
    data = reader.get(keys.owned(keys.CANISTERS, canister_id)) if len(canister_id) <= 29 else None
    canister = None if data is None else records.CANISTER.decode(data)
    if len(path) == 4:
        if leaf != b"metadata":
            return None
        return None if canister is None else _read_metadata(reader, canister, path[3], sender)
    if canister is None:
        return None
    if leaf == b"controllers":
        return cbor.encode(list(canister.controllers), self_describe=True)
    if leaf == b"module_hash":
        return canister.module_hash
    if leaf == b"canister_creation_timestamp":
        return encode_leb128(canister.created_ns)
    if leaf == b"last_install_timestamp" and canister.module_hash is not None:
        return encode_leb128(canister.installed_ns)
    return None


def _read_metadata(reader: StoreReader, canister: CanisterRecord, name: bytes, sender: bytes) -> bytes | None:
    if canister.module_hash is None:
        return None
    module = reader.get(keys.hashed(keys.MODULE_FILES, canister.module_hash))
    if module is None:
        return None
    try:
        found = parse_module(module).metadata(name.decode())
    except DecodeError as error:
        raise Reject(RejectCode.SYS_FATAL, f"the stored module does not parse: {error}") from error
    except UnicodeDecodeError:
        return None
    if found is None:
        return None
    value, is_public = found
    if not is_public and sender not in canister.controllers:
        text = f"the metadata '{name.decode()}' is private: the canister's controllers alone may read it"
        raise Reject(RejectCode.CANISTER_REJECT, text)
    return value
