"""The bare servers that benches measure against do their jobs."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import traffic
from bench.servers import bare_server
from cannery.cli.stress_load import Visit, run_load
from cannery.protocol.principal import Principal

CANISTER = Principal(bytes(8) + b"\x01\x01")


@pytest.mark.parametrize(("job", "kind"), [("updates", "call"), ("queries", "query")])
def test_the_bare_server_checks_and_answers(job: str, kind: str, tmp_path: Path) -> None:
    callers = traffic.identities(2)
    requests = [traffic.sign(kind, CANISTER, "m", b"DIDL\0\0", callers[n % 2], n) for n in range(8)]
    with bare_server(job, tmp_path) as port:
        assert traffic.send(port, requests, 2).statuses == {"200": 8}


def test_the_bare_server_sends_as_many_bytes_as_asked(tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
    with bare_server("bytes:5000", tmp_path) as port:
        load = run_load(("127.0.0.1", port), [Visit([head] * 3)] * 2, spread_s=0, timeout_s=10)
    assert all(visit.failure is None for visit in load.visits)
    assert sum(visit.received_bytes for visit in load.visits) >= 6 * 5000
