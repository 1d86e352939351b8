"""A gateway process: listens, asks its subnet over a local socket, and ends in good order.

Started by the supervisor as `python -m cannery.node.gateway --data DIR --index K`. Several of them share
the sockets that the supervisor bound and passes down (`CANNERY_LISTEN_FDS`); without these the process
binds the configured port by itself. The end of standard input, SIGTERM and SIGINT stop it: what is under
way is finished, in bounded time.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import uvloop

from cannery.errors import CanneryError
from cannery.limits import GATEWAY_SWEEP_MS, LISTEN_BACKLOG_COUNT
from cannery.node.config import NodeConfig, load_config
from cannery.node.data_dir import DataDir, NodeKeys, load_keys
from cannery.node.gateway.app import Clocks, Gateway
from cannery.node.gateway.http_server import HttpServer
from cannery.node.gateway.push.server import EventServer
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.spool import Spool, SpoolLimits
from cannery.node.listening import open_listeners
from cannery.node.process_life import say_ready, stop_event
from cannery.node.remote_subnet import RemoteSubnet
from cannery.node.subnet_port import SubnetPort
from cannery.node.watching.pages import WatchPages
from cannery.node.watching.task import Watching, WatchParts
from cannery.protocol.principal import Principal

_Address = tuple[str, int]
_CLOCKS = Clocks(time.time_ns, time.monotonic_ns)
_log = logging.getLogger(__name__)

LISTEN_FDS_VARIABLE = "CANNERY_LISTEN_FDS"

_SUBNET_START_S = 60.0
_RANGE_BITS = 40
_COUNTER_BYTES = 8
_CANISTER_ID_TAIL = b"\x01\x01"
_MS_PER_S = 1000


def build_gateway(port: SubnetPort, config: NodeConfig, keys: NodeKeys, number: int = 0) -> Gateway:
    """Put a gateway together; the wiring that every kind of node shares. `number`: which of several it is."""
    settings = config.gateway
    spool = Spool(DataDir(config.data).spool, spool_limits(settings), time.time_ns)
    identity = NodeIdentity(
        keys.root,
        keys.node,
        (canister_range(config.replica.subnet),),
        version=read_version(),
        gateway=number,
    )
    folder = DataDir(config.data)
    watch = WatchPages(folder.alarms, folder.canary, config.watch, time.time_ns)
    return Gateway(port, identity, settings, spool, _CLOCKS, watch)


def build_watching(port: SubnetPort, config: NodeConfig, keys: NodeKeys, address: _Address) -> Watching:
    """Put the node's watching together; `address`: where this process listens."""
    folder = DataDir(config.data)
    parts = WatchParts(
        port=port,
        operator=keys.operator,
        url=own_url(address),
        root_key_der=keys.root.public_key_der,
        alarms=folder.alarms,
        canary=folder.canary,
        report=_report,
        clocks=_CLOCKS,
    )
    return Watching(parts, config.watch)


def own_url(address: _Address) -> str:
    """Give the URL at which this machine reaches what listens at an address."""
    host, port = address[0], address[1]
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{loopback}]:{port}" if ":" in loopback else f"http://{loopback}:{port}"


def _report(text: str) -> None:
    """Write a line to the node's output: the supervisor passes standard error on."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def spool_limits(settings: GatewaySettings) -> SpoolLimits:
    return SpoolLimits(
        settings.spool_bytes_max,
        settings.spool_bytes_per_address_max,
        settings.body_size_bytes_max,
        settings.spool_kept_ms_max,
    )


def canister_range(subnet: int) -> tuple[Principal, Principal]:
    """Give the first and the last canister id of a subnet."""
    first, last = subnet << _RANGE_BITS, ((subnet + 1) << _RANGE_BITS) - 1
    return _canister_id(first), _canister_id(last)


def _canister_id(counter: int) -> Principal:
    return Principal(counter.to_bytes(_COUNTER_BYTES, "big") + _CANISTER_ID_TAIL)


def read_version() -> str:
    """Tell the version of the installed package; a source tree that is not installed has none."""
    try:
        return version("cannery")
    except PackageNotFoundError:
        return "0+source"


async def serve(
    gateway: Gateway,
    settings: GatewaySettings,
    sockets: Sequence[socket.socket],
    stop: asyncio.Event,
    watching: Watching | None = None,
    events: EventServer | None = None,
) -> None:
    """Serve on listening sockets until `stop` is set, then finish what is under way.

    A fault of the watching ends the process, as any fault does: the supervisor starts it again.
    """
    loop = asyncio.get_running_loop()
    server = HttpServer(gateway, settings, events)
    listeners = [
        await loop.create_server(server.make_connection, sock=one, backlog=LISTEN_BACKLOG_COUNT)
        for one in sockets
    ]
    sweeper = loop.create_task(_sweep(gateway))
    say_ready()
    watcher = None if watching is None else loop.create_task(watching.run())
    if watcher is not None:
        watcher.add_done_callback(lambda _task: stop.set())
    await stop.wait()
    for listener in listeners:
        listener.close()
    await server.close()
    sweeper.cancel()
    if watching is not None and watcher is not None:
        watcher.cancel()
        with suppress(asyncio.CancelledError):
            await watcher
        await watching.close()


async def _sweep(gateway: Gateway) -> None:
    while True:
        await asyncio.sleep(GATEWAY_SWEEP_MS / _MS_PER_S)
        try:
            await asyncio.to_thread(gateway.sweep)
        except OSError as error:
            _log.warning("the spool cannot be tidied up: %s", error)


async def run(config: NodeConfig, keys: NodeKeys, number: int) -> None:
    """Connect to the subnet and serve until told to stop."""
    loop = asyncio.get_running_loop()
    stop = stop_event(loop)
    _stop_with_parent(loop, stop)
    subnet = RemoteSubnet(DataDir(config.data).socket)
    try:
        await subnet.start(_SUBNET_START_S)
        gateway = build_gateway(subnet, config, keys, number)
        sockets = open_sockets(config)
        watching = build_watching(subnet, config, keys, sockets[0].getsockname()) if number == 0 else None
        events = EventServer(gateway, subnet, config.gateway, time.time_ns)
        gc.freeze()
        await serve(gateway, config.gateway, sockets, stop, watching, events)
    finally:
        await subnet.close()


def _stop_with_parent(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when the other end of standard input, the supervisor, is gone."""
    descriptor = sys.stdin.fileno()
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        return

    def read() -> None:
        if not os.read(descriptor, 4096):
            loop.remove_reader(descriptor)
            stop.set()

    loop.add_reader(descriptor, read)


def open_sockets(config: NodeConfig) -> list[socket.socket]:
    """Take the sockets that the supervisor passed down, or bind the configured hosts and port."""
    inherited = os.environ.get(LISTEN_FDS_VARIABLE)
    if inherited:
        return [socket.socket(fileno=int(number)) for number in inherited.split(",")]
    return open_listeners(config.hosts, config.port)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a gateway process to its end; give its exit code."""
    parser = argparse.ArgumentParser(
        prog="cannery.node.gateway", description="One gateway process of a node."
    )
    parser.add_argument("--data", type=Path, required=True, help="the node's data directory")
    parser.add_argument("--index", type=int, default=0, help="which of the node's gateways this is")
    parser.add_argument("--host", help="listen here instead of what the configuration says")
    parser.add_argument("--port", type=int, help="listen here instead of what the configuration says")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format=f"gateway {options.index}: %(levelname)s %(message)s")
    try:
        config = load_config(options.data, options.host, options.port)
        uvloop.run(run(config, load_keys(config.data), options.index))
    except CanneryError as error:
        sys.stderr.write(f"gateway {options.index}: {error}\n")
        return 1
    return 0
