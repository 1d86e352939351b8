"""The Python of docs/client.md runs as it stands."""

from __future__ import annotations

import re

import pytest

from cannery.client.identity_store import IdentityStore
from tests.conftest import Cli
from tests.node_under_test import ROOT, NodeUnderTest

DOCS = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")


def test_the_examples_run(cli: Cli, running_node: NodeUnderTest, capfd: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCS, re.DOTALL)
    assert len(blocks) == 4
    assert cli("identity", "new", "ann").code == 0
    deployed = cli("deploy", str(ROOT / "examples" / "guestbook.py"), node=running_node)
    assert deployed.code == 0, deployed.err
    names: dict[str, object] = {}
    for block in blocks:
        exec(block.replace("http://127.0.0.1:4943", running_node.url), names)
    assert "'text': 'hello'" in capfd.readouterr().out
    acting = names["agent"]
    assert acting.principal == IdentityStore().load("ann").principal  # type: ignore[attr-defined]
