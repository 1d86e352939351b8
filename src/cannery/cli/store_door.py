"""What `cannery store` does: opens a node's store, reads what is to be put, writes what was found."""

from __future__ import annotations

import asyncio
import os
import secrets
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from cannery.apps.store.types import VALUE_SIZE_BYTES_MAX
from cannery.cli.output import columns, format_size, format_time
from cannery.cli.problem import Problem
from cannery.cli.session import open_session
from cannery.client.agent import AsyncAgent
from cannery.client.store import Entry, Item, Store
from cannery.protocol.identity import Identity

T = TypeVar("T")

EXIT_FAILED = 1


def with_store(
    node: str, identity: Identity, name: str, label: str, act: Callable[[Store], Awaitable[T]]
) -> T:
    """Do something with a store, as somebody."""
    with open_session(node, identity, label) as session:
        index_id = session.canister(name)

        async def run() -> T:
            root_key = session.agent.root_key()
            async with AsyncAgent(
                session.agent.url, identity, root_key=root_key, on_progress=session.line.bytes_done
            ) as agent:
                return await act(await Store.open(agent, index_id))

        return asyncio.run(run())


def read_value(text: str | None, file: Path | None) -> bytes:
    """Give the bytes that are to be put: a text, a file's, or those of standard input for '-'."""
    if (text is None) == (file is None):
        raise Problem("say what to put: a VALUE, '-' for standard input, or --file PATH")
    if file is not None:
        if file.is_file() and file.stat().st_size > VALUE_SIZE_BYTES_MAX:
            size = file.stat().st_size
            raise Problem(f"{file} has {size} bytes; a value has at most {VALUE_SIZE_BYTES_MAX}")
        return file.read_bytes()
    if text == "-":
        stream = getattr(sys.stdin, "buffer", None)
        value = sys.stdin.read().encode() if stream is None else stream.read(VALUE_SIZE_BYTES_MAX + 1)
        if len(value) > VALUE_SIZE_BYTES_MAX:
            raise Problem(f"a value has at most {VALUE_SIZE_BYTES_MAX} bytes")
        return value
    return os.fsencode(text or "")


def require_text(*texts: str) -> None:
    """Refuse keys and tags that are no text: a terminal hands over any bytes."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Problem(
                f"{os.fsencode(text)!r} is no text in UTF-8; only a value may be any bytes"
            ) from None


def note_key() -> str:
    """Give the key of a note: one that nobody else has."""
    return f"note/{secrets.token_hex(8)}"


def write_item(item: Item, out: Path | None) -> None:
    """Write a value to a file, or to standard output as it is."""
    if out is not None:
        out.write_bytes(item.value)
        return
    sys.stdout.buffer.write(item.value)
    if sys.stdout.isatty() and not item.value.endswith(b"\n"):
        sys.stdout.buffer.write(b"\n")
    sys.stdout.buffer.flush()


def entry_lines(entries: list[Entry]) -> Iterator[str]:
    """Write entries for people, a line each."""
    if not entries:
        return
    rows = [("updated", "size", "for", "tags", "key")]
    for entry in entries:
        whom = "all" if not entry.private else f"owner and {len(entry.readers)}" if entry.readers else "owner"
        tags = " ".join(entry.tags)
        rows.append((format_time(entry.updated_ns), format_size(entry.size), whom, tags, entry.key))
    yield from columns(rows)


def stats_lines(stats: dict[str, Any]) -> Iterator[str]:  # of the index's types
    """Write the store at a glance."""
    changing = ", a change is under way" if stats["is_changing"] else ""
    least = "" if all(bucket["is_reached"] for bucket in stats["buckets"]) else "at least "
    yield (
        f"{least}{stats['count']:,} entries, {format_size(stats['size_bytes'])}, "
        f"in {len(stats['buckets'])} bucket{'' if len(stats['buckets']) == 1 else 's'}; "
        f"{stats['used_slots']:,} of {stats['capacity_slots']:,} slots used; "
        f"table {stats['table_number']}{changing}"
    )
    rows = [("bucket", "entries", "size", "slots", "")]
    for bucket in stats["buckets"]:
        slots = f"{bucket['used_slots']:,} of {bucket['capacity_slots']:,}"
        reached = "" if bucket["is_reached"] else "cannot be asked now"
        rows.append(
            (
                str(bucket["canister"]),
                f"{bucket['count']:,}" if bucket["is_reached"] else "?",
                format_size(bucket["size_bytes"]),
                slots,
                reached,
            )
        )
    yield from columns(rows)
