"""What a backup reads: the store of a node as it is after one block, whether the node runs or not.

A running node is asked on its socket for a copy beside its store, made by hard links after a sync; it goes on
serving while the copy is read here. The store of a stopped node is read where it is, under the node's lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cannery.errors import DecodeError
from cannery.limits import BACKUP_CHECKPOINT_WAIT_S_MAX, BACKUP_CONNECT_WAIT_S_MAX
from cannery.node.backup.errors import BackupError
from cannery.node.data_dir import DataDir, DataDirError, DataLock, find_data_dir
from cannery.node.handover import (
    Checkpoint,
    Checkpointed,
    FrameSplitter,
    ToGateway,
    decode_to_gateway,
    encode_frames,
)
from cannery.node.store_rocksdb import RocksCopy
from cannery.ports import StoreReader
from cannery.replica.keys import HEAD_KEY
from cannery.replica.records import HEAD, HeadRecord

_RETRY_PAUSE_S = 0.05
_READ_SIZE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Source:
    """A state to back up: its directory, its store, and the last block in it."""

    folder: DataDir
    reader: StoreReader
    head: HeadRecord
    was_running: bool


@contextmanager
def open_source(data: Path, say: Callable[[str], None]) -> Iterator[Source]:
    """Open the state of a node's data directory; raises `CanneryError`."""
    folder = find_data_dir(data)
    with _only_backup(folder):
        _drop_checkpoint(folder)
        try:
            lock = DataLock(folder.path / "lock")
        except DataDirError:
            say("asking the node for a copy of its store")
            ask_checkpoint(folder.socket)
            try:
                with _reading(folder, folder.checkpoint, was_running=True) as source:
                    yield source
            finally:
                _drop_checkpoint(folder)
        else:
            try:
                with _reading(folder, folder.store, was_running=False) as source:
                    yield source
            finally:
                lock.release()


@contextmanager
def _reading(folder: DataDir, path: Path, *, was_running: bool) -> Iterator[Source]:
    if not path.exists():
        raise BackupError(f"{folder.path} has no store yet: start the node once, then back it up")
    reader = RocksCopy(str(path))
    try:
        stored = reader.get(HEAD_KEY)
        if stored is None:
            raise BackupError(f"the node of {folder.path} has not run a block yet: there is nothing to save")
        yield Source(folder, reader, HEAD.decode(stored), was_running)
    finally:
        reader.close()


@contextmanager
def _only_backup(folder: DataDir) -> Iterator[None]:
    """Hold the lock under which a copy of the store may be made, read and removed."""
    try:
        descriptor = os.open(folder.backup_lock, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise BackupError(f"cannot use {folder.backup_lock}: {error.strerror or error}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BackupError(
                f"another backup of {folder.path} is under way: wait until that one is done"
            ) from None
        yield
    finally:
        os.close(descriptor)


def clear_checkpoint(folder: DataDir) -> None:
    """Remove a copy that a killed backup has left, unless one is being read."""
    if folder.checkpoint.exists():
        try:
            with _only_backup(folder):
                _drop_checkpoint(folder)
        except BackupError:
            # It is in use; whoever uses it removes it.
            return


def _drop_checkpoint(folder: DataDir) -> None:
    shutil.rmtree(folder.checkpoint, ignore_errors=True)


def ask_checkpoint(path: str) -> Checkpointed:
    """Ask the subnet behind a socket for a copy of its store; raises `BackupError`."""
    connection = _connect(path)
    try:
        connection.settimeout(BACKUP_CHECKPOINT_WAIT_S_MAX)
        connection.sendall(b"".join(encode_frames([Checkpoint(1)])))
        answer = _receive(connection)
    except (OSError, DecodeError) as error:
        raise BackupError(f"the node did not make a copy of its store ({error}): try again") from error
    finally:
        connection.close()
    if answer.error is not None:
        raise BackupError(f"the node cannot make a copy of its store: {answer.error}")
    return answer


def _connect(path: str) -> socket.socket:
    """Connect, waiting for a node that is starting."""
    end_s = time.monotonic() + BACKUP_CONNECT_WAIT_S_MAX
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(path)
            return connection
        except OSError as error:
            connection.close()
            if time.monotonic() > end_s:
                raise BackupError(
                    f"the data directory is in use, and no node answers at {path} ({error.strerror}): "
                    "wait until the node is ready, or stop what holds the directory"
                ) from error
            time.sleep(_RETRY_PAUSE_S)


def _receive(connection: socket.socket) -> Checkpointed:
    splitter = FrameSplitter()
    while True:
        data = connection.recv(_READ_SIZE_BYTES)
        if not data:
            raise OSError("it ended meanwhile")
        for body in splitter.feed(data):
            messages: list[ToGateway] = decode_to_gateway(body)
            for message in messages:
                if isinstance(message, Checkpointed):
                    return message
