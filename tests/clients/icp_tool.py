"""The `icp` command line of the Internet Computer in a home of its own, pointed at a node under test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cannery.cli.management import Management
from cannery.protocol.principal import Principal
from tests.node_under_test import NodeUnderTest

TOOL_S_MAX = 120.0


@dataclass(frozen=True)
class IcpTool:
    """Runs `icp`: `tool("canister", "status", "probe")`."""

    program: Path
    home: Path
    project: Path
    node: NodeUnderTest

    def __post_init__(self) -> None:
        for folder in (self.home, self.project):
            folder.mkdir(parents=True, exist_ok=True)
        self("settings", "telemetry", "false")
        self("settings", "update-check", "disabled")

    @property
    def target(self) -> tuple[str, ...]:
        """Name the node and its root key, for commands outside a project."""
        return ("--network", self.node.url, "--root-key", self.node.root_key.hex())

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the project's folder, whatever becomes of it."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "DO_NOT_TRACK": "1",
            "RUST_BACKTRACE": "0",
        }
        return subprocess.run(
            [str(self.program), *arguments],
            cwd=self.project,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TOOL_S_MAX,
            check=False,
        )

    def __call__(self, *arguments: str) -> str:
        """Run a command that must succeed; give what it printed."""
        done = self.run(*arguments)
        assert done.returncode == 0, f"icp {' '.join(arguments)}:\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def refused(self, *arguments: str) -> str:
        """Run a command that must fail; give its errors."""
        done = self.run(*arguments)
        assert done.returncode != 0, f"icp {' '.join(arguments)} succeeded:\n{done.stdout}"
        return done.stderr

    def new_identity(self, name: str) -> str:
        """Make an identity of the tool; give its principal."""
        self("identity", "new", name, "--storage", "plaintext")
        return self("identity", "principal", "--identity", name)


def admit(tool: IcpTool) -> Principal:
    """Make the tool's `ann` an operator of its node."""
    ann = Principal.parse(tool("identity", "principal", "--identity", "ann"))
    with tool.node.agent(tool.node.operator) as agent:
        Management(agent).operator_add(ann)
    return ann


@contextmanager
def admitted(tool: IcpTool) -> Iterator[None]:
    """Make `ann` an operator for a while: others share the node, and want to know who its operators are."""
    ann = admit(tool)
    yield
    with tool.node.agent(tool.node.operator) as agent:
        Management(agent).operator_remove(ann)
