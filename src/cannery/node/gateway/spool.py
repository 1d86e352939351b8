"""The spool: large bodies and answers on disk, named by their SHA-256, with quotas and an expiry.

Backs `/cannery/body/SHA256` (docs/http.md). Several gateway processes share the directory, so what is
there is told by files alone: `SHA-ADDRESS.part` grows while a client uploads (each address has its own),
`SHA.body` is complete and checked, `*.tmp` belongs to one request. Quotas count what this process wrote.
Where room is short, what nobody waits for any more (the bodies of answered calls, answers that were sent)
goes first, the one longest unused before the others. That a body is spent stands in its mode, so that no
process takes away what another one uses.
Nothing here is needed after a restart: the node empties the directory before its gateways start.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import file_digest, sha256
from http import HTTPStatus
from pathlib import Path
from stat import S_IMODE
from threading import Lock

from cannery.limits import (
    GATEWAY_SPOOL_SPENT_KEPT_MS_MIN,
)
from cannery.node.gateway.http import FilePart, Refusal
from cannery.node.gateway.rate_limit import address_key
from cannery.node.gateway.spool_accounts import Accounts, SpoolLimits, no_room

_FULL = (errno.ENOSPC, errno.EDQUOT)
_USED_MODE = 0o600
_SPENT_MODE = 0o400
_NS_PER_MS = 1_000_000


def clear_spool(directory: Path) -> None:
    """Empty the spool, making it if need be: nothing in it outlives the node that wrote it."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in directory.iterdir():
        path.unlink(missing_ok=True)


class Spool:
    """One process's view of the spool directory."""

    def __init__(self, directory: Path, limits: SpoolLimits, now_ns: Callable[[], int]) -> None:
        self._directory = directory
        self._limits = limits
        self._now_ns = now_ns
        self._accounts = Accounts(limits)
        self._spent: OrderedDict[Path, int] = OrderedDict()
        self._spent_lock = Lock()
        self._looked_ns = 0
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def bytes_used(self) -> int:
        return self._accounts.total

    @property
    def file_count(self) -> int:
        return self._accounts.file_count

    # --- complete bodies --------------------------------------------------------------------------

    def body(self, digest: bytes) -> FilePart | None:
        """Find a complete body by its SHA-256."""
        path = self._body_path(digest)
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return None
        return FilePart(str(path), 0, size)

    def use_body(self, digest: bytes) -> FilePart | None:
        """Find a complete body and keep it for its full time from now on, until it is spent."""
        found = self.body(digest)
        if found is None:
            return None
        path = Path(found.path)
        try:
            path.chmod(_USED_MODE)
            self._touch(path)
        except FileNotFoundError:
            return None
        with self._spent_lock:
            self._spent.pop(path, None)
        return found

    def spend(self, path: Path) -> None:
        """Note that a body did its work: it is kept for a repetition only as long as there is room."""
        with suppress(FileNotFoundError):
            path.chmod(_SPENT_MODE)
        with self._spent_lock:
            self._spent[path] = self._now_ns()
            self._spent.move_to_end(path)

    def keep(self, parts: list[bytes], address: str) -> tuple[bytes, FilePart]:
        """Keep an answer for some minutes and return its SHA-256 and its file. May be called from any
        thread.
        """
        hasher = sha256()
        for part in parts:
            hasher.update(part)
        digest = hasher.digest()
        found = self.body(digest)
        if found is None:
            scratch = self.open_scratch(address)
            try:
                for part in parts:
                    scratch.write(part)
                self._rename(scratch.finish(), self._body_path(digest))
            except BaseException:
                scratch.discard()
                raise
            found = FilePart(str(self._body_path(digest)), 0, sum(len(part) for part in parts))
        self.spend(Path(found.path))
        return digest, found

    # --- uploads ----------------------------------------------------------------------------------

    def upload_offset(self, digest: bytes, address: str) -> int | None:
        """Tell how many bytes of a body are here: of the complete one, or of this address's upload; None for
        none.
        """
        complete = self.body(digest)
        if complete is not None:
            return complete.size_bytes
        try:
            return self._part_path(digest, address).stat().st_size
        except FileNotFoundError:
            return None

    def open_upload(self, digest: bytes, address: str, offset: int, total: int) -> Upload:
        """Open an address's upload at an offset, which must be its present end; raise `Refusal` (409, 413,
        507).
        """
        if total > self._limits.body_bytes_max:
            raise Refusal(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"a body may have {self._limits.body_bytes_max} bytes, not {total}",
            )
        path = self._part_path(digest, address)
        self._count(path, address, 0)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _disk_refusal(error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            present = os.fstat(descriptor).st_size
            if present != offset:
                raise Refusal(
                    HTTPStatus.CONFLICT,
                    f"{present} bytes of this body are here: go on with Upload-Offset: {present}",
                    ((b"upload-offset", b"%d" % present),),
                )
            os.lseek(descriptor, 0, os.SEEK_END)
        except BlockingIOError:
            os.close(descriptor)
            raise Refusal(
                HTTPStatus.CONFLICT,
                "this body is being uploaded by another request: ask HEAD for its offset later",
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
        return Upload(self, path, descriptor, address, digest, offset, total)

    def open_scratch(self, address: str) -> Scratch:
        """Open a new file for one request; raise `Refusal` (507)."""
        try:
            descriptor, name = tempfile.mkstemp(".tmp", "", self._directory)
        except OSError as error:
            raise _disk_refusal(error) from error
        return Scratch(self, Path(name), descriptor, address)

    # --- accounts ---------------------------------------------------------------------------------

    def append(self, path: Path, descriptor: int, data: bytes, address: str) -> None:
        """Append to a file of this spool and count it; raise `Refusal` (507) where there is no room."""
        self._count(path, address, len(data))
        view = memoryview(data)
        try:
            while view:
                view = view[os.write(descriptor, view) :]
        except OSError as error:
            raise _disk_refusal(error) from error

    def remove(self, path: Path) -> None:
        """Delete a file and give its bytes back."""
        path.unlink(missing_ok=True)
        self._accounts.forget(path)
        with self._spent_lock:
            self._spent.pop(path, None)

    def _count(self, path: Path, address: str, count: int) -> None:
        """Count bytes that are to be written, making room for them; raise `Refusal` (507)."""
        while True:
            try:
                return self._accounts.add(path, address_key(address), count)
            except Refusal:
                if not self._remove_spent():
                    raise

    def _remove_spent(self) -> bool:
        """Delete the spent body that was not used for longest; False where there is none."""
        now_ns = self._now_ns()
        latest_ns = now_ns - GATEWAY_SPOOL_SPENT_KEPT_MS_MIN * _NS_PER_MS
        while True:
            with self._spent_lock:
                path, spent_ns = next(iter(self._spent.items()), (None, 0))
            if path is None:
                if self._looked_ns > latest_ns or not self._find_spent():
                    return False
                continue
            if spent_ns > latest_ns:
                return False
            if not _is_used(path):
                self.remove(path)
                return True
            with self._spent_lock:
                self._spent.pop(path, None)

    def _find_spent(self) -> bool:
        """Take in which bodies of this process others have spent; False where there is none."""
        self._looked_ns = self._now_ns()
        found: list[tuple[int, Path]] = []
        for path in self._accounts.paths():
            with suppress(FileNotFoundError):
                status = path.stat()
                if S_IMODE(status.st_mode) == _SPENT_MODE:
                    found.append((status.st_mtime_ns, path))
        with self._spent_lock:
            self._spent.update((path, used_ns) for used_ns, path in sorted(found))
        return bool(found)

    def sweep(self) -> None:
        """Delete what was kept long enough, and stop counting what other processes deleted."""
        oldest_ns = self._now_ns() - self._limits.kept_ms_max * _NS_PER_MS
        for path in self._directory.iterdir():
            try:
                expired = path.stat().st_mtime_ns < oldest_ns
            except FileNotFoundError:
                continue
            if expired:
                self.remove(path)
        for path in self._accounts.paths():
            if not path.exists():
                self._accounts.forget(path)

    def complete_upload(self, upload: Upload) -> None:
        """Check an upload's SHA-256 and make it a body; raise `Refusal` (400). May be called from any
        thread.
        """
        with upload.path.open("rb") as file:
            digest = file_digest(file, sha256).digest()
        if digest != upload.digest:
            self.remove(upload.path)
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                f"the bytes uploaded have the SHA-256 {digest.hex()}, not the one in the path: begin at 0",
            )
        self._rename(upload.path, self._body_path(upload.digest))

    def _rename(self, source: Path, target: Path) -> None:
        os.replace(source, target)
        self._touch(target)
        self._accounts.rename(source, target)

    def _touch(self, path: Path) -> None:
        now_ns = self._now_ns()
        os.utime(path, ns=(now_ns, now_ns))

    def _body_path(self, digest: bytes) -> Path:
        return self._directory / f"{digest.hex()}.body"

    def _part_path(self, digest: bytes, address: str) -> Path:
        owner = sha256(address_key(address).encode()).hexdigest()[:16]
        return self._directory / f"{digest.hex()}-{owner}.part"


def _is_used(path: Path) -> bool:
    """Say whether a body is there and was used again since it was spent, by whichever process."""
    try:
        return S_IMODE(path.stat().st_mode) != _SPENT_MODE
    except FileNotFoundError:
        return False


class Scratch:
    """A file of one request, written from its start to its end."""

    __slots__ = ("_address", "_descriptor", "_spool", "path", "size_bytes")

    def __init__(self, spool: Spool, path: Path, descriptor: int, address: str) -> None:
        self._spool = spool
        self._descriptor = descriptor
        self._address = address
        self.path = path
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        self._spool.append(self.path, self._descriptor, data, self._address)
        self.size_bytes += len(data)

    def finish(self) -> Path:
        """Close the file and keep it."""
        self._close()
        return self.path

    def discard(self) -> None:
        """Close the file and delete it."""
        self._close()
        self._spool.remove(self.path)

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class Upload:
    """An open upload: parts are appended under a lock that no other request holds."""

    __slots__ = ("_address", "_descriptor", "_spool", "digest", "offset", "path", "total")

    def __init__(
        self, spool: Spool, path: Path, descriptor: int, address: str, digest: bytes, offset: int, total: int
    ) -> None:
        self._spool = spool
        self._descriptor = descriptor
        self._address = address
        self.path = path
        self.digest = digest
        self.offset = offset
        self.total = total

    @property
    def complete(self) -> bool:
        return self.offset == self.total

    def write(self, data: bytes) -> None:
        """Append a part; raise `Refusal` (400) past the announced total, (507) where there is no room."""
        if self.offset + len(data) > self.total:
            raise Refusal(
                HTTPStatus.BAD_REQUEST,
                f"more bytes than Upload-Length announced ({self.total}): send what is left",
            )
        self._spool.append(self.path, self._descriptor, data, self._address)
        self.offset += len(data)

    def close(self) -> None:
        os.close(self._descriptor)


def _disk_refusal(error: OSError) -> Refusal:
    if error.errno in _FULL:
        return no_room("the node's disk is full")
    return Refusal(
        HTTPStatus.INSUFFICIENT_STORAGE,
        f"the node cannot write to its spool ({error.strerror}): tell its operator",
    )
