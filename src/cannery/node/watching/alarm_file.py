"""What the alarms' watcher remembers over restarts: how far each receiver has come, and the node's alarms.

One file in the data directory, one version byte and MessagePack like other records; written whole beside the
old one and renamed. Where it cannot be written (a full disk) the watcher goes on in memory: after a restart
alarms may then be told again, and none is left out.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Generic, TypeVar

import msgspec

from cannery.errors import StoreError
from cannery.replica.records import RecordDecoder, encode_record

S = TypeVar("S", bound=msgspec.Struct)
Report = Callable[[str], None]


class Position(msgspec.Struct, frozen=True, array_like=True):
    """The last alarm of a source that a receiver has: its number and time."""

    index: int
    at_ns: int


class ReceiverRecord(msgspec.Struct, array_like=True):
    """How far a receiver has come with each source, and what was counted on the way."""

    positions: dict[str, Position] = {}
    told: int = 0
    failures: int = 0
    missed: int = 0
    lag_ns: int = 0
    failing: str = ""


class NodeAlarmRecord(msgspec.Struct, frozen=True, array_like=True):
    """An alarm of the node itself."""

    index: int
    at_ns: int
    kind: str
    text: str
    is_over: bool


class AlarmsRecord(msgspec.Struct, array_like=True):
    """The whole file: receivers by name, the node's last alarms, the number of its next, kinds that are
    open.
    """

    receivers: dict[str, ReceiverRecord] = {}
    node_alarms: list[NodeAlarmRecord] = []
    next_index: int = 0
    open_kinds: list[str] = []


ALARMS: Final = RecordDecoder(AlarmsRecord, "alarms")


class StateFile(Generic[S]):
    """A small record in a file of its own."""

    def __init__(self, path: Path, decoder: RecordDecoder[S], empty: Callable[[], S]) -> None:
        self._path = path
        self._decoder = decoder
        self._empty = empty

    def read(self, report: Report) -> S:
        """Give what was saved last; an empty record where there is none.

        One that cannot be read is reported and put aside: what it held is less than what the node is for.
        """
        try:
            return self._decoder.decode(self._path.read_bytes())
        except FileNotFoundError:
            return self._empty()
        except (OSError, StoreError) as error:
            with suppress(OSError):
                os.replace(self._path, self._path.with_name(self._path.name + ".damaged"))
            report(f"{self._path} cannot be read and begins anew: {error}")
            return self._empty()

    def peek(self) -> S:
        """Give what was saved last, for somebody who only shows it; an empty record where that is nothing."""
        try:
            return self._decoder.decode(self._path.read_bytes())
        except (OSError, StoreError):
            return self._empty()

    def save(self, record: S) -> None:
        """Write the record, whole or not at all. Raises `StoreError`."""
        partial = self._path.with_name(self._path.name + ".new")
        try:
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(encode_record(record))
                file.flush()
                os.fsync(file.fileno())
            os.rename(partial, self._path)
        except OSError as error:
            with suppress(OSError):
                partial.unlink()
            raise StoreError(f"cannot write {self._path}: {error.strerror or error}") from error
