"""Transcripts in documents: the commands of a ```console block, and what they print.

What differs each time (ids, hashes, times) is replaced by names before two outputs are compared.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.node_under_test import ROOT, NodeUnderTest

SESSION_S_MAX = 500.0
DOCUMENTED_URL = "http://127.0.0.1:4943"

_MARK = "\x1e"
_PRINCIPAL = re.compile(r"\b(?:[a-z2-7]{5}-)+[a-z2-7]{1,5}\b")
_VARYING = (
    (re.compile(r"\b[0-9a-f]{64}\b"), "<hash>"),
    (re.compile(r"\bmodule [0-9a-f]{16}\b"), "module <hash>"),
    (re.compile(r"\b[0-9a-f]{32}\b"), "<id>"),
    (re.compile(r'blob "[^"]*"'), "<blob>"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ"), "<time>"),
    (re.compile(r"\b1_\d{3}(?:_\d{3}){5}\b"), "<time>"),
    (re.compile(r"\b\d+(?:\.\d KB| B)\b"), "<size>"),
    (re.compile(r"(<size>(?: new)?) {2,}"), r"\1  "),
    (re.compile(r"\bblock [\d,]+"), "block <number>"),
    (re.compile(r"\b[\d,]+ of [\d,]+ units\b"), "<count> units"),
    (re.compile(r"\b[\d,]+ chunks?\b"), "<count> chunks"),
    (re.compile(r"\b[\d,]+ blocks? replayed\b"), "<count> blocks replayed"),
    (re.compile(r":\d{4,5}\b"), ":<port>"),
    (
        re.compile(r"what is given per day is not known yet|[\d,]+ given and [\d,]+ burned per day, .*"),
        "<rate>",
    ),
)
_PROGRESS = re.compile(r"^.* \.\.\. \d+ s( - .*)?$")


@dataclass(frozen=True)
class Step:
    """A command with the lines that it prints."""

    command: str
    output: str


def blocks_of(text: str, language: str) -> list[str]:
    """Give the contents of a document's fenced blocks of one language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def steps_of(text: str) -> list[Step]:
    """Take console blocks apart: `$` begins a command, `>` right after it goes on with it."""
    steps: list[Step] = []
    for block in blocks_of(text, "console"):
        command, is_open = "", False
        output: list[str] = []
        for line in [*block.splitlines(), "$ "]:
            if line.startswith("$ "):
                if command:
                    steps.append(Step(command, "\n".join(output)))
                command, output, is_open = line[2:], [], True
            elif is_open and (line == ">" or line.startswith("> ")):
                command += "\n" + line[2:]
            else:
                is_open = False
                output.append(line)
    return steps


def run_steps(steps: list[Step], node: NodeUnderTest, folder: Path, programs: str = "") -> list[Step]:
    """Run commands one after the other in one shell, in a folder with the examples; give what they printed.

    `programs` is a folder of further commands. What a document says of its node's URL goes to this node.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    script = "exec 2>&1\n" + "".join(f"{step.command}\nprintf '\\036'\n" for step in steps)
    script = script.replace(DOCUMENTED_URL, node.url)
    environment = {**node.environment(), "HOME": str(folder.parent), "RUST_BACKTRACE": "0"}
    paths = [programs, str(Path(sys.executable).parent), environment["PATH"]]
    environment["PATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SESSION_S_MAX,
        check=False,
    )
    printed = done.stdout.split(_MARK)
    assert len(printed) == len(steps) + 1, f"the shell broke off:\n{done.stdout}{done.stderr}"
    return [Step(step.command, out.strip("\n")) for step, out in zip(steps, printed, strict=False)]


class Normaliser:
    """Replaces what differs from run to run; the same principal gets the same name each time."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}

    def __call__(self, text: str) -> str:
        lines = [line.rstrip() for line in text.splitlines() if not _PROGRESS.match(line)]
        text = _PRINCIPAL.sub(self._name, "\n".join(lines))
        for pattern, name in _VARYING:
            text = pattern.sub(name, text)
        return text

    def _name(self, match: re.Match[str]) -> str:
        return self._names.setdefault(match[0], f"<principal {len(self._names) + 1}>")
