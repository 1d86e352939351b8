"""Replays blocks on a restored state, in a process of its own: under the hash seed that the node had.

The order of a set shows in what canister code makes of it, so the seed is part of what a block's result hangs
on; it can only be chosen when a process starts. What that process does is in `replay_process`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final

import msgspec

from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.manifest import BackupHead
from cannery.node.backup.repository import Say
from cannery.replica import keys
from cannery.replica.block import decode_block

BLOCK_SIZE: Final = Struct(">I")


@dataclass(frozen=True, slots=True)
class Target:
    """Where a replay stops: behind a block, or behind the last block of a time; what must come out there,
    where it is known.
    """

    until_block: int | None
    until_ns: int | None
    root: bytes = b""
    state_hash: bytes = b""


class Replayed(msgspec.Struct, frozen=True):
    """Where a replay came to, or why it stopped; while it runs, how far it is."""

    block: int
    time_ns: int = 0
    root: bytes = b""
    state_hash: bytes = b""
    count: int = 0
    error: str | None = None


_LINE: Final = msgspec.json.Decoder(Replayed)


def replay_blocks(
    store: Path, blocks: Iterable[tuple[bytes, bytes]], start: BackupHead, target: Target, say: Say
) -> Replayed:
    """Replay blocks on a store that is at `start`; raises `BackupError` where they give something else."""
    path = store.with_name(store.name + ".blocks")
    try:
        with open(path, "wb") as file:
            for data in _wanted(blocks, start, target):
                file.write(BLOCK_SIZE.pack(len(data)) + data)
        done = _run(store, path, start.hash_seed, say)
    except OSError as error:
        raise BackupError(f"cannot replay blocks beside {store}: {error.strerror or error}") from error
    finally:
        path.unlink(missing_ok=True)
    _compare(done, target)
    return done


def _wanted(blocks: Iterable[tuple[bytes, bytes]], start: BackupHead, target: Target) -> Iterator[bytes]:
    """Choose the blocks behind the start up to the target."""
    for key, data in blocks:
        number = keys.number_of(key)
        if number <= start.block.number:
            continue
        if target.until_block is not None and number > target.until_block:
            return
        if target.until_ns is not None and decode_block(data).time_ns > target.until_ns:
            return
        yield data


def _run(store: Path, blocks: Path, hash_seed: int, say: Say) -> Replayed:
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": paths}
    command = [sys.executable, "-m", "cannery.node.backup.replay_process", str(store), str(blocks)]
    last: Replayed | None = None
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None, "it was asked for"
        for line in process.stdout:
            last = _LINE.decode(line)
            say(f"{last.count} blocks replayed")
    if last is not None and last.error is not None:
        raise BackupError(f"block {last.block} cannot be replayed: {last.error}")
    if last is None or not last.state_hash:
        raise BackupError(f"the replay ended unexpectedly (exit code {process.returncode})")
    return last


def _compare(done: Replayed, target: Target) -> None:
    if target.until_block is not None and done.block != target.until_block:
        raise BackupError(
            f"the replay came to block {done.block}, not to {target.until_block}: blocks are missing"
        )
    for name, found, wanted in (
        ("root of the round", done.root, target.root),
        ("hash of the state", done.state_hash, target.state_hash),
    ):
        if wanted and found != wanted:
            raise BackupError(
                f"the replay to block {done.block} gives another {name} ({found.hex()[:16]}) than the node "
                f"had ({wanted.hex()[:16]}): a canister hangs on something outside of its blocks, or this "
                "version computes differently; the backups themselves are not at fault"
            )
