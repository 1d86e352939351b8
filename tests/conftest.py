"""What tests share: a running node per worker, nodes of one's own, and the command line against them.

Laws look at new examples in each run. With CI in the environment they look at the same ones each time, so
that a change is judged by what it changes; how quick the machine makes examples is judged nowhere.
HYPOTHESIS_PROFILE=fuzz, as `make fuzz` sets it, gives every law FUZZ_EXAMPLES examples, whatever it says
itself.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.node_under_test import NodeUnderTest

settings.register_profile(
    "default", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("ci", settings.get_profile("default"), derandomize=True, print_blob=True)
settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
NAMED_BYTES_MAX = 16
RECURSION_LIMIT = sys.getrecursionlimit()
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "ci" if os.environ.get("CI") else "default")
settings.load_profile(PROFILE)


def pytest_runtest_setup() -> None:
    """Let each test meet the depth that a node has: the EVM's libraries raise it when they are imported, and
    input that is deep enough would end the interpreter.
    """
    sys.setrecursionlimit(RECURSION_LIMIT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the fuzz profile overrule the number of examples that a test sets for itself."""
    if PROFILE != "fuzz":
        return
    for item in items:
        function = getattr(item, "obj", None)
        own = getattr(function, "_hypothesis_internal_use_settings", None)
        if own is not None:
            wanted = settings(own, max_examples=settings().max_examples)
            function._hypothesis_internal_use_settings = wanted  # type: ignore[union-attr]


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long bytes by their parameter: those that hold a time differ between the workers of one run."""
    return argname if isinstance(val, bytes) and len(val) > NAMED_BYTES_MAX else None


@pytest.fixture(scope="session")
def running_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NodeUnderTest]:
    """A node that serves for as long as the tests of this worker run; do not stop it."""
    folder = tmp_path_factory.mktemp("node")
    node = NodeUnderTest(folder / "data", folder / "home")
    node.start()
    yield node
    node.close()


@pytest.fixture
def start_node(tmp_path: Path) -> Iterator[Callable[..., NodeUnderTest]]:
    """Start nodes of this test's own: `start_node()`, `start_node("name", settings="[limits]...")`."""
    nodes: dict[str, NodeUnderTest] = {}

    def start(name: str = "data", settings: str = "") -> NodeUnderTest:
        node = nodes.setdefault(name, NodeUnderTest(tmp_path / name, tmp_path / "home", settings=settings))
        node.start()
        return node

    yield start
    for node in nodes.values():
        node.close()


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line on standard error that a failure gives."""
        lines = [line for line in self.err.splitlines() if line.startswith("cannery: ")]
        assert len(lines) == 1, self.err
        return lines[0].removeprefix("cannery: ")


Cli = Callable[..., Ran]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cli:
    """Run `cannery` in this process: `cli("inbox", "--json", node=node, stdin="...")`."""
    from cannery.cli.main import run

    for name in ("CANNERY_URL", "CANNERY_DATA", "CANNERY_IDENTITY", "CANNERY_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("CANNERY_HOME", str(tmp_path / "cli-home"))

    def call(*arguments: str, node: NodeUnderTest | None = None, stdin: str = "") -> Ran:
        if node is not None:
            monkeypatch.setenv("CANNERY_URL", node.url)
            monkeypatch.setenv("CANNERY_DATA", str(node.data))
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capfd.readouterr()
        code = run(list(arguments))
        out, err = capfd.readouterr()
        return Ran(code, out, err)

    return call
