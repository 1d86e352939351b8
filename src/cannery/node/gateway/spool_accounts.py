"""Who has how many bytes in the spool: what one process counts of its files, against its limits."""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from threading import Lock

from cannery.limits import GATEWAY_SPOOL_FILE_CHARGE_BYTES, GATEWAY_SPOOL_FILE_COUNT_MAX
from cannery.node.gateway.http import Refusal


@dataclass(frozen=True, slots=True)
class SpoolLimits:
    """Bounds of what one process keeps in the spool."""

    bytes_max: int
    bytes_per_address_max: int
    body_bytes_max: int
    kept_ms_max: int


@dataclass(slots=True)
class _Written:
    """What this process wrote into one file, and for whom."""

    owner: str
    size_bytes: int


class Accounts:
    """Counts the bytes of each file to its owner, and all together, against limits; from any thread.

    A file costs `GATEWAY_SPOOL_FILE_CHARGE_BYTES` on top, so that a limit on bytes is one on files too.
    """

    def __init__(self, limits: SpoolLimits) -> None:
        self._limits = limits
        self._lock = Lock()
        self._by_owner: dict[str, int] = {}
        self._files: dict[Path, _Written] = {}
        self.total = 0

    @property
    def file_count(self) -> int:
        return len(self._files)

    def add(self, path: Path, owner: str, count: int) -> None:
        """Count bytes that are to be written; raise `Refusal` (507) where there is no room for them."""
        with self._lock:
            written = self._files.get(path)
            if written is None:
                if len(self._files) >= GATEWAY_SPOOL_FILE_COUNT_MAX:
                    raise no_room("the node's spool holds too many files")
                self._take(owner, count + GATEWAY_SPOOL_FILE_CHARGE_BYTES)
                self._files[path] = _Written(owner, count + GATEWAY_SPOOL_FILE_CHARGE_BYTES)
            else:
                self._take(written.owner, count)
                written.size_bytes += count

    def forget(self, path: Path) -> None:
        """Stop counting a file that is gone."""
        with self._lock:
            self._drop(path)

    def rename(self, source: Path, target: Path) -> None:
        """Count a file under its new name; what was there under it is gone."""
        with self._lock:
            self._drop(target)
            written = self._files.pop(source, None)
            if written is not None:
                self._files[target] = written

    def paths(self) -> list[Path]:
        with self._lock:
            return list(self._files)

    def _take(self, owner: str, count: int) -> None:
        used = self._by_owner.get(owner, 0)
        if used + count > self._limits.bytes_per_address_max:
            raise no_room("your address has used its share of the node's spool")
        if self.total + count > self._limits.bytes_max:
            raise no_room("the node's spool for large bodies is full")
        self._by_owner[owner] = used + count
        self.total += count

    def _drop(self, path: Path) -> None:
        written = self._files.pop(path, None)
        if written is None:
            return
        left = self._by_owner[written.owner] - written.size_bytes
        assert left >= 0, "nobody gives back more than was taken"
        self.total -= written.size_bytes
        if left:
            self._by_owner[written.owner] = left
        else:
            del self._by_owner[written.owner]


def no_room(why: str) -> Refusal:
    return Refusal(
        HTTPStatus.INSUFFICIENT_STORAGE,
        f"{why}: wait some minutes and send it again",
        ((b"retry-after", b"120"),),
    )
