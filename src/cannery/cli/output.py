"""What commands print: data on stdout, as lines or as JSON; complaints and progress on stderr."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

PROGRESS_AFTER_S = 1.0
BAR_CHARS = 20
RENEWED_EACH_S = 0.25
COMPLAINT_CHARS_MAX = 2_000


def complain(text: str) -> None:
    """Print one error line, of bounded length, safe for a terminal; lines are joined by semicolons."""
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    line = printable("; ".join(lines).replace(":; ", ": "))
    if len(line) > COMPLAINT_CHARS_MAX:
        line = f"{line[:COMPLAINT_CHARS_MAX]}..."
    print(f"cannery: {line}", file=sys.stderr, flush=True)


def note(text: str) -> None:
    """Print one line for people beside the data."""
    print(text, file=sys.stderr, flush=True)


def emit(value: object, as_json: bool, lines: Iterable[str]) -> None:
    """Print a result: as one JSON document, or as lines for people."""
    if as_json:
        print(json.dumps(to_json(value), ensure_ascii=False))
        return
    for line in lines:
        print(printable(line))


def printable(text: str) -> str:
    """Make foreign text safe for a terminal: control characters are shown, not obeyed."""
    return "".join(char if char.isprintable() or char == "\t" else repr(char)[1:-1] for char in text)


def to_json(value: object) -> object:
    """Turn a Candid value into JSON: blobs to hex, principals to text, numbers past 2^53 to text.

    A variant becomes an object of one key; an absent option becomes null.
    """
    from dataclasses import is_dataclass

    from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
    from cannery.protocol.principal import Principal

    match value:
        case None | bool() | str():
            return value
        case int():
            return value if abs(value) <= 2**53 else str(value)
        case float():
            return value if value == value and abs(value) != float("inf") else str(value)
        case bytes():
            return value.hex()
        case Principal():
            return str(value)
        case Some():
            return [to_json(value.value)]
        case Variant():
            return {value.tag: to_json(value.value)}
        case FuncRef():
            return {"principal": str(value.principal), "method": value.method}
        case ServiceRef():
            return str(value.principal)
        case dict():
            return {str(key): to_json(item) for key, item in value.items()}
        case list() | tuple():
            return [to_json(item) for item in value]
    return to_json(record_fields(value)) if is_dataclass(value) else str(value)


def record_fields(record: object) -> dict[str, object]:
    """Give the fields of a Candid record that decodes to a class, by name."""
    from dataclasses import fields, is_dataclass

    assert is_dataclass(record)
    return {field.name: getattr(record, field.name) for field in fields(record)}


def format_time(time_ns: int) -> str:
    """Write a time as local people and programs read it: UTC, to the second."""
    return datetime.fromtimestamp(time_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def format_size(size_bytes: int) -> str:
    """Write a size for people."""
    size = float(size_bytes)
    for unit in ("B", "KB", "MB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GB"


def columns(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align rows of cells."""
    if not rows:
        return
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def bar(done: int, in_all: int) -> str:
    """Draw how much of something is done."""
    share = min(1.0, done / in_all) if in_all else 1.0
    full = int(share * BAR_CHARS)
    return f"[{'#' * full}{'.' * (BAR_CHARS - full)}] {share:4.0%}"


class Progress:
    """A line on stderr for work that takes more than a second; on a terminal it is renewed all the time."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._detail = ""
        self._begun = time.monotonic()
        self._done = threading.Event()
        self._live = sys.stderr.isatty()

    def say(self, detail: str) -> None:
        """Set what is under way."""
        self._detail = detail

    def bytes_done(self, done: int, in_all: int) -> None:
        """Set how many bytes have gone over."""
        self._detail = f"{bar(done, in_all)} {format_size(done)} of {format_size(in_all)}"

    def run(self) -> None:
        """Show the line until `stop`."""
        interval_s = PROGRESS_AFTER_S
        while not self._done.wait(interval_s):
            seconds = time.monotonic() - self._begun
            text = f"{self._label} ... {seconds:.0f} s{' - ' if self._detail else ''}{self._detail}"
            if self._live:
                print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
                interval_s = RENEWED_EACH_S
            else:
                note(text)
                interval_s = 5.0

    def hide(self) -> None:
        """Make room for a line of data; on a terminal the progress shows again within a second."""
        if self._live and time.monotonic() - self._begun > PROGRESS_AFTER_S:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the line away."""
        self._done.set()
        self.hide()


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """Show that something is under way, once it takes over a second."""
    line = Progress(label)
    thread = threading.Thread(target=line.run, daemon=True)
    thread.start()
    try:
        yield line
    finally:
        line.stop()
        thread.join()
