"""The process that replays blocks: `python -m cannery.node.backup.replay_process STORE BLOCKS`.

It reads blocks from a file (each behind its size in 4 bytes), runs them on the store in order, checks that
each comes out as it was, and prints a JSON line now and then, and one at the end. Verdicts are obeyed and
nothing is measured.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import IO, Final

import msgspec

from cannery.errors import CanneryError, StoreError
from cannery.node.backup.replay import BLOCK_SIZE, Replayed
from cannery.node.python_runtime import PythonPrograms
from cannery.node.store_rocksdb import RocksStore
from cannery.replica.block import decode_block, decode_config, state_hash
from cannery.replica.keys import CONFIG_KEY, HEAD_KEY
from cannery.replica.records import HEAD, HeadRecord
from cannery.replica.rounds import run_round

_SAY_EVERY_COUNT: Final = 100


def replay(store: RocksStore, blocks: Iterator[bytes]) -> Iterator[Replayed]:
    """Run blocks in order; yield how far it is now and then, and at last where it came to."""
    stored = store.get(HEAD_KEY)
    if stored is None:
        raise StoreError("the state has no head: it was not restored")
    head, count = HEAD.decode(stored), 0
    programs = PythonPrograms(_third_party(store))
    for data in blocks:
        head = _run_block(store, data, programs)
        count += 1
        if count % _SAY_EVERY_COUNT == 0:
            yield Replayed(head.number, count=count)
    store.sync()
    programs.close()
    yield Replayed(head.number, head.time_ns, head.root, state_hash(store), count)


def _run_block(store: RocksStore, data: bytes, programs: PythonPrograms) -> HeadRecord:
    outcome = run_round(store, decode_block(data), programs, None)
    if outcome.head.block_hash != sha256(data).digest():
        raise StoreError(f"block {outcome.head.number} came out with other verdicts than it had on the node")
    store.write(outcome.batch)
    return outcome.head


def _third_party(store: RocksStore) -> frozenset[str]:
    stored = store.get(CONFIG_KEY)
    return frozenset() if stored is None else frozenset(decode_config(stored).third_party_imports)


def _read_blocks(file: IO[bytes]) -> Iterator[bytes]:
    while size := file.read(BLOCK_SIZE.size):
        yield file.read(BLOCK_SIZE.unpack(size)[0])


def main() -> int:
    """Run the process; give its exit code."""
    store_path, blocks_path = Path(sys.argv[1]), Path(sys.argv[2])
    # What a canister's code prints must not get between the lines.
    lines = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    encode = msgspec.json.Encoder().encode
    last = Replayed(0)
    store = RocksStore(str(store_path))
    try:
        with open(blocks_path, "rb") as file:
            for last in replay(store, _read_blocks(file)):
                lines.write(encode(last) + b"\n")
    except CanneryError as error:
        stored = store.get(HEAD_KEY)
        block = 0 if stored is None else HEAD.decode(stored).number
        lines.write(encode(Replayed(block + 1, error=str(error))) + b"\n")
        return 1
    finally:
        store.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
