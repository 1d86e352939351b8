"""Attachments as Diode's clients write and read them: at once, or in chunks between allocate and finalize."""

from __future__ import annotations

from cannery import Context, nat, nat64, query, update
from cannery.cdk.component import Component, Uses
from cannery.cdk.content_store import ContentRefused

from . import bounds
from .diode_types import AttachmentMetadata, AttachmentMetadataResult, BytesResult, Done, OffsetResult
from .mailbox import Mailbox
from .members import Members
from .refusal import NS_PER_S
from .retention import Retention
from .roles import MEMBER


class Attachments(Component, prefix="attachments"):
    """Diode's methods about attachments. An attachment's name is the SHA-256 of its ciphertext."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)
    retention = Uses(Retention)

    @update
    def write_attachment(self, ctx: Context, identity_hash: bytes, data: bytes) -> Done:
        """Write a whole attachment; one that is there already is left as it is."""
        self.members.require(ctx, MEMBER)
        fault = _hash_fault(identity_hash)
        if fault is not None:
            return Done.err(fault)
        try:
            begun = self.mailbox.attachments.put(identity_hash, data, identity_hash)
        except ContentRefused as refused:
            return Done.err(str(refused))
        if begun.is_new:
            self.retention.arm(ctx)
        return Done.ok()

    @update
    def allocate_attachment(self, ctx: Context, identity_hash: bytes, size: nat64) -> OffsetResult:
        """Reserve room for an attachment that comes in chunks."""
        self.members.require(ctx, MEMBER)
        fault = _hash_fault(identity_hash)
        if fault is not None:
            return OffsetResult.err(fault)
        try:
            self.mailbox.attachments.begin(identity_hash, size)
        except ContentRefused as refused:
            return OffsetResult.err(str(refused))
        self.retention.arm(ctx)
        return OffsetResult.ok(0)

    @update
    def write_attachment_chunk(self, ctx: Context, identity_hash: bytes, offset: nat64, data: bytes) -> Done:
        """Write a chunk of an allocated attachment, in any order."""
        self.members.require(ctx, MEMBER)
        if len(data) > bounds.CHUNK_SIZE_BYTES_MAX:
            return Done.err(f"a chunk has at most {bounds.CHUNK_SIZE_BYTES_MAX} bytes, not {len(data)}")
        try:
            self.mailbox.attachments.write(identity_hash, offset, data)
        except ContentRefused as refused:
            return Done.err(str(refused))
        return Done.ok()

    @update
    def finalize_attachment(self, ctx: Context, identity_hash: bytes) -> Done:
        """Make a whole attachment readable; its SHA-256 must be its name."""
        self.members.require(ctx, MEMBER)
        try:
            self.mailbox.attachments.finish(identity_hash, identity_hash)
        except ContentRefused as refused:
            return Done.err(str(refused))
        return Done.ok()

    @update(oneway=True)
    def delete_attachment(self, ctx: Context, identity_hash: bytes) -> None:
        """Delete an attachment, finished or not; its bytes are free at once."""
        self.members.require(ctx, MEMBER)
        self.mailbox.attachments.remove(identity_hash)

    @query
    def get_attachment(self, ctx: Context, identity_hash: bytes) -> BytesResult:
        """Return a whole attachment."""
        self.members.require(ctx)
        content = self.mailbox.attachments.get(identity_hash)
        return self._read(identity_hash, 0, 0 if content is None else content.size)

    @query
    def read_attachment_chunk(
        self, ctx: Context, identity_hash: bytes, offset: nat64, size: nat
    ) -> BytesResult:
        """Return a part of an attachment."""
        self.members.require(ctx)
        if size > bounds.CHUNK_SIZE_BYTES_MAX:
            return BytesResult.err(f"a chunk has at most {bounds.CHUNK_SIZE_BYTES_MAX} bytes, not {size}")
        return self._read(identity_hash, offset, size)

    def _read(self, identity_hash: bytes, offset: int, size: int) -> BytesResult:
        try:
            return BytesResult.ok(self.mailbox.attachments.read(identity_hash, offset, size))
        except ContentRefused as refused:
            return BytesResult.err(str(refused))

    @query
    def get_attachment_metadata(self, ctx: Context, identity_hash: bytes) -> AttachmentMetadataResult:
        """Return what is known of an attachment, whose upload may be under way."""
        self.members.require(ctx)
        content = self.mailbox.attachments.get(identity_hash)
        if content is None:
            return AttachmentMetadataResult.err("attachment not found")
        seconds = content.created_ns // NS_PER_S
        return AttachmentMetadataResult.ok(
            AttachmentMetadata(identity_hash, seconds, content.is_finished, content.size)
        )

    @query
    def get_attachment_usage(self, ctx: Context) -> nat64:
        """Return how many bytes attachments take."""
        self.members.require(ctx)
        return self.mailbox.attachments.usage().size_bytes

    @query
    def get_attachment_max_usage(self, ctx: Context) -> nat64:
        """Return how many bytes attachments may take."""
        self.members.require(ctx)
        return self.mailbox.attachments.rule.bytes_max

    @query
    def get_attachment_count(self, ctx: Context) -> nat:
        """Return how many attachments there are."""
        self.members.require(ctx)
        return self.mailbox.attachments.usage().count


def _hash_fault(identity_hash: bytes) -> str | None:
    if len(identity_hash) == bounds.HASH_SIZE_BYTES:
        return None
    return f"identity_hash must be {bounds.HASH_SIZE_BYTES} bytes, not {len(identity_hash)}"
