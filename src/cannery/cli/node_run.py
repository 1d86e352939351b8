"""Runs a node for `cannery start` and `cannery demo`: its processes, then the apps, then the greeting.

The supervisor stands in `node.supervisor`; this is the wiring. Apps are installed by an ordinary operator's
agent once the node serves; a node whose apps cannot be installed still serves.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from cannery.cdk.interface import KIT_VERSION
from cannery.cli.fleet_lines import plural
from cannery.cli.output import Progress, complain, emit, note, progress
from cannery.cli.problem import Problem
from cannery.client.agent import Agent
from cannery.client.identity_store import PinStore
from cannery.errors import CanneryError
from cannery.node import supervisor
from cannery.protocol.identity import Identity

Furnish = Callable[["RunningNode"], Iterable[str]]


@dataclass(frozen=True, slots=True)
class RunningNode:
    """A node that serves: where, with which root key (DER), and who operates it."""

    url: str
    data: Path
    root_key: bytes
    operator: Identity


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a node: what to fill it with, how to say that it is ready."""

    begun_s: float
    as_json: bool
    furnish: Furnish | None
    pin_home: Path | None
    line: Progress

    async def greet(self, ready: supervisor.NodeReady) -> None:
        """Install the apps, fill the node, then say that it is ready."""
        node = RunningNode(ready.url, ready.config.data, ready.keys.root.public_key_der, ready.keys.operator)
        self.line.say("installing the apps")
        more = await asyncio.to_thread(self._furnish, node)
        self.line.stop()
        self._print(ready, node, await asyncio.to_thread(_names, node), more)

    def _furnish(self, node: RunningNode) -> list[str]:
        from cannery.cli.app_install import install_apps

        _pin(node, self.pin_home)
        try:
            with Agent(node.url, node.operator, root_key=node.root_key, on_wait=self.line.say) as agent:
                install_apps(agent)
            return [] if self.furnish is None else list(self.furnish(node))
        except CanneryError as error:
            complain(f"the apps could not be installed: {error}")
            return []

    def _print(
        self, ready: supervisor.NodeReady, node: RunningNode, names: dict[str, str], more: list[str]
    ) -> None:
        seconds = round(time.monotonic() - self.begun_s, 1)
        facts = {
            "version": KIT_VERSION,
            "url": node.url,
            "data": str(node.data),
            "root_key": node.root_key.hex(),
            "operator": str(node.operator.principal),
        }
        processes = {
            "subnets": len(ready.keys.subnets),
            "gateways": ready.gateway_count,
            "cores": ready.core_count,
        }
        emit(
            {**facts, **processes, "canisters": names, "seconds": seconds},
            self.as_json,
            [
                *(f"{name.replace('_', ' '):<12}{text}" for name, text in facts.items()),
                f"{'processes':<12}{_counted(**processes)}",
                *(f"{name:<12}{canister_id}" for name, canister_id in names.items()),
                *more,
                f"ready in {seconds} s (Ctrl-C stops it)",
            ],
        )
        sys.stdout.flush()


def run_node(
    data: Path,
    host: str | None,
    port: int | None,
    as_json: bool,
    furnish: Furnish | None = None,
    pin_home: Path | None = None,
    subnets: int | None = None,
) -> None:
    """Run a node until Ctrl-C or SIGTERM."""
    if data.exists() and not data.is_dir():
        raise Problem(f"{data} is a file: choose a directory with --data")
    begun_s = time.monotonic()
    with progress("starting") as line:
        line.say("opening the store")
        start = Start(begun_s, as_json, furnish, pin_home, line)
        asyncio.run(supervisor.run_node(data, host, port, start.greet, note, subnets))
    if not as_json:
        print("stopped")


def _counted(subnets: int, gateways: int, cores: int) -> str:
    return f"{plural(subnets, 'subnet')} and {plural(gateways, 'gateway')} on {plural(cores, 'usable core')}"


def _names(node: RunningNode) -> dict[str, str]:
    with Agent(node.url, root_key=node.root_key) as agent:
        return {name: str(canister_id) for name, canister_id in sorted(agent.names().items())}


def _pin(node: RunningNode, home: Path | None) -> None:
    """Pin the root key for whoever starts the node; another one that is pinned already stays."""
    pins = PinStore(home)
    try:
        pinned = pins.find(node.url)
        if pinned is None:
            pins.set(node.url, node.root_key)
        elif pinned != node.root_key:
            note(f"another root key is pinned for {node.url}; to use this one: cannery trust --node URL")
    except (CanneryError, OSError) as error:
        note(f"the root key is not pinned: {error}")
