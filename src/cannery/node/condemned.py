"""What is not run again for a while: identities of messages and queries that brought a subnet's process down.

The supervisor condemns what ran when it had to kill the process (`watch.RunningFile`); the next process takes
that over into this list, which stands in a file beside the store. Node-local: what a block says is its
`poisoned` field.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from cannery.limits import CONDEMNED_COUNT_MAX, CONDEMNED_NS_MAX
from cannery.node.watch import RunningFile

_VERSION: Final = b"\x01"
_decoder: Final = msgspec.msgpack.Decoder(dict[bytes, int])


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
    except msgspec.DecodeError:
        # The file is a precaution and not a record: a damaged one counts as none.
        return {}


def _write(path: Path, condemned: dict[bytes, int]) -> None:
    partial = path.with_name(path.name + ".new")
    with open(partial, "wb") as file:
        file.write(_VERSION + msgspec.msgpack.encode(condemned))
        file.flush()
        os.fsync(file.fileno())
    os.rename(partial, path)
