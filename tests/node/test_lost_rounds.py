"""A store that has lost what was durable: a flipped bit in the engine's log drops the rounds behind it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cannery import Canister, Context, StableLog, nat64, update
from cannery.errors import StoreError
from cannery.node.service import Subnet
from cannery.node.store_rocksdb import RocksStore
from cannery.node.subnet_doors import Doors
from cannery.node.watch import RunningFile
from cannery.testing import Node


class Notes(Canister):
    log = StableLog(nat64)

    @update
    def add(self, ctx: Context, number: nat64) -> nat64:
        return self.log.append(number)


def test_a_node_does_not_go_on_without_rounds_that_were_durable(tmp_path: Path) -> None:
    store, copy, path = tmp_path / "store", tmp_path / "copy", str(tmp_path / "running")
    with Node(data=store) as node:
        notes = node.install(Notes)
        for number in range(20):
            notes.add(number)
        durable = node.subnet.head.number
        # As a killed process leaves it: everything in the log.
        shutil.copytree(store, copy)
        (log,) = copy.glob("*.log")
        data = bytearray(log.read_bytes())
        data[len(data) * 3 // 4] ^= 1
        log.write_bytes(data)
        doors = Doors(
            open_store=lambda: RocksStore(str(copy)),
            programs=node.subnet._doors.programs,
            clock=node.clock,
            entropy=node._entropy,
            durable_mark=RunningFile(path),
        )
        RunningFile(path).note_durable(durable)
        with pytest.raises(StoreError, match=f"ends at block .* block {durable} was durable"):
            Subnet(doors, node.subnet._config)
        # What the mark does not know of is a torn end, as a power cut leaves it.
        RunningFile(path).note_durable(0)
        subnet = Subnet(doors, node.subnet._config)
        assert 0 < subnet.head.number < durable
        assert RunningFile(path).durable_number() == subnet.head.number
        subnet.close()


def test_what_a_copy_of_the_store_has_is_durable_and_stays(tmp_path: Path) -> None:
    path = str(tmp_path / "running")
    with Node(data=tmp_path / "first") as node:
        doors = Doors(
            open_store=lambda: RocksStore(str(tmp_path / "store")),
            programs=node.subnet._doors.programs,
            clock=node.clock,
            entropy=node._entropy,
            durable_mark=RunningFile(path),
        )
        subnet = Subnet(doors, node.subnet._config)
        subnet.run_round()
        assert RunningFile(path).durable_number() == subnet.head.number == 0
        sync = subnet.begin_sync()
        assert sync is not None
        subnet.run_round()
        number = subnet.checkpoint(str(tmp_path / "copy"))
        assert number == 2
        assert RunningFile(path).durable_number() == number
        # A sync that began before covers less: the mark stays where it is.
        sync.run()
        subnet.finish_sync(sync)
        assert subnet.head.number == 1
        assert RunningFile(path).durable_number() == number
        subnet.close()
