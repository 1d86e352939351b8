"""What a backup reads: the stores of a node as they are after one block each, whether the node runs or not.

A running node is asked on its sockets for copies beside its stores, made by hard links after a sync; it goes
on serving while the copies are read here. Subnets take nothing from each other until all have been copied, so
that the copies fit. The stores of a stopped node are read where they are, under the node's lock.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cannery.errors import DecodeError
from cannery.limits import (
    BACKUP_CHECKPOINT_WAIT_S_MAX,
    BACKUP_CONNECT_WAIT_S_MAX,
    BACKUP_CUT_TRY_COUNT_MAX,
)
from cannery.node.backup.cut import States, find_cut_fault
from cannery.node.backup.errors import BackupError
from cannery.node.data_dir import DataDir, DataDirError, DataLock, find_data_dir
from cannery.node.handover import (
    Checkpoint,
    Checkpointed,
    FrameSplitter,
    Held,
    Hold,
    ToGateway,
    decode_to_gateway,
    encode_frames,
)
from cannery.node.store_rocksdb import RocksCopy
from cannery.ports import StoreReader
from cannery.replica.keys import HEAD_KEY
from cannery.replica.records import HEAD, HeadRecord

T = TypeVar("T")

_RETRY_PAUSE_S = 0.05
_READ_SIZE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class SubnetState:
    """A subnet's state: its store, and the last block in it."""

    reader: StoreReader
    head: HeadRecord


@dataclass(frozen=True, slots=True)
class Source:
    """A node's state to back up: its directory, and the states of its subnets by number."""

    folder: DataDir
    subnets: tuple[SubnetState, ...]
    was_running: bool

    @property
    def states(self) -> States:
        """All subnets' states as one, to look canisters up."""
        return States([subnet.reader for subnet in self.subnets])


OpenState = Callable[[Path, Callable[[str], None]], AbstractContextManager[Source]]
"""What gives the state of a data directory, and hears what to tell people meanwhile."""


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
            try:
                with _copies(folder) as source:
                    yield source
            finally:
                _drop_checkpoint(folder)
        else:
            try:
                with _reading(folder, [each.store for each in _subnets(folder)], was_running=False) as source:
                    _check_cut(source)
                    yield source
            finally:
                lock.release()


@contextmanager
def _copies(folder: DataDir) -> Iterator[Source]:
    """Have all stores of a running node copied, and again where a subnet started anew meanwhile."""
    with ExitStack() as stack:
        for tries_left in reversed(range(BACKUP_CUT_TRY_COUNT_MAX)):
            ask_checkpoints([each.socket for each in _subnets(folder)])
            paths = [each.checkpoint for each in _subnets(folder)]
            source = stack.enter_context(_reading(folder, paths, was_running=True))
            try:
                _check_cut(source)
                break
            except BackupError:
                if not tries_left:
                    raise
                stack.close()
                _drop_checkpoint(folder)
        yield source


def _check_cut(source: Source) -> None:
    fault = find_cut_fault([subnet.reader for subnet in source.subnets])
    if fault is not None:
        raise BackupError(f"the stores of the subnets do not fit each other ({fault}): try again")


def _subnets(folder: DataDir) -> list[DataDir]:
    return [folder.of(number) for number in range(folder.subnet_count)]


@contextmanager
def _reading(folder: DataDir, paths: list[Path], *, was_running: bool) -> Iterator[Source]:
    with ExitStack() as stack:
        subnets = tuple(stack.enter_context(_reading_subnet(folder, path)) for path in paths)
        yield Source(folder, subnets, was_running)


@contextmanager
def _reading_subnet(folder: DataDir, path: Path) -> Iterator[SubnetState]:
    if not path.exists():
        raise BackupError(f"{path.parent} has no store yet: start the node once, then back it up")
    reader = RocksCopy(str(path))
    try:
        stored = reader.get(HEAD_KEY)
        if stored is None:
            raise BackupError(f"the node of {folder.path} has not run a block yet: there is nothing to save")
        yield SubnetState(reader, HEAD.decode(stored))
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
    for each in _subnets(folder):
        shutil.rmtree(each.checkpoint, ignore_errors=True)


def ask_checkpoints(paths: Sequence[str]) -> list[Checkpointed]:
    """Ask the subnets behind sockets for copies of their stores that fit each other; raises `BackupError`.

    Between the first copy and the last no subnet takes anything from another one; each goes on with the end
    of its connection.
    """
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(_connect(path))) for path in paths]
        try:
            if len(paths) > 1:
                for connection in connections:
                    _ask(connection, Hold(1), Held)
            answers = [_ask(connection, Checkpoint(2), Checkpointed) for connection in connections]
        except (OSError, DecodeError) as error:
            raise BackupError(f"the node did not make a copy of its store ({error}): try again") from error
    for answer in answers:
        if answer.error is not None:
            raise BackupError(f"the node cannot make a copy of its store: {answer.error}")
    return answers


def _ask(connection: socket.socket, message: Hold | Checkpoint, answer: type[T]) -> T:
    connection.settimeout(BACKUP_CHECKPOINT_WAIT_S_MAX)
    connection.sendall(b"".join(encode_frames([message])))
    return _receive(connection, answer)


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


def _receive(connection: socket.socket, wanted: type[T]) -> T:
    splitter = FrameSplitter()
    while True:
        data = connection.recv(_READ_SIZE_BYTES)
        if not data:
            raise OSError("it ended meanwhile")
        for body in splitter.feed(data):
            messages: list[ToGateway] = decode_to_gateway(body)
            for message in messages:
                if isinstance(message, wanted):
                    return message
