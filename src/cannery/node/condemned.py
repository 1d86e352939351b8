"""What is not run again for a while: identities of messages and queries that brought a subnet's process down.

The supervisor condemns what ran when it had to kill the process (`watch.RunningFile`); the next process takes
that over into this list, which stands in a file beside the store. Node-local: what a block says is its
`poisoned` field.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from cannery.limits import CONDEMNED_COUNT_MAX, CONDEMNED_NS_MAX
from cannery.node.watch import RunningFile

_VERSION: Final = b"\x01"
_decoder: Final = msgspec.msgpack.Decoder(dict[bytes, int])


class Condemned:
    """Identities that are not run again, each until a time."""

    __slots__ = ("_until",)

    def __init__(self, until: Mapping[bytes, int]) -> None:
        self._until = dict(until)

    def holds(self, identity: bytes, now_ns: int) -> bool:
        """Say whether this request brought an earlier process down, not long ago."""
        return self._until.get(identity, 0) > now_ns

    def poisoned(self, now_ns: int) -> tuple[bytes, ...]:
        """Give what a block that is cut now must reject, in order; what has lapsed is forgotten."""
        if not self._until:
            return ()
        self._until = {identity: until for identity, until in self._until.items() if until > now_ns}
        return tuple(sorted(self._until))


def take_condemned(running: RunningFile, path: Path, now_ns: int) -> dict[bytes, int]:
    """Give the identities not to be run, until when; with what the last process was condemned for, if it
    was.
    """
    found = {identity: until for identity, until in _read(path).items() if until > now_ns}
    mark = running.read()
    if mark.is_condemned:
        found[mark.identity] = now_ns + CONDEMNED_NS_MAX
        newest = sorted(found.items(), key=lambda item: item[1])[-CONDEMNED_COUNT_MAX:]
        found = dict(newest)
        _write(path, found)
    running.end()
    return found


def _read(path: Path) -> dict[bytes, int]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        return _decoder.decode(data[1:]) if data[:1] == _VERSION else {}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # The file is a precaution and not a record: a damaged one counts as none.
        return {}


def _write(path: Path, condemned: dict[bytes, int]) -> None:
    partial = path.with_name(path.name + ".new")
    with open(partial, "wb") as file:
        file.write(_VERSION + msgspec.msgpack.encode(condemned))
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
