"""What a subnet tells others in its streams, beside the messages of canisters, and what it knows of them.

A module goes to a subnet ahead of the first call there that needs it, once. The list of operators is the
first subnet's word. Taking notices in is `peers`' part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Final

import msgspec
from msgspec.structs import replace

from cannery.candid import codec
from cannery.candid.python import record, type_of
from cannery.errors import DecodeError
from cannery.replica import keys, records
from cannery.replica.places import CREATIONS
from cannery.replica.records import CallMessage, Notice, NoticeKind, PeerRecord, StreamEntry
from cannery.replica.state import MessageOverlay, RoundState

_NOBODY: Final = b""


@record
class _WithHash:
    module_hash: bytes


@record
class _WithChunkedHash:
    wasm_module_hash: bytes


@record
class _WithModule:
    wasm_module: bytes


_NEEDED: Final[Mapping[str, tuple[Callable[[bytes], tuple[object, ...]], str]]] = {
    "cannery_create_installed": (codec.decoder((type_of(_WithHash),)), "module_hash"),
    "cannery_upgrade_many": (codec.decoder((type_of(_WithHash),)), "module_hash"),
    "cannery_replace": (codec.decoder((type_of(_WithHash),)), "module_hash"),
    "install_chunked_code": (codec.decoder((type_of(_WithChunkedHash),)), "wasm_module_hash"),
    "install_code": (codec.decoder((type_of(_WithModule),)), "wasm_module"),
}


def append(state: RoundState, subnet: int, entry: StreamEntry) -> None:
    """Put a message behind all others into the stream to another subnet."""
    head, data = state.stream_head(subnet), records.encode_record(entry)
    state.layer.put(keys.stream_key(subnet, head.next), data)
    state.put_stream_head(subnet, replace(head, next=head.next + 1, size_bytes=head.size_bytes + len(data)))


def tell(state: RoundState, subnet: int, kind: NoticeKind, data: bytes) -> None:
    """Tell a subnet something."""
    append(state, subnet, StreamEntry(_NOBODY, _NOBODY, Notice(kind, data)))


def other_subnets(state: RoundState) -> list[int]:
    """List the subnets of this node but this one."""
    config = state.view.config
    return [route.subnet for route in config.routes if route.subnet != config.subnet]


# --- modules -----------------------------------------------------------------------------------------------


def send_needed_module(state: RoundState, subnet: int, call: CallMessage) -> None:
    """Send the module ahead that a call of another subnet's management canister needs."""
    needed = _NEEDED.get(call.method)
    if needed is None:
        return
    decode, field = needed
    try:
        value = getattr(decode(call.arg)[0], field)
    except DecodeError:
        return
    send_module(state, subnet, sha256(value).digest() if field == "wasm_module" else value)


def send_module(state: RoundState, subnet: int, module_hash: bytes) -> None:
    """Send a module to a subnet that this one has not sent it to, if it is here."""
    mark = keys.sent_module_key(subnet, module_hash)
    data = state.layer.get(keys.hashed(keys.MODULE_FILES, module_hash))
    if data is not None and state.layer.get(mark) is None:
        state.layer.put(mark, b"")
        tell(state, subnet, NoticeKind.MODULE, data)


# --- operators ---------------------------------------------------------------------------------------------


def tell_operators(state: RoundState, subnets: list[int]) -> None:
    """Tell subnets who the node's operators are."""
    found = [key[1:] for key, _ in state.layer.scan(*keys.space_range(keys.OPERATORS))]
    for subnet in subnets:
        tell(state, subnet, NoticeKind.OPERATORS, msgspec.msgpack.encode(found))


# --- how full others are -----------------------------------------------------------------------------------


def find_peer(state: RoundState, subnet: int) -> PeerRecord:
    """Give what is known of another subnet."""
    data = state.layer.get(keys.peer_key(subnet))
    return PeerRecord() if data is None else records.PEER.decode(data)


def note_creation(state: RoundState, subnet: int, call: CallMessage) -> None:
    """Count a creation that is sent to another subnet, so that the next one finds it fuller."""
    if call.method in CREATIONS:
        peer = find_peer(state, subnet)
        state.layer.put(
            keys.peer_key(subnet), records.encode_record(replace(peer, creations=peer.creations + 1))
        )


def least_filled(state: RoundState) -> int:
    """Give the subnet with the fewest canisters, as far as this one knows."""
    config = state.view.config
    found = [(state.subnet.canister_count, 0, config.subnet)]
    for subnet in other_subnets(state):
        peer = find_peer(state, subnet)
        found.append((peer.canister_count + peer.creations, 1, subnet))
    return min(found)[2]


def bring_operators(message: MessageOverlay, data: bytes) -> None:
    """Take the list of operators that the first subnet has told."""
    wanted = set(msgspec.msgpack.decode(data, type=list[bytes]))
    present = {key[1:] for key, _ in message.scan(*keys.space_range(keys.OPERATORS))}
    for raw in sorted(present - wanted):
        message.put_trust(keys.hashed(keys.OPERATORS, raw), None)
    for raw in sorted(wanted - present):
        message.put_trust(keys.hashed(keys.OPERATORS, raw), b"")
