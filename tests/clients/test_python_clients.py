"""The Python clients of PyPI, unpatched, each in a virtual environment of its own, against a running node."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from cannery.protocol.principal import Principal
from tests.clients.conftest import HERE, SCRIPT_S_MAX, Script, read_script
from tests.clients.once import made_once
from tests.node_under_test import ROOT, NodeUnderTest

SCRIPTS = HERE / "python"
ENVIRONMENTS = ROOT / ".venv" / "clients"
INSTALL_S_MAX = 300.0


def python_with(requirements: Path) -> Path:
    """Give the Python of a virtual environment with these requirements; the first time makes it."""
    key = hashlib.sha256(requirements.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = ENVIRONMENTS / f"{requirements.stem}-{key}"

    def install() -> None:
        python = str(folder / "bin" / "python")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=INSTALL_S_MAX)
        subprocess.run([*pip, "-r", str(requirements)], check=True, timeout=INSTALL_S_MAX)
        (folder / "complete").touch()

    made_once(folder / "complete", install)
    return folder / "bin" / "python"


def run_client(client: str, node: NodeUnderTest, probe: Principal) -> Script:
    python = python_with(SCRIPTS / f"{client}.txt")
    script = SCRIPTS / f"{client.replace('-', '_')}.py"
    operator = node.data / "operator.pem"
    done = subprocess.run(
        [str(python), str(script), node.url, node.root_key.hex(), str(probe), str(operator)],
        capture_output=True,
        text=True,
        timeout=SCRIPT_S_MAX,
        check=False,
    )
    return read_script(done)


@pytest.mark.parametrize(("client", "checks"), [("icp-py-core", 15), ("ic-py", 11)])
def test_a_python_client(client: str, checks: int, running_node: NodeUnderTest, probe: Principal) -> None:
    run_client(client, running_node, probe).demand(checks)


def test_a_python_client_that_polls(polled_node: tuple[NodeUnderTest, Principal]) -> None:
    run_client("icp-py-core", *polled_node).demand(15)
