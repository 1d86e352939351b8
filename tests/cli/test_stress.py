"""The stress tool: whole catch-ups in every layout, posts that all arrive, and failures that are told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
import pytest

from cannery.cli.stress_load import TIMED_OUT, Visit, failure_of, run_load
from cannery.cli.stress_report import times_of
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest
from tests.waiting import NEVER_S

SMALL = ("--clients", "4", "--chats", "3", "--pool", "5", "--json")


def canister_count(node: NodeUnderTest) -> str:
    text = httpx.get(f"{node.url}/metrics").text
    return next(line for line in text.splitlines() if line.startswith("cannery_canisters "))


@pytest.mark.parametrize(("layout", "requests"), [("topics", 4), ("requests", 12), ("zones", 12)])
def test_every_client_gets_all_messages_of_its_chats(
    cli: Cli, start_node: Callable[..., NodeUnderTest], layout: str, requests: int
) -> None:
    node = start_node()
    before = canister_count(node)
    done = cli(
        "stress", "mailserver", *SMALL, "--messages", "40", "--layout", layout, "--spread", "0.05",
        node=node,
    )  # fmt: skip
    assert done.code == 0, done.err
    found = done.json
    assert isinstance(found, dict)
    assert (found["clients"], found["succeeded"], found["timeouts"], found["errors"]) == (4, 4, 0, 0)
    assert (found["requests"], found["messages"]) == (requests, 4 * 3 * 40)
    assert found["outcomes"] == {"complete": 1}
    assert found["received_bytes"] > 4 * 3 * 40 * 236
    assert 0 < found["whole"]["p50_ms"] <= found["whole"]["p99_ms"] <= found["whole"]["max_ms"]
    assert canister_count(node) == before, "the zones of the run are taken away"


def test_posts_arrive_and_the_lines_are_for_people(cli: Cli, running_node: NodeUnderTest) -> None:
    arguments = ("--clients", "3", "--chats", "2", "--pool", "2", "--messages", "5", "--batch", "2")
    done = cli("stress", "posting", *arguments, "--zones", node=running_node)
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0].startswith("posting 5 messages a client, 2 at a time: 3 of 3 clients in ")
    assert "in all       15 messages" in done.out
    assert "timeouts     0" in lines
    assert "errors       0" in lines


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--layout", "heaps"), "--layout heaps: say one of topics, requests, zones"),
        (("--pool", "2"), "--pool 2: there are at least the 60 chats that each client has"),
        (("--messages", "20000", "--size", "1000"), "are more than a page holds: make chats smaller"),
        (("--clients", "0"), "--clients"),
        (("--node", "https://example.org"), "stress speaks plain HTTP"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    cli: Cli, running_node: NodeUnderTest, arguments: tuple[str, ...], complaint: str
) -> None:
    done = cli("stress", "mailserver", *arguments, node=running_node)
    assert done.code == 2
    assert complaint in done.error


@contextmanager
def server(answer: bytes | None) -> Iterator[int]:
    """Answer whatever comes with these bytes and close; without any, keep silent."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    kept: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            connection.recv(4_096)
            if answer is None:
                kept.append(connection)
            else:
                connection.sendall(answer)
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()
    for connection in kept:
        connection.close()


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (None, TIMED_OUT),
        (b"", "the node closed the connection"),
        (b"hello\r\n\r\n", "the answer is no HTTP with a content-length"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "the answer is no HTTP with a content-length"),
        (b"HTTP/1.1 429 Too Many\r\ncontent-length: 4\r\n\r\nwait", "HTTP 429: wait"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 40\r\n\r\n\xa2\x66status\x67replied", "the node closed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 27\r\n\r\nrejected reject_message why", "rejected: why"),
    ],
)
def test_each_failure_is_a_text(answer: bytes | None, failure: str) -> None:
    timeout_s = 0.2 if answer is None else NEVER_S
    with server(answer) as port:
        load = run_load(
            ("127.0.0.1", port), [Visit([b"GET"]), Visit([b"GET"])], spread_s=0, timeout_s=timeout_s
        )
    for visit in load.visits:
        assert visit.took_s is None
        assert visit.failure is not None
        assert failure in visit.failure


def test_nobody_there_is_a_failure_too() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    load = run_load(("127.0.0.1", port), [Visit([b"GET"])], spread_s=0, timeout_s=NEVER_S)
    assert str(load.visits[0].failure).startswith("cannot connect: ")


def test_an_answer_is_a_success_by_its_beginning() -> None:
    assert failure_of(200, b"\xa3\x66status\x67replied") is None
    assert failure_of(200, b"\xa2\x66status\x67replied.. reject_code.. reject_message no") == "rejected: no"
    assert failure_of(202, b"") == "accepted, but not answered in time (HTTP 202)"


def test_times_are_ordered() -> None:
    times = times_of([n / 1000 for n in range(100, 0, -1)])
    assert (times.p50_ms, times.p99_ms, times.max_ms) == (51, 100, 100)
    assert times_of([]).max_ms == 0
