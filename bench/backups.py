"""Backups of 10,000 small canisters: the first beside `tar` of the same data, the second after 1 % changed,
the check, the restoration, and how long a running node stands still for its copy; then of 200 large ones.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import shake_256
from pathlib import Path

from bench.report import Line
from cannery.cdk.build import build_module
from cannery.node.backup.create import Order, create_backup
from cannery.node.backup.format.time_plan import ReplayPlan
from cannery.node.backup.repository import open_repository
from cannery.node.backup.restore import restore_node
from cannery.node.backup.shelf_folder import FolderShelf
from cannery.node.backup.verify import verify_repository
from cannery.node.data_dir import open_data_dir
from cannery.node.python_runtime import SourceLoader
from cannery.node.source_files import read_source
from cannery.testing import Node

HERE = Path(__file__).parent
_MB = 1e6


@dataclass(frozen=True, slots=True)
class Filling:
    """What is saved: so many canisters, each with rows of chance."""

    canisters: int
    rows: int
    row_bytes: int

    def row(self, number: int) -> bytes:
        """Give bytes that do not compress, the same in each run."""
        return shake_256(b"%d" % number).digest(self.row_bytes)


SMALL = Filling(10_000, 1, 1_024)
LARGE = Filling(200, 10, 100_000)


def run_backups() -> Iterator[Line]:
    """Measure backups of a fleet of small canisters, and of some large ones."""
    for filling, text in ((SMALL, "10,000 canisters of 1 KB"), (LARGE, "200 canisters of 1 MB")):
        yield from _measure(filling, text)


def _measure(filling: Filling, text: str) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        data, place = folder / "data", folder / "backups"
        found, lock = open_data_dir(data)
        lock.release()
        module = _build()
        ids = _fill(found.store, module, filling)
        shelf, order = FolderShelf(place), Order(data)

        started = time.perf_counter()
        first = create_backup(shelf, order, "the bench")
        seconds = time.perf_counter() - started
        size_mb = first.head.size_bytes / _MB
        tar_mb_per_s = _tar(data, folder / "data.tar") * size_mb
        yield Line(
            "backup",
            f"first backup of {text}",
            size_mb / seconds,
            "MB/s",
            "tar of the store",
            tar_mb_per_s,
            {"seconds": seconds, "state MB": size_mb, "written MB": first.written_bytes / _MB},
        )

        pause_ms = _change(found.store, module, ids[::100], filling, folder / "copy")
        started = time.perf_counter()
        second = create_backup(shelf, order, "the bench")
        seconds = time.perf_counter() - started
        share = second.written_bytes / first.written_bytes
        assert share <= 0.03, f"the second backup wrote {share:.1%} of the first"
        yield Line(
            "backup",
            f"bytes of the second, 1 % of the {text} changed",
            second.written_bytes / _MB,
            "MB",
            "bytes of the first",
            first.written_bytes / _MB,
            {"seconds": seconds},
        )
        yield Line("backup", f"a node's pause for the copy of its store, {text}", pause_ms, "ms")
        yield from _check_and_restore(shelf, folder / "restored", size_mb, text)


def _check_and_restore(shelf: FolderShelf, target: Path, size_mb: float, text: str) -> Iterator[Line]:
    started = time.perf_counter()
    checked = verify_repository(shelf)
    seconds = time.perf_counter() - started
    assert not checked.problems, checked.problems
    yield Line("backup", f"check of all hashes, {text}", checked.stored_bytes / _MB / seconds, "MB/s stored")
    started = time.perf_counter()
    repository = open_repository(shelf)
    backups = repository.backups()
    repository.load_index(lambda _text: None)
    plan = ReplayPlan(backups[-1].head, None)
    done = restore_node(repository, backups, plan, target, lambda _text: None)
    seconds = time.perf_counter() - started
    assert done.state_hash == backups[-1].head.state_hash
    yield Line(
        "backup",
        f"restoration, state hash compared, {text}",
        size_mb / seconds,
        "MB/s",
        notes={"seconds": seconds},
    )


def _build() -> bytes:
    source = read_source(str(HERE / "canister.py"))
    loader = SourceLoader(frozenset())
    try:
        return build_module(source.files, source.entry, loader.load, frozenset()).module
    finally:
        loader.discard()


def _fill(store: Path, module: bytes, filling: Filling) -> list[object]:
    """Make the canisters."""
    ids: list[object] = []
    with Node(data=store) as node:
        for number in range(filling.canisters):
            canister = node.install(module)
            for row in range(filling.rows):
                canister.put(row, filling.row(filling.rows * number + row))
            ids.append(canister.id)
    return ids


def _change(store: Path, module: bytes, ids: list[object], filling: Filling, copy: Path) -> float:
    """Change a row of some canisters an hour later; give how long a copy of the store takes then, in ms."""
    with Node(data=store) as node:
        node.advance(seconds=3600)
        for number, canister_id in enumerate(ids):
            node.actor(node.principal(canister_id), module).put(0, filling.row(10**9 + number))
        started = time.perf_counter()
        node.subnet.checkpoint(str(copy))
        return (time.perf_counter() - started) * 1000


def _tar(data: Path, target: Path) -> float:
    """Pack the data directory with tar, synced like a backup; give runs per second."""
    started = time.perf_counter()
    subprocess.run(["tar", "-cf", str(target), str(data)], check=True, capture_output=True)
    with open(target, "rb") as file:
        os.fsync(file.fileno())
    return 1 / (time.perf_counter() - started)
