"""Connections and open files: what the system does not allow is refused, not dropped."""

from __future__ import annotations

import resource
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.limits import GATEWAY_SPARE_FILE_COUNT
from cannery.node.gateway.settings import GatewaySettings
from tests.gateway.conftest import raw_request, read_one
from tests.node.process_node import ProcessNode

COUNTS = st.integers(1, 20_000)


@given(COUNTS, COUNTS, st.integers(16, 70_000))
def test_connections_fit_the_files(connections: int, events: int, files: int) -> None:
    settings = GatewaySettings(connection_count_max=connections, event_connection_count_max=events)
    fitted = settings.fit_files(files)
    assert 1 <= fitted.connection_count_max <= connections
    assert fitted.event_connection_count_max >= 1
    if files >= connections + events + GATEWAY_SPARE_FILE_COUNT:
        assert fitted == settings
    else:
        assert fitted.connection_count_max + fitted.event_connection_count_max < files


@pytest.mark.parametrize(("soft", "hard", "files"), [(256, 1024, 600), (256, 400, 400), (1024, 1024, 600)])
def test_a_process_lets_itself_open_what_it_may(soft: int, hard: int, files: int) -> None:
    program = (
        "import resource, sys; from cannery.node.process_life import allow_open_files; "
        f"resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard})); print(allow_open_files(600)); "
        "print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env={"PYTHONPATH": "src"}
    )
    assert done.stdout.split() == [str(files), str(max(soft, files))]


@pytest.mark.parametrize(("hard", "kept"), [(None, 150), (400, 100)])
def test_more_connections_than_files_are_refused_with_a_reason(
    tmp_path: Path, hard: int | None, kept: int
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "cannery.toml").write_text("[node]\ngateway_count = 1\n")
    node = ProcessNode(data, open_files=(128, hard or resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    try:
        with ExitStack() as opened:
            address = ("127.0.0.1", int(node.url.rpartition(":")[2]))
            statuses = []
            for _ in range(150):
                connection = opened.enter_context(socket.create_connection(address))
                connection.sendall(raw_request("GET", "/api/v2/status"))
                answer = read_one(opened.enter_context(connection.makefile("rb")))
                statuses.append(answer.status_code)
        assert statuses == [200] * kept + [503] * (150 - kept)
        if kept < 150:
            assert "too many connections" in answer.text
    finally:
        assert node.stop()[0] == 0
