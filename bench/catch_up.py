"""Offline catch-up: 500 clients come back to 60 chats of 100 messages each, beside a bare server that sends
the same bytes over as many requests.

`cannery stress` does it, over HTTP, from a process of its own: as 60 topics of one zone in one request, as 60
zones in 60 requests on one connection, and as 60 topics with a request each; all clients at once, and coming
within a minute. `CATCH_UP_POOL=30000` gives each client chats of its own; without it 600 chats are shared, 50
clients to a chat in the mean. The node has a gateway for each of two cores.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.report import Line
from bench.servers import RunningNode, bare_server, running_node
from cannery.cli.stress_load import Visit, run_load

CLIENTS = int(os.environ.get("CATCH_UP_CLIENTS", "500"))
CHATS = 60
MESSAGES = 100
POOL = int(os.environ.get("CATCH_UP_POOL", "600"))
SPREAD_S = float(os.environ.get("CATCH_UP_SPREAD_S", "60"))
TIMEOUT_S = 10.0
LAYOUTS = ("topics", "zones", "requests")
NAMES = {
    "topics": "60 topics, one request",
    "zones": "60 zones, 60 requests, one connection",
    "requests": "60 topics, 60 requests, one connection",
}


def run_catch_up() -> Iterator[Line]:
    """Measure each layout at once, and spread over a minute."""
    for layout in LAYOUTS:
        with (
            tempfile.TemporaryDirectory() as folder,
            running_node(Path(folder) / "data") as node,
        ):
            found = stress(node, layout, 0)
            bare = _bare(round(found["received_bytes"] / found["requests"]), found["requests"] // CLIENTS)
            yield Line(
                "catch_up",
                f"{NAMES[layout]}, all at once",
                found["bytes_per_s"] / 1e6,
                "MB/s",
                "bare server",
                bare / 1e6,
                _notes(found),
            )
            if layout != "requests":
                found = stress(node, layout, SPREAD_S)
                yield Line(
                    "catch_up",
                    f"{NAMES[layout]}, in {SPREAD_S:.0f} s: p99",
                    found["whole"]["p99_ms"],
                    "ms",
                    notes=_notes(found),
                )


def stress(node: RunningNode, layout: str, spread_s: float) -> dict[str, Any]:
    """Run the stress tool and give what it prints."""
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("cannery")),
            *("stress", "mailserver", "--json", "--node", node.url),
            *("--clients", str(CLIENTS), "--chats", str(CHATS), "--messages", str(MESSAGES)),
            *("--pool", str(POOL), "--layout", layout),
            *("--spread", str(spread_s), "--timeout", str(TIMEOUT_S)),
        ],
        stdout=subprocess.PIPE,
        env={
            **os.environ,
            "PYTHONPATH": "src",
            "CANNERY_DATA": str(node.data),
            "CANNERY_HOME": str(node.data.parent / "home"),
        },
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _bare(size_bytes: int, requests: int) -> float:
    """Fetch as many bytes in as many answers from the bare server; give bytes per second."""
    head = b"POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
    with (
        tempfile.TemporaryDirectory() as folder,
        bare_server(f"bytes:{size_bytes}", Path(folder)) as port,
    ):
        load = run_load(
            ("127.0.0.1", port), [Visit([head] * requests)] * CLIENTS, spread_s=0, timeout_s=TIMEOUT_S
        )
    assert all(visit.failure is None for visit in load.visits), load.visits[0]
    return sum(visit.received_bytes for visit in load.visits) / load.seconds


def _notes(found: dict[str, Any]) -> dict[str, float | str]:
    whole = found["whole"]
    checked = ", ".join(f"{count} {state}" for state, count in found["outcomes"].items())
    return {
        "clients done": f"{found['succeeded']} of {found['clients']}",
        "p50 ms": whole["p50_ms"],
        "p99 ms": whole["p99_ms"],
        "max ms": whole["max_ms"],
        "timeouts": found["timeouts"],
        "errors": found["errors"],
        "messages/s": found["messages_per_s"],
        "MB": found["received_bytes"] / 1e6,
        "seconds": found["seconds"],
        "tool's CPU s": found["tool_cpu_s"],
        "checked": checked,
    }
