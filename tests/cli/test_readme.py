"""The README's transcripts, run as they stand: every `$ cannery ...` line, and the Python at the end."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from cannery.client.actor import open_actor
from tests.conftest import Cli
from tests.node_under_test import ROOT, NodeUnderTest

README = (ROOT / "README.md").read_text(encoding="utf-8")
TRANSCRIPTS = re.findall(r"```console\n(.*?)```", README, re.DOTALL)
VARYING = re.compile(r"[a-z2-7]{5}(-[a-z2-7]{1,5})+|[0-9a-f]{32}|\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ")


def steps(transcript: str) -> list[tuple[str, str]]:
    """Split a transcript into commands and what they print."""
    found: list[tuple[str, str]] = []
    for line in transcript.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        else:
            command, output = found[-1]
            found[-1] = (command, f"{output}{line}\n")
    return found


def blur(text: str) -> str:
    """Leave out what differs from run to run: ids, times."""
    return VARYING.sub("*", text)


def test_the_readme_has_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 2


def test_the_transcripts_do_what_they_show(
    cli: Cli, start_node: Callable[..., NodeUnderTest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    node = start_node()
    for transcript in TRANSCRIPTS:
        for line, output in steps(transcript):
            text, piped, command = line.rpartition(" | ")
            stdin = f"{shlex.split(text)[1]}\n" if piped else ""
            words = shlex.split(command)
            assert words[0] == "cannery", line
            done = cli(*words[1:], node=node, stdin=stdin)
            assert done.code == 0, (line, done.err)
            notes = blur(done.err).splitlines()
            shown = [text for text in blur(output).splitlines() if text not in notes]
            assert shown == blur(done.out).splitlines(), line
    with node.agent() as agent:
        assert open_actor(agent, agent.names()["book"]).sign("hello from Python") == 1


def test_the_commands_of_the_makefile_are_there() -> None:
    makefile = Path(ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make ([a-z]+)", README):
        assert f"\n{target}:" in makefile, target
