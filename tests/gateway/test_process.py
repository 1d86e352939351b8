"""The gateway as a process beside a subnet's: start, service, orderly ends, clear errors."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cannery.node.data_dir import load_keys, open_data_dir, range_of
from cannery.node.gateway.process import connect_subnets, main
from cannery.node.remote_subnet import RemoteSubnet
from cannery.protocol.principal import Principal
from tests.waiting import NEVER_S


class Child:
    """A process of the node: its standard input is a pipe, its first line is read."""

    def __init__(self, module: str, *arguments: str, listener: socket.socket | None = None) -> None:
        descriptors = () if listener is None else (listener.fileno(),)
        environment = os.environ | {"PYTHONPATH": "src"}
        if listener is not None:
            environment["CANNERY_LISTEN_FDS"] = str(listener.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=descriptors,
            env=environment,
        )

    def ready(self) -> bool:
        assert self.process.stdout is not None
        return self.process.stdout.readline() == "ready\n"

    def end(self) -> int:
        self.process.kill()
        return self.process.wait(NEVER_S)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A data directory with its subnet's process running."""
    path = tmp_path_factory.mktemp("node")
    _folder, lock = open_data_dir(path)
    subnet = Child("cannery.node.subnet_process", "--data", str(path))
    assert subnet.ready()
    yield path
    subnet.end()
    lock.release()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened


def test_two_gateways_share_a_socket_and_end_in_order(data: Path, listener: socket.socket) -> None:
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    first, second = (
        Child("cannery.node.gateway", "--data", str(data), "--index", str(index), listener=listener)
        for index in range(2)
    )
    try:
        assert first.ready()
        assert second.ready()
        assert httpx.get(f"{url}/health").text == "healthy\n"
        page = httpx.get(f"{url}/cannery.json").json()
        assert page["root_key"] == load_keys(data).root.public_key_der.hex()
        assert first.process.stdin is not None
        first.process.stdin.close()
        assert first.process.wait(NEVER_S) == 0
        assert httpx.get(f"{url}/health").text == "healthy\n"
        second.process.terminate()
        assert second.process.wait(NEVER_S) == 0
    finally:
        first.end()
        second.end()


def test_a_gateway_that_waits_for_its_subnet_ends_when_it_is_told_to(tmp_path: Path) -> None:
    async def wait() -> bool:
        stop = asyncio.Event()
        subnet = RemoteSubnet(str(tmp_path / "nobody listens"))
        asyncio.get_running_loop().call_soon(stop.set)
        try:
            return await asyncio.wait_for(connect_subnets([subnet], stop), NEVER_S)
        finally:
            await subnet.close()

    assert asyncio.run(wait()) is False


def test_without_a_data_directory_there_is_one_clear_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["--data", str(tmp_path / "nothing")]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert "cannot read the keys" in err
    assert err.count("\n") == 1


def test_a_taken_port_is_one_clear_line(data: Path, listener: socket.socket) -> None:
    port = str(listener.getsockname()[1])
    child = Child("cannery.node.gateway", "--data", str(data), "--port", port)
    assert child.process.wait(NEVER_S) == 1
    assert child.process.stderr is not None
    error = child.process.stderr.read()
    assert f"port {port} on 127.0.0.1 is taken" in error
    assert error.count("\n") == 1


def test_a_subnets_range_of_ids() -> None:
    first, last = range_of(0)
    assert first == Principal(bytes(8) + b"\x01\x01")
    assert last.raw < range_of(1)[0].raw
    assert range_of(1)[0] == Principal(bytes(2) + b"\x01" + bytes(5) + b"\x01\x01")
