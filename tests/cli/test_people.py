"""The main job from the command line: register, write to somebody who is away, read."""

from __future__ import annotations

import secrets

import pytest

from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest


@pytest.fixture
def people(cli: Cli, running_node: NodeUnderTest) -> tuple[str, str]:
    """Two registered people with names of this test's own."""
    names = (f"ann_{secrets.token_hex(4)}", f"bob_{secrets.token_hex(4)}")
    for name in names:
        assert cli("identity", "new", name).code == 0
        done = cli("register", name, "--identity", name, node=running_node)
        assert done.code == 0, done.err
        assert done.out.startswith(f"registered as {name}, mailbox ")
    return names


def test_a_message_waits_for_who_is_away(
    cli: Cli, running_node: NodeUnderTest, people: tuple[str, str]
) -> None:
    ann, bob = people
    for text in ("one", "two", "line\nbreak \x1b[2J"):
        done = cli("send", bob, text, "--identity", ann, node=running_node)
        assert done.code == 0, done.err
        assert done.out.startswith("delivered: message ")
    read = cli("inbox", "--identity", bob, node=running_node)
    lines = read.out.splitlines()
    assert [line.split(f"{ann}: ")[1] for line in lines] == ["one", "two", "line\\nbreak \\x1b[2J"]
    since = read.err.split("--since ")[1].strip()
    assert cli("inbox", "--identity", bob, "--since", since, node=running_node).out == ""
    cli("send", bob, "three", "--identity", ann, node=running_node)
    assert cli("inbox", "--identity", bob, "--since", since, node=running_node).out.endswith("three\n")


def test_text_comes_from_standard_input(
    cli: Cli, running_node: NodeUnderTest, people: tuple[str, str]
) -> None:
    ann, bob = people
    sent = cli("send", bob, "-", "--identity", ann, "--json", node=running_node, stdin="from a pipe\n")
    assert "delivered" in sent.json["state"]  # type: ignore[index]
    found = cli("inbox", "--identity", bob, "--json", node=running_node).json
    (message,) = found["messages"]  # type: ignore[index]
    assert message["body"] == {"text": "from a pipe"}
    assert message["message_id"] == sent.json["message_id"]  # type: ignore[index]


def test_registering_again_changes_nothing(
    cli: Cli, running_node: NodeUnderTest, people: tuple[str, str]
) -> None:
    ann, _ = people
    first = cli("register", ann, "--identity", ann, "--json", node=running_node)
    again = cli("register", "another", "--identity", ann, "--json", node=running_node)
    assert again.json == first.json


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("register", "x"), 1, "3 to 20"),
        (("register", "{bob}"), 1, "taken"),
        (("send", "nobody_of_this_name", "hi"), 1, "unknown_user"),
        (("send", "{bob}", ""), 2, "empty message"),
        (("send", "{bob}", "x" * 10_001), 2, "10000"),
        (("inbox", "--since", "-1"), 2, "--since"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    cli: Cli,
    running_node: NodeUnderTest,
    people: tuple[str, str],
    arguments: tuple[str, ...],
    code: int,
    complaint: str,
) -> None:
    ann, bob = people
    who = ann
    if arguments[0] == "register":
        who = f"carol_{secrets.token_hex(4)}"
        cli("identity", "new", who)
    done = cli(*(word.format(bob=bob) for word in arguments), "--identity", who, node=running_node)
    assert done.code == code, done
    assert complaint in done.error


def test_who_is_not_registered_is_told_what_to_do(cli: Cli, running_node: NodeUnderTest) -> None:
    cli("identity", "new", "stranger")
    done = cli("inbox", node=running_node)
    assert done.code == 1
    assert "cannery register" in done.error


def test_one_identity_is_taken_and_of_several_one_is_asked_for(cli: Cli, running_node: NodeUnderTest) -> None:
    done = cli("inbox", node=running_node)
    assert done.code == 2
    assert "cannery identity new" in done.error
    for name in ("one", "two"):
        cli("identity", "new", name)
    done = cli("inbox", node=running_node)
    assert done.code == 2
    assert "--identity NAME, with one of one, two" in done.error
