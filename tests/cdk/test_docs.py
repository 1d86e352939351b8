"""The canisters in docs/canisters.md build."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cannery.cdk.build import build_module
from tests.cdk.test_module_file import load

TEXT = (Path(__file__).parent.parent.parent / "docs" / "canisters.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_a_canister_of_the_guide_builds(block: str) -> None:
    (name,) = re.findall(r"^class (\w+)\(Canister\)", block, re.MULTILINE)
    built = build_module({f"guide_{name}.py": block.encode()}, f"guide_{name}:{name}", load)
    assert "service : {" in built.did
