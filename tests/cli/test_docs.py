"""Every command and every flag stands in docs/cli.md, and every command explains itself with an example."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from cannery.cli.main import app, run

DOCS = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")


def commands(group: object, path: str) -> Iterator[tuple[str, object]]:
    for name, command in getattr(group, "commands", {}).items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app), "cannery"))


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_stands_in_the_docs_with_its_flags(path: str) -> None:
    words = path.split()
    assert path in DOCS or f"`{words[-1]} ID`" in DOCS, f"{path} is not in docs/cli.md"
    for parameter in COMMANDS[path].params:  # type: ignore[attr-defined]
        for flag in parameter.opts:
            if flag.startswith("--"):
                assert f"`{flag}" in DOCS, f"{flag} of {path} is not in docs/cli.md"


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_helps(path: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*path.split()[1:], "--help"]) == 0
    help_text = capsys.readouterr().out
    assert "Example" in help_text
    assert "Usage:" in help_text
    for parameter in COMMANDS[path].params:  # type: ignore[attr-defined]
        assert getattr(parameter, "help", None), f"{parameter.name} of {path} has no help text"


def test_commands_of_the_issue_are_there() -> None:
    wanted = {
        "start", "identity new", "identity list", "identity principal", "identity import", "register", "send",
        "inbox", "deploy", "module add", "module list", "operator add", "operator list", "operator remove",
        "canister create", "canister install", "canister call", "canister status", "canister logs",
        "canister start", "canister stop", "canister delete", "canister settings", "canister top-up", "build",
    }  # fmt: skip
    assert {f"cannery {name}" for name in wanted} <= set(COMMANDS)


def test_every_command_that_prints_data_knows_json() -> None:
    for path, command in COMMANDS.items():
        flags = {flag for parameter in command.params for flag in parameter.opts}  # type: ignore[attr-defined]
        assert "--json" in flags, path
