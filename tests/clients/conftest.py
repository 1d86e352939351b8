"""What tests with real clients share: the probe canister on the node, and Node.js with its packages."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.protocol.principal import Principal
from tests.clients.once import made_once
from tests.node_under_test import ROOT, NodeUnderTest

HERE = Path(__file__).resolve().parent
PROBE = HERE / "probe.py"
JS_HOME = HERE / "js"
ICP_TOOL = JS_HOME / "node_modules/@icp-sdk/icp-cli-linux-x64/bin/icp"
NO_ARGUMENTS = b"DIDL\x00\x00"
SCRIPT_S_MAX = 120.0
ACCEPT_ONLY = "[gateway]\nanswer_wait_ms_max = 0\n"


def deploy_probe(node: NodeUnderTest) -> Principal:
    """Install the probe canister on a node, as its operator."""
    built = build_file(str(PROBE))
    with node.agent(node.operator) as agent:
        management = Management(agent)
        management.module_bring(built.module, built.hash)
        canister_id = management.create(None, None)
        management.install(canister_id, "install", built.hash, NO_ARGUMENTS)
    return canister_id


@pytest.fixture(scope="session")
def probe(running_node: NodeUnderTest) -> Principal:
    """The probe canister on the worker's node."""
    return deploy_probe(running_node)


@pytest.fixture(scope="session")
def polled_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeUnderTest, Principal]]:
    """A node that lets no call wait for its outcome, and the probe canister on it."""
    folder = tmp_path_factory.mktemp("polled")
    node = NodeUnderTest(folder / "data", folder / "home", settings=ACCEPT_ONLY)
    try:
        node.start()
        yield node, deploy_probe(node)
    finally:
        node.close()


@dataclass(frozen=True)
class Script:
    """What a script of checks printed: each check with its error, or None where it passed."""

    checks: dict[str, str | None]
    code: int
    errors: str

    def demand(self, count: int) -> None:
        """Fail with one line for each check that failed, and where fewer ran than there are."""
        failed = [f"{name}: {error}" for name, error in self.checks.items() if error is not None]
        assert not failed, f"{len(failed)} of {len(self.checks)} checks failed:\n" + "\n".join(failed)
        assert self.code == 0, f"exit code {self.code}: {self.errors[-2000:]}"
        assert len(self.checks) == count, f"{len(self.checks)} checks ran, not {count}: {list(self.checks)}"


def read_script(done: subprocess.CompletedProcess[str]) -> Script:
    """Read what a script of checks printed."""
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    checks = {row["check"]: row.get("error") for row in rows if "check" in row}
    return Script(checks, done.returncode, done.stderr)


RunScript = Callable[..., Script]


def _node_js() -> str:
    """Find Node.js, beside this Python first: there `.ci/prepare test` puts the one from PyPI."""
    found = shutil.which(
        "node", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    )
    if found is None:
        pytest.fail("Node.js is missing; run: .ci/prepare test")
    return found


def _install_packages() -> None:
    prepare = [str(ROOT / ".ci" / "prepare"), "test"]
    subprocess.run(prepare, check=True, timeout=600, stdout=subprocess.DEVNULL)


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """Run a script of `js/`: `run_script("agent.mjs", "icp-sdk", url, ...)`; installs the packages once."""
    made_once(JS_HOME / "node_modules", _install_packages)
    node_js = _node_js()

    def run(name: str, *arguments: str) -> Script:
        done = subprocess.run(
            [node_js, str(JS_HOME / name), *arguments],
            cwd=JS_HOME,
            capture_output=True,
            text=True,
            timeout=SCRIPT_S_MAX,
            check=False,
        )
        return read_script(done)

    return run


@pytest.fixture(scope="session")
def icp_tool() -> Path:
    """The `icp` program; npm has 1.5.0 for Linux on x86-64 alone."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip(f"npm has no icp 1.5.0 for {sys.platform} on {platform.machine()}")
    made_once(ICP_TOOL, _install_packages)
    return ICP_TOOL
