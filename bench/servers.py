"""Processes under test: a node with its rate limits raised, a bare server; started on free loopback ports,
and stopped.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cannery.client import Agent
from cannery.protocol.identity import Identity
from cannery.protocol.pem import parse_pem

READY_WAIT_S = 120
CONFIG = """
[gateway]
requests_per_address_per_s = 1e9
requests_per_address_burst = 1000000000
requests_per_principal_per_s = 1e9
requests_per_principal_burst = 1000000000
"""


def free_port() -> int:
    """Give a port of the loopback address that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert isinstance(port, int)
    return port


@dataclass(slots=True)
class RunningNode:
    """A node that serves, its data and its processes."""

    port: int
    data: Path
    popen: subprocess.Popen[bytes]
    ready_s: float

    @property
    def process(self) -> psutil.Process:
        return psutil.Process(self.popen.pid)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def operator(self) -> Identity:
        return parse_pem((self.data / "operator.pem").read_text())

    def agent(self, identity: Identity | None = None) -> Agent:
        return Agent(self.url, identity or self.operator())

    def node_key_der(self) -> bytes:
        """Give the public key that the node signs query answers with."""
        key = parse_pem((self.data / "keys" / "node.pem").read_text()).public_key_der
        assert key is not None
        return key

    def names(self) -> dict[str, str]:
        """Give the named canisters."""
        with urllib.request.urlopen(f"{self.url}/cannery.json") as answer:
            names = json.load(answer)["canisters"]
        assert isinstance(names, dict)
        return names

    def kill_and_start(self) -> None:
        """End every process at once, as a power cut would, and start again on the same port."""
        self.popen.kill()
        self.popen.wait()
        self.popen = _start(self.data, self.port)

    def cpu_s(self) -> float:
        """Sum the CPU seconds of all its processes."""
        return float(sum(t.user + t.system for t in (p.cpu_times() for p in self._processes())))

    def memory_bytes(self) -> int:
        """Sum the resident memory of all its processes."""
        return int(sum(p.memory_info().rss for p in self._processes()))

    def _processes(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def running_node(data: Path, settings: str = CONFIG) -> Iterator[RunningNode]:
    """Start a node on `data`, wait until it is ready, stop it at the end."""
    data.mkdir(parents=True, exist_ok=True)
    (data / "cannery.toml").write_text(settings)
    port = free_port()
    started = time.perf_counter()
    node = RunningNode(port, data, _start(data, port), time.perf_counter() - started)
    try:
        yield node
    finally:
        node.popen.send_signal(signal.SIGTERM)
        try:
            node.popen.wait(60)
        except subprocess.TimeoutExpired:
            node.popen.kill()
            node.popen.wait()


def _start(data: Path, port: int) -> subprocess.Popen[bytes]:
    """Start the processes of a node and wait until they serve."""
    command = [str(Path(sys.executable).with_name("cannery")), "start"]
    process = subprocess.Popen(
        [*command, "--data", str(data), "--port", str(port)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    try:
        wait_until_ready(process)
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


@contextlib.contextmanager
def bare_server(job: str, folder: Path) -> Iterator[int]:
    """Start the bare server of bench/limits.py; give its port."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.limits", job, str(port), str(folder)],
        env={**os.environ, "PYTHONPATH": "src"},
    )
    try:
        wait_for_port(port, process)
        yield port
    finally:
        process.terminate()
        process.wait(30)


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Wait until a node says that it is ready; its apps are installed then."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(b"ready in"):
            return
    raise RuntimeError(f"the node ended with code {process.wait()}")


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until something listens on a port."""
    deadline = time.monotonic() + READY_WAIT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended with code {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.02)
    raise RuntimeError(f"nothing listens on port {port}")
