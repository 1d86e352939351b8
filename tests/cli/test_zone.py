"""`cannery zone` against a running node: what people print and read, and one line for what cannot be."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from cannery.cli.management import Management
from cannery.client.identity_store import IdentityStore, write_private
from cannery.protocol.pem import format_pem
from tests.clients.zone_town import ANN, BOB, EVE, Town
from tests.conftest import Cli, Ran
from tests.node_under_test import NodeUnderTest


@pytest.fixture
def run(cli: Cli, running_node: NodeUnderTest) -> Cli:
    """Run a command of a zone of ann's as somebody: `run("ann", "post", "lunch", "hi")`."""
    town = Town(running_node)
    with running_node.agent(running_node.operator) as agent:
        name = f"zone-{secrets.token_hex(4)}"
        Management(agent).name_set(name, town.id)
    store = IdentityStore()
    for who, identity in (("ann", ANN), ("bob", BOB), ("eve", EVE)):
        write_private(store.path(who), format_pem(identity))

    def call(who: str, command: str, *arguments: str, code: int = 0, stdin: str = "") -> Ran:
        done = cli("zone", command, name, *arguments, "--identity", who, node=running_node, stdin=stdin)
        assert done.code == code, done.err
        return done

    return call


def join(run: Cli, who: str, *options: str) -> None:
    code = run("ann", "invite", *options).out.strip()
    assert run(who, "join", code).out.startswith("joined ")


def test_messages(run: Cli) -> None:
    join(run, "bob")
    assert run("ann", "post", "lunch", "at noon?").out == "1\n"
    assert run("bob", "post", "lunch", "-", stdin="yes\n").out == "2\n"
    run("bob", "post", "log", "line\nbreak \x1b[2J")
    assert "a topic has 1 to 41 bytes" in run("bob", "post", "x" * 42, "hi", code=1).error
    assert "its name is text in UTF-8" in run("bob", "post", "\udcff", "hi", code=1).error
    shown = [line.split("Z  ")[1] for line in run("bob", "history").out.splitlines()]
    assert shown == ["lunch: at noon?", "lunch: yes", "log: line\\nbreak \\x1b[2J"]
    newest = run("bob", "history", "--topic", "lunch", "--newest", "--limit", "1", "--json").json
    assert newest["state"] == "done"  # type: ignore[index]
    assert [m["text"] for m in newest["messages"]] == ["yes"]  # type: ignore[index]
    assert len(run("bob", "tail", "--after", "0", "--limit", "3", "--acknowledge").out.splitlines()) == 3
    assert "unread from 4" in run("ann", "members").out
    assert run("bob", "history", "--limit", "1").out.count("\n") == 1
    assert run("bob", "history", "--after", "2").out.count("\n") == 1
    assert run("bob", "history", "--topic", "lunch", "--since", "1h", "--per-topic", "1").out.count("\n") == 1


def test_a_zone_is_made_once_and_encrypted_while_nothing_is_in_the_clear(
    cli: Cli, running_node: NodeUnderTest
) -> None:
    def zone(*arguments: str) -> Ran:
        return cli("zone", *arguments, "--identity", "ann", node=running_node)

    write_private(IdentityStore().path("ann"), format_pem(ANN))
    name = f"zone-{secrets.token_hex(4)}"
    assert cli("app", "install", "zones", node=running_node).code == 0
    made = zone("create", name)
    assert made.code == 0, made.err
    again = zone("create", name, "--encrypted")
    assert (again.code, again.out) == (0, made.out)
    assert "you had made it before" in again.err
    assert "has the key" in zone("members", name).out, "the one before had broken off, for all that is known"
    zone("create", f"{name}-plain")
    assert zone("post", f"{name}-plain", "a", "x").code == 0
    used = zone("create", f"{name}-plain", "--encrypted")
    assert used.code == 1
    assert "is not encrypted, and holds what was written in the clear" in used.error
    assert zone("create", f"{name}-plain").code == 0
    for taken, why in (("aaaaa-aa", "is a canister id"), ("zone_factory", "is the name of canister")):
        refused = zone("create", taken)
        assert (refused.code, why in refused.error) == (2, True)


def test_files(run: Cli, tmp_path: Path) -> None:
    source, target = tmp_path / "plan.bin", tmp_path / "got.bin"
    source.write_bytes(bytes(range(256)) * 6_000)
    assert run("ann", "put", str(source), "/2026/plan.bin").out.startswith("/2026/plan.bin  1.5 MB")
    assert run("ann", "ls").out.startswith("/2026/")
    assert run("ann", "ls", "2026").out.startswith("/2026/plan.bin  1.5 MB")
    run("ann", "get", "2026/plan.bin", str(target))
    assert target.read_bytes() == source.read_bytes()
    digest = run("ann", "put", str(source), "--attachment").out.strip()
    target.unlink()
    run("ann", "get", digest, str(target), "--attachment")
    assert target.read_bytes() == source.read_bytes()


def test_members_usage_and_limits(run: Cli, cli: Cli) -> None:
    join(run, "bob", "--role", "reader", "--uses", "2", "--days", "0.5")
    bob = cli("identity", "principal", "bob").out.strip()
    assert run("bob", "post", "a", "x", code=1).error.startswith("this needs the role member, you are reader")
    assert f"{bob}  moderator" in run("ann", "members", "--set", "bob=moderator").out
    run("bob", "post", "a", "x")
    assert run("ann", "usage").out.splitlines()[0].split() == ["messages", "1", "312", "B"]
    changed = run("ann", "retention", "messages", "--count", "2", "--days", "30", "--when-full", "refuse").out
    assert changed.splitlines()[0].split()[:4] == ["messages", "at", "most", "2"]
    assert run("ann", "retention", "--json").json["messages"]["when_full"] == "refuse"  # type: ignore[index]
    for text in "yz":
        run("ann", "post", "a", text, code=0 if text == "y" else 1)
    assert bob not in run("ann", "members", "--remove", "bob").out
    assert "ask an admin of it" in run("bob", "history", code=1).error


def test_invitations_outlive_who_came_by_them_until_they_are_ended(run: Cli) -> None:
    code = run("ann", "invite", "--uses", "5").out.strip()
    run("bob", "join", code)
    done = run("ann", "members", "--remove", "bob")
    assert "1 invitations are open, by which whoever has one can join again" in done.err
    assert "was no member" in run("ann", "members", "--remove", "bob").err
    run("bob", "join", code)
    assert run("ann", "invite", "--revoke").out == "1 invitations ended\n"
    assert run("ann", "invite", "--revoke", "--json").json == {"revoked": 0}
    assert "are open" not in run("ann", "members", "--remove", "bob").err
    assert "unknown, used up, revoked" in run("bob", "join", code, code=1).error


def test_a_zone_in_the_clear_has_no_keys_to_give(run: Cli) -> None:
    assert (
        "the zone is not encrypted: who joins it reads all"
        in run("ann", "invite", "--without-past", code=1).error
    )
    assert "Not a member" in run("bob", "usage", code=1).error
    for options in (("--rotate",), ("--grant", "bob")):
        assert "the zone is not encrypted: it has no key" in run("ann", "members", *options, code=1).error


def test_what_is_gone_is_told(run: Cli) -> None:
    run("ann", "retention", "messages", "--count", "1")
    for text in "xy":
        run("ann", "post", "a", text)
    done = run("ann", "history", "--after", "0")
    assert done.out.endswith("a: y\n")
    assert "messages 1 to 1 are no longer kept" in done.err
    assert "messages 1 to 1 are no longer kept" in run("ann", "tail", "--after", "0", "--limit", "1").out
    assert run("ann", "history", "--after", "0", "--json").json["state"] == "gap"  # type: ignore[index]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("post", "a", ""), 2, "an empty message is not posted"),
        (("invite", "--days", "inf"), 2, "less than or equal to 365"),
        (("invite", "--days", "0"), 2, "greater than or equal to 0.001"),
        (("retention", "messages", "--days", "inf"), 2, "less than or equal to 36500"),
        (("retention", "messages", "--days", "1e-10"), 2, "is the least, or 0 for any age"),
        (("history", "--topic", "a", "--after", "1", "--since", "1h"), 2, "leave out --after or --since"),
        (("history", "--topic", "a", "--per-topic", str(2**32)), 2, "less than or equal to 4294967295"),
        (("join", "zz"), 2, "is no invitation"),
        (("join", "00" * 16), 1, "unknown, used up, revoked or expired: ask for another one"),
        (("history",), 1, "Not a member of the zone: ask an admin of it for an invitation"),
        (("history", "--newest"), 2, "go with --topic"),
        (("history", "--topic", "a", "--acknowledge"), 2, "leave out --topic or --acknowledge"),
        (("tail",), 1, "Not a member of the zone"),
        (("members", "--set", "bob"), 2, "write WHO=ROLE"),
        (("members", "--set", "bob=king"), 2, "say one of reader, member"),
        (("members", "--set", "nobody=admin"), 2, "neither a principal nor one of your identities"),
        (("invite",), 1, "Not a member of the zone"),
        (("put", "/nowhere/file"), 2, "there is no such file"),
        (("get", "/x"), 1, "Not a member of the zone"),
        (("get", "xyz", "f", "--attachment"), 2, "is no hash"),
        (("ls",), 1, "Not a member of the zone"),
        (("usage",), 1, "Not a member of the zone"),
        (("members", "--grant", "bob"), 1, "Not a member of the zone"),
        (("retention", "--count", "5"), 2, "say what to change"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(
    run: Cli, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    command, *rest = arguments
    assert complaint in run("eve", command, *rest, code=code).error
