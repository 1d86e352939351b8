"""The process of a subnet: `python -m cannery.node.subnet_process --data DIR --subnet K`. The supervisor
starts it.

It opens the store, serves the gateways on the socket and runs until it is told to stop. A bug ends it; the
supervisor starts it again.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

import uvloop
from msgspec.structs import replace

from cannery.errors import CanneryError
from cannery.limits import SUBNET_FILE_COUNT
from cannery.node.answers import ReplySpool, spool_free_bytes
from cannery.node.condemned import take_condemned
from cannery.node.config import NodeConfig, load_config
from cannery.node.data_dir import DataDir, NodeKeys, delegation_of, load_keys
from cannery.node.outcall_fetch import Fetcher
from cannery.node.process_life import (
    allow_open_files,
    calm_collector,
    end_on_bugs,
    end_with_parent,
    limit_memory,
    say_ready,
    stop_event,
)
from cannery.node.python_runtime import PythonPrograms
from cannery.node.service import Subnet
from cannery.node.store_rocksdb import RocksStore
from cannery.node.stream_client import StreamClient
from cannery.node.subnet_doors import Doors
from cannery.node.subnet_server import SubnetServer
from cannery.node.system_doors import SystemClock, SystemEntropy, data_certifier
from cannery.node.vitals import machine_meter
from cannery.node.watch import CpuWatch, RunningFile

_SWITCH_INTERVAL_S: Final = 0.0005


def open_subnet(config: NodeConfig, keys: NodeKeys, number: int = 0) -> Subnet:
    """Open a subnet of a data directory in this process, with all its real doors."""
    folder = DataDir(config.data, number)
    clock = SystemClock()
    running = RunningFile(str(folder.running))
    condemned = take_condemned(running, folder.condemned, clock.now_ns())
    watch = CpuWatch(running)
    delegation = delegation_of(keys, number, clock.now_ns())
    doors = Doors(
        open_store=lambda: RocksStore(str(folder.store)),
        programs=PythonPrograms(config.third_party, watch=watch, condemned=condemned),
        clock=clock,
        entropy=SystemEntropy(),
        watch=watch,
        certify=data_certifier(keys.subnets[number], clock, delegation),
        free_bytes=spool_free_bytes(folder.store.parent),
        durable_mark=running,
        machine=machine_meter(folder.store),
        fetch=Fetcher(config.outcalls).fetch,
    )
    replica = replace(
        config.replica, subnet=number, routes=keys.routes, operators=(keys.operator.principal.raw,)
    )
    return Subnet(doors, replica, condemned=condemned)


async def serve(config: NodeConfig, number: int = 0) -> None:
    """Serve until SIGTERM or SIGINT."""
    folder = DataDir(config.data, number)
    loop = asyncio.get_running_loop()
    end_on_bugs(loop, "subnet")
    stopped = stop_event(loop)
    keys = load_keys(config.data)
    subnet = open_subnet(config, keys, number)
    server = SubnetServer(subnet, ReplySpool(folder.spool), folder.checkpoint, keys.node)
    await server.start(folder.socket)
    clients = [StreamClient(server.driver, peer, folder.of(peer).socket) for peer in server.subnet.peers]
    for client in clients:
        server.streams.append(client)
        client.start()
    calm_collector()
    say_ready()
    await stopped.wait()
    for client in clients:
        client.close()
    await server.stop()


def main() -> int:
    """Run the process; give its exit code."""
    parser = argparse.ArgumentParser(prog="cannery.node.subnet_process")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--subnet", type=int, default=0)
    options = parser.parse_args()
    data: Path = options.data
    end_with_parent()
    try:
        config = load_config(data)
        limit_memory(config.memory_bytes_max)
        allow_open_files(SUBNET_FILE_COUNT)
        # A sync that has returned should reach the loop soon, though a round is executing.
        sys.setswitchinterval(_SWITCH_INTERVAL_S)
        uvloop.run(serve(config, options.subnet))
    except CanneryError as error:
        sys.stderr.write(f"subnet: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
