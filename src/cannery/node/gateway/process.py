"""A gateway process: listens, asks its subnet over a local socket, and ends in good order.

Started by the supervisor as `python -m cannery.node.gateway --data DIR --index K`. Several of them share
the sockets that the supervisor bound and passes down (`CANNERY_LISTEN_FDS`); without these the process
binds the configured port by itself. The end of standard input, SIGTERM and SIGINT stop it: what is under
way is finished, in bounded time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import uvloop

from cannery.errors import CanneryError
from cannery.limits import (
    CHILD_READY_MS_MAX,
    GATEWAY_SPOOL_FILE_CHARGE_BYTES,
    GATEWAY_SWEEP_MS,
    LISTEN_BACKLOG_COUNT,
)
from cannery.node.config import NodeConfig, load_config
from cannery.node.data_dir import DataDir, NodeKeys, load_keys, range_of
from cannery.node.gateway.app import Clocks, Gateway
from cannery.node.gateway.http_server import HttpServer
from cannery.node.gateway.node_port import NodePort
from cannery.node.gateway.push.ports import EventPorts
from cannery.node.gateway.push.server import EventServer
from cannery.node.gateway.settings import GatewaySettings, NodeIdentity
from cannery.node.gateway.siblings import Siblings, open_siblings
from cannery.node.gateway.spool import Spool
from cannery.node.gateway.spool_accounts import SpoolLimits
from cannery.node.listening import open_listeners
from cannery.node.process_life import allow_open_files, calm_collector, say_ready, stop_event
from cannery.node.remote_subnet import RemoteSubnet
from cannery.node.subnet_port import SubnetPort
from cannery.node.watching.pages import WatchPages
from cannery.node.watching.task import Watching, WatchParts

_Address = tuple[str, int]
_CLOCKS = Clocks(time.time_ns, time.monotonic_ns)
_log = logging.getLogger(__name__)

LISTEN_FDS_VARIABLE = "CANNERY_LISTEN_FDS"

_MS_PER_S = 1000
_RATES_DOMAIN = b"\x0dcannery-rates"


def build_gateway(
    ports: Sequence[SubnetPort], config: NodeConfig, keys: NodeKeys, siblings: Siblings
) -> Gateway:
    """Put a gateway together, one of several or alone."""
    settings = config.gateway
    limits = spool_limits(settings, len(siblings.tallies.pages))
    spool = Spool(DataDir(config.data).spool, limits, time.time_ns)
    identity = NodeIdentity(
        keys.root,
        keys.node,
        tuple(range_of(number) for number in range(len(keys.subnets))),
        version=read_version(),
        further=keys.further,
    )
    folder = DataDir(config.data)
    watch = WatchPages(folder.alarms, folder.canary, config.watch, time.time_ns)
    return Gateway(ports, identity, settings, spool, _CLOCKS, watch, siblings)


def build_watching(
    ports: Sequence[SubnetPort], config: NodeConfig, keys: NodeKeys, address: _Address
) -> Watching:
    """Put the node's watching together; `address`: where this process listens."""
    folder = DataDir(config.data)
    parts = WatchParts(
        port=NodePort(ports),
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


def spool_limits(settings: GatewaySettings, gateway_count: int = 1) -> SpoolLimits:
    """Give one gateway's part of the spool, in which one body of the largest size has room at least."""
    least = settings.body_size_bytes_max + GATEWAY_SPOOL_FILE_CHARGE_BYTES
    part = max(settings.spool_bytes_max // gateway_count, least)
    return SpoolLimits(
        min(settings.spool_bytes_max, part),
        min(settings.spool_bytes_per_address_max, part),
        settings.body_size_bytes_max,
        settings.spool_kept_ms_max,
    )


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


async def run(config: NodeConfig, keys: NodeKeys, number: int, count: int) -> None:
    """Connect to the subnet and serve until told to stop, as gateway `number` of `count`."""
    loop = asyncio.get_running_loop()
    stop = stop_event(loop)
    _stop_with_parent(loop, stop)
    folder = DataDir(config.data)
    subnets = [RemoteSubnet(folder.of(each).socket) for each in range(len(keys.subnets))]
    try:
        if not await connect_subnets(subnets, stop):
            return
        siblings = open_siblings(
            folder.shared,
            count,
            number,
            config.gateway.rate_limited_count_max,
            rates_secret(keys),
        )
        gateway = build_gateway(subnets, config, keys, siblings)
        sockets = open_sockets(config)
        watching = build_watching(subnets, config, keys, sockets[0].getsockname()) if number == 0 else None
        events = EventServer(gateway, EventPorts(subnets), config.gateway, time.time_ns)
        calm_collector()
        await serve(gateway, config.gateway, sockets, stop, watching, events)
    finally:
        await asyncio.gather(*(subnet.close() for subnet in subnets))


def rates_secret(keys: NodeKeys) -> bytes:
    """Give what the node's gateways alone know, for the places of rates in a table."""
    return sha256(_RATES_DOMAIN + keys.node.sign(_RATES_DOMAIN)).digest()


async def connect_subnets(subnets: Sequence[RemoteSubnet], stop: asyncio.Event) -> bool:
    """Wait until all subnets answer; False where this process is told to stop before that."""
    connecting = asyncio.gather(*(subnet.start(CHILD_READY_MS_MAX / _MS_PER_S) for subnet in subnets))
    stopping = asyncio.ensure_future(stop.wait())
    stopping.add_done_callback(lambda _: connecting.cancel())
    try:
        await connecting
    except asyncio.CancelledError:
        if not stop.is_set():
            raise
        return False
    finally:
        stopping.cancel()
    return True


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
    parser.add_argument("--count", type=int, help="how many gateways the node has")
    parser.add_argument("--host", help="listen here instead of what the configuration says")
    parser.add_argument("--port", type=int, help="listen here instead of what the configuration says")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format=f"gateway {options.index}: %(levelname)s %(message)s")
    try:
        config = load_config(options.data, options.host, options.port)
        gateway = config.gateway.fit_files(allow_open_files(config.gateway.file_count))
        config = replace(config, gateway=gateway)
        count = max(options.index + 1, options.count or 1)
        uvloop.run(run(config, load_keys(config.data), options.index, count))
    except CanneryError as error:
        sys.stderr.write(f"gateway {options.index}: {error}\n")
        return 1
    return 0
