"""Blocks: what a round executes, and how its hash and its root are made.

A block is number, previous hash, time, chance, ordered inputs and verdicts (DESIGN, "The model"). Whoever
has the same state and the same block gets the same round. This module executes nothing; blocks are cut by
the shell.
"""

from __future__ import annotations

from hashlib import sha256

import msgspec

from cannery.errors import StoreError
from cannery.limits import (
    ACTIVATIONS_PER_ROUND_COUNT_MAX,
    BLOCK_WINDOW_COUNT,
    COMPOSITE_CALL_COUNT_MAX,
    COMPOSITE_CPU_NS_MAX,
    COMPOSITE_DEPTH_MAX,
    HOOK_CPU_NS_MAX,
    MESSAGE_CPU_NS_MAX,
    QUERY_CPU_NS_MAX,
    ROUND_WORK_COUNT_MAX,
)
from cannery.ports import StoreReader, WriteBatch
from cannery.replica.keys import LOCAL_SPACE
from cannery.replica.records import RECORD_VERSION

GENESIS_HASH = bytes(32)
GENESIS_ROOT = bytes(32)


class PriceSchedule(msgspec.Struct, frozen=True, array_like=True):
    """What counted work costs, in cycles; zero: nothing.

    Every activation costs `per_message`, and `per_byte` of its argument, of the values that it writes or
    scans, of its answer and of the arguments of its calls; a signed call `per_ingress` and its bytes beside.
    A call to another canister costs its sender `per_call`, and `per_call_byte` of argument and response.
    An HTTP outcall costs `per_outcall`, and bytes of the request and of the largest response it allows.
    """

    per_message: int = 0
    per_byte: int = 0
    per_key: int = 0
    per_call: int = 0
    storage_per_gib_second: int = 0
    creation: int = 0
    per_ingress: int = 0
    per_ingress_byte: int = 0
    per_call_byte: int = 0
    per_outcall: int = 0
    per_outcall_request_byte: int = 0
    per_outcall_response_byte: int = 0


class Route(msgspec.Struct, frozen=True, array_like=True):
    """Canister counters `first` to `last` live on the subnet with this number and this principal."""

    first: int
    last: int
    subnet: int
    subnet_id: bytes = b""


class ReplicaConfig(msgspec.Struct, frozen=True, array_like=True):
    """What an operator decides for a subnet; part of the replicated state, changed by a `Configure` input.

    `operators` are those of the first configuration of all; later ones come and go by calls to the management
    canister.
    """

    subnet: int = 0
    operators: tuple[bytes, ...] = ()
    routes: tuple[Route, ...] = ()
    prices: PriceSchedule = PriceSchedule()
    third_party_imports: tuple[str, ...] = ()
    message_cpu_ns_max: int = MESSAGE_CPU_NS_MAX
    hook_cpu_ns_max: int = HOOK_CPU_NS_MAX
    query_cpu_ns_max: int = QUERY_CPU_NS_MAX
    composite_cpu_ns_max: int = COMPOSITE_CPU_NS_MAX
    composite_depth_max: int = COMPOSITE_DEPTH_MAX
    composite_call_count_max: int = COMPOSITE_CALL_COUNT_MAX
    activation_count_max: int = ACTIVATIONS_PER_ROUND_COUNT_MAX
    work_count_max: int = ROUND_WORK_COUNT_MAX
    block_window_count: int = BLOCK_WINDOW_COUNT
    argument_size_bytes_max: int = 100 * 1024 * 1024
    reply_size_bytes_max: int = 100 * 1024 * 1024
    canister_quota_count: int = 1_000_000
    outcall_hosts: tuple[str, ...] = ()
    spreads: bool = False

    @property
    def subnet_id(self) -> bytes:
        """This subnet's principal; empty where no route tells it."""
        return next((route.subnet_id for route in self.routes if route.subnet == self.subnet), b"")


class Ingress(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """A call from outside whose signature and expiry have been checked."""

    request_id: bytes
    sender: bytes
    canister_id: bytes
    method: str
    arg: bytes
    expiry_ns: int


class Configure(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The operator's configuration from this block on."""

    config: ReplicaConfig


class OutcallAnswer(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """What became of an HTTP outcall, known by its canister and the number of the call in flight there.

    `reject_code` 0: a response came, with status, headers and body; else it says why there is none.
    """

    canister_id: bytes
    callback: int
    status: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    reject_code: int = 0
    reject_message: str = ""


class StreamSlice(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Messages of another subnet's stream to this one, from number `first` on: encoded `StreamEntry`s.

    `canister_count`: how many canisters that subnet had then; `next`: the number of the message that it would
    have sent next.
    """

    subnet: int
    first: int
    entries: tuple[bytes, ...]
    canister_count: int = 0
    next: int = 0


class StreamAck(msgspec.Struct, frozen=True, array_like=True, tag=5):
    """Another subnet has durably received this one's stream to it up to, and without, this number."""

    subnet: int
    received: int


class PeerLost(msgspec.Struct, frozen=True, array_like=True, tag=6):
    """Another subnet is not heard any more: what it may have said meanwhile is not known here."""

    subnet: int


BlockInput = Ingress | Configure | OutcallAnswer | StreamSlice | StreamAck | PeerLost


class Verdict(msgspec.Struct, frozen=True, array_like=True):
    """What clock or memory decided: this activation of the round, by number, was stopped."""

    ordinal: int
    text: str


class Block(msgspec.Struct, frozen=True, array_like=True):
    """One unit of order. `poisoned`: identities of messages that killed the process; they are rejected, not
    run.
    """

    number: int
    previous_hash: bytes
    time_ns: int
    seed: bytes
    inputs: tuple[BlockInput, ...] = ()
    poisoned: tuple[bytes, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


_JOINED_SIZE_BYTES_MAX = 64 * 1024
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Block)
_CONFIG_DECODER = msgspec.msgpack.Decoder(ReplicaConfig)


def encode_block(block: Block) -> bytes:
    """Encode a block for the log, the disk and its hash."""
    return RECORD_VERSION + _ENCODER.encode(block)


def decode_block(data: bytes) -> Block:
    """Decode a block; raises `StoreError`."""
    if data[:1] != RECORD_VERSION:
        raise StoreError(
            f"a block has format {data[:1].hex() or 'none'}, this version reads {RECORD_VERSION.hex()}"
        )
    try:
        return _DECODER.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"a block does not decode ({error}): restore from a checkpoint") from error


def encode_config(config: ReplicaConfig) -> bytes:
    """Encode a configuration for the state."""
    return RECORD_VERSION + _ENCODER.encode(config)


def decode_config(data: bytes) -> ReplicaConfig:
    """Decode a configuration; raises `StoreError`."""
    if data[:1] != RECORD_VERSION:
        raise StoreError("the replica's configuration was written by another version")
    try:
        return _CONFIG_DECODER.decode(memoryview(data)[1:])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StoreError(f"the replica's configuration does not decode ({error})") from error


def round_root(previous_root: bytes, block_hash: bytes, batch: WriteBatch) -> bytes:
    """Chain a round: SHA-256 of the previous root, the block's hash and the round's writes in key order."""
    digest = sha256()
    # Small parts are joined, which is faster; large ones are hashed where they are.
    parts = [previous_root, block_hash]
    for start, end in batch.deleted_ranges:
        parts.append(b"r%d:%d:" % (len(start), len(end)))
        parts += (start, end)
    puts = batch.puts
    for key in sorted(puts):
        value = puts[key]
        if value is None:
            parts.append(b"d%d:" % len(key))
            parts.append(key)
        else:
            parts.append(b"p%d:%d:" % (len(key), len(value)))
            if len(value) <= _JOINED_SIZE_BYTES_MAX:
                parts += (key, value)
            else:
                parts.append(key)
                digest.update(b"".join(parts))
                digest.update(value)
                parts.clear()
    digest.update(b"".join(parts))
    return digest.digest()


def state_hash(reader: StoreReader) -> bytes:
    """Hash the replicated spaces whole, in key order; for tests and restore drills."""
    digest = sha256()
    for key, value in reader.scan(b"", bytes((LOCAL_SPACE,))):
        digest.update(b"p%d:%d:" % (len(key), len(value)))
        digest.update(key)
        digest.update(value)
    return digest.digest()


def message_identity(
    kind: int, caller: bytes, callee: bytes, method: str, arg: bytes, module_hash: bytes = b""
) -> bytes:
    """Name an activation that is no ingress message: the same 32 bytes in every attempt by the same module.

    What ended a process once is not run again by its identity, and code that was mended is to be run.
    """
    name = method.encode()
    head = b"%d:%d:%d:%d:" % (kind, len(caller), len(callee), len(name))
    return sha256(head + caller + callee + name + sha256(arg).digest() + module_hash).digest()
