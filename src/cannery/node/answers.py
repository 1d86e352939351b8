"""Between the subnet's values and those that are handed over: ingress, queries, answers, and the spool for
large ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cannery.errors import Reject, StoreError
from cannery.limits import INLINE_SIZE_BYTES_MAX
from cannery.node.handover import (
    Answered,
    AnswerSignature,
    IngressMessage,
    QueryDone,
    QueryMessage,
    Spooled,
    StateRead,
    Values,
)
from cannery.node.service import Subnet
from cannery.node.submitted import Denied
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.query_signature import QueryAnswer, QueryRejected, QueryReplied, sign_query_answer
from cannery.replica.block import Ingress
from cannery.replica.queries import Query
from cannery.replica.state import Answer


class ReplySpool:
    """Writes large replies into files of the spool directory, each to be deleted by whoever gets its name."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0

    def put(self, data: bytes) -> Spooled:
        self._count += 1
        path = self._folder / f"reply-{os.getpid()}-{self._count}"
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
        except OSError as error:
            raise StoreError(f"cannot spool a reply of {len(data)} bytes: {error}") from error
        return Spooled(str(path), 0, len(data))


def load_spooled(spooled: Spooled) -> bytes:
    """Read an argument from the spool. Raises `StoreError`."""
    try:
        with open(spooled.path, "rb") as file:
            file.seek(spooled.offset)
            data = file.read(spooled.size_bytes)
    except OSError as error:
        raise StoreError(f"cannot read a spooled argument: {error}") from error
    if len(data) != spooled.size_bytes:
        raise StoreError(f"a spooled argument has {len(data)} bytes instead of {spooled.size_bytes}")
    return data


def discard_spooled(spooled: Spooled | None) -> None:
    """Delete the file of a reply that nobody will read."""
    if spooled is not None:
        with suppress(OSError):
            os.unlink(spooled.path)


def ingress_of(message: IngressMessage) -> Ingress:
    """Give the block input for a handed-over message."""
    arg = message.arg if message.spooled is None else load_spooled(message.spooled)
    return Ingress(
        message.request_id, message.sender, message.canister_id, message.method, arg, message.expiry_ns
    )


def query_of(message: QueryMessage) -> Query:
    """Give the replica's query for a handed-over one."""
    arg = message.arg if message.spooled is None else load_spooled(message.spooled)
    return Query(
        canister_id=message.canister_id,
        sender=message.sender,
        method=message.method,
        arg=arg,
        request_id=message.request_id,
        asked_by=message.asked_by,
        known=message.known,
    )


def answered(answer: Answer, spool: ReplySpool | None) -> Answered:
    """Give an update's answer as it is handed over."""
    if answer.reply is None:
        return Answered(b"", answer.reject_code, answer.reject_message, answer.error_code)
    return replied(answer.reply, spool)


def replied(reply: bytes, spool: ReplySpool | None) -> Answered:
    """Give a reply as it is handed over: in a spool file if it is large and there is a spool."""
    if spool is not None and len(reply) > INLINE_SIZE_BYTES_MAX:
        return Answered(spooled=spool.put(reply))
    return Answered(reply)


def rejected(reject: Reject) -> Answered:
    """Give a reject as it is handed over."""
    return Answered(b"", int(reject.code), reject.message, reject.error_code)


def run_query(
    subnet: Subnet,
    id: int,
    message: QueryMessage,
    spool: ReplySpool | None,
    node_key: Ed25519Identity | None = None,
) -> QueryDone:
    """Run a query to its answer, or to what it wants of another subnet. With `node_key`, an answer for a
    client is signed, unless it stands in the spool.
    """
    result = subnet.query(query_of(message))
    answer = replied(result.reply, spool) if result.reject is None else rejected(result.reject)
    time_ns = subnet.time_ns
    if (
        node_key is None
        or message.asked_by is not None
        or result.wanted is not None
        or answer.spooled is not None
    ):
        return QueryDone(id, time_ns, answer, result.wanted)
    signed = sign_query_answer(node_key, query_answer_of(answer, answer.reply), message.request_id, time_ns)
    return QueryDone(id, time_ns, answer, signature=AnswerSignature(time_ns, signed.signature))


def query_answer_of(answer: Answered, reply: bytes) -> QueryAnswer:
    """Give a handed-over answer, whose reply is `reply`, as clients get it."""
    if answer.reject_code:
        return QueryRejected(answer.reject_code, answer.reject_message, answer.error_code)
    return QueryReplied(reply)


def read_values(subnet: Subnet, id: int, read: StateRead) -> Values:
    """Read state as it is handed over."""
    found = subnet.read(read.sender, read.paths)
    if isinstance(found, Denied):
        return Values(id, subnet.time_ns, (), found.text)
    return Values(id, subnet.time_ns, found)


def spool_free_bytes(folder: Path) -> Callable[[], int]:
    """Give a function that measures the free space where `folder` stands."""

    def free_bytes() -> int:
        found = os.statvfs(folder)
        return found.f_bavail * found.f_frsize

    return free_bytes
