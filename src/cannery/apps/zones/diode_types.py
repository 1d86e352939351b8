"""What Diode's zone availability canister and its clients say to each other, type for type.

Times of messages, attachments and files are seconds since 1970, those of metadata nanoseconds.
"""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat, nat8, nat32, nat64, record, variant


@variant
class Done(Variant):
    """Done, or why not."""

    ok: Case[None]
    err: Case[str]


@variant
class IdResult(Variant):
    """A message's id, or why there is none."""

    ok: Case[nat32]
    err: Case[str]


@variant
class IdsResult(Variant):
    """Messages' ids, or why there are none."""

    ok: Case[list[nat32]]
    err: Case[str]


@variant
class BytesResult(Variant):
    """Bytes, or why there are none."""

    ok: Case[bytes]
    err: Case[str]


@variant
class OffsetResult(Variant):
    """Where room was allocated, or why none was."""

    ok: Case[nat64]
    err: Case[str]


@variant
class NatResult(Variant):
    """A number, or why there is none."""

    ok: Case[nat]
    err: Case[str]


@record
class Message:
    """A message with its neighbours among those of its key; 0 where there is none."""

    id: nat32
    timestamp: nat32
    key_id: bytes
    next_msg_id: nat32
    prev_msg_id: nat32
    hash: bytes
    ciphertext: bytes


@record
class AttachmentMetadata:
    """What is known of an attachment."""

    identity_hash: bytes
    timestamp: nat32
    finalized: bool
    size: nat64


@variant
class AttachmentMetadataResult(Variant):
    """An attachment's facts, or why there are none."""

    ok: Case[AttachmentMetadata]
    err: Case[str]


@record
class File:
    """A file in a directory; its content may be that of others. `offset` is 0: nothing lies at offsets."""

    id: nat
    timestamp: nat
    directory_id: bytes
    metadata_ciphertext: bytes
    content_hash: bytes
    offset: nat64
    size: nat64
    finalized: bool


@variant
class FileResult(Variant):
    """A file, or why there is none."""

    ok: Case[File]
    err: Case[str]


@record
class Directory:
    """A directory with what lies in it; the root's id is 32 zero bytes."""

    id: bytes
    metadata_ciphertext: bytes
    parent_id: bytes | None
    timestamp: nat
    child_directories: list[bytes]
    child_files: list[nat]


@record
class DataEntry:
    """A metadata entry."""

    timestamp: int
    data: bytes


@record
class DirectoryEntry:
    """When a metadata entry was set."""

    key: nat8
    timestamp: int


@record
class MetaDataInfo:
    """The keys of the metadata, and which of the 256 entries are set, a bit for each."""

    public_key: bytes | None
    vet_protected_key: bytes | None
    manifest: nat
    timestamp: int


@record
class AggregateStatusV1:
    """Everything about a zone at once."""

    version: nat
    installation_id: int
    zone_id: str
    role: nat
    cycles_balance: nat
    stable_storage_size: nat
    metadata_timestamps: list[DirectoryEntry]
    metadata_info: MetaDataInfo
    message_min_id: nat32
    message_max_id: nat32
    message_usage: nat64
    message_count: nat
    file_system_last_file_id: nat
    file_system_file_count: nat
    file_system_directory_count: nat
    file_system_max_usage: nat64
    attachment_usage: nat64
    attachment_count: nat
    attachment_max_usage: nat64


@variant
class TransferCyclesError(Variant):
    """Why a battery gives no cycles."""

    insufficient_cycles_available: Case[None]
    too_few_cycles_requested: Case[None]
    aggregate_quota_reached: Case[None]
    canister_quota_reached: Case[None]
    other: Case[str]


@variant
class TransferCyclesResult(Variant):
    """How many cycles a battery gave, or why none."""

    ok: Case[nat]
    err: Case[TransferCyclesError]


@record
class HttpHeader:
    """A header of an answer over HTTP."""

    name: str
    value: str


@record
class HttpResponse:
    """An answer over HTTP; its body is a vector of bytes."""

    status: nat
    headers: list[HttpHeader]
    body: bytes


@record
class TransformArgs:
    """What a transform function gets."""

    response: HttpResponse
    context: bytes


@record
class ZoneInit:
    """The install argument: Diode's, and the owner where it is not who installs."""

    zone_id: str
    rpc_host: str
    rpc_path: str
    cycles_requester_id: Principal
    call_token: bytes | None
    owner: Principal | None
