"""Each app that was released can be followed by the present one: its clients and its stored state go on."""

from __future__ import annotations

import pytest

from cannery.replica.management.compare import ModuleCompareArgs, ModuleDifferences
from cannery.testing import Node
from tests.apps.released import APPS, present, releases


@pytest.mark.parametrize("name", [name for name in APPS if releases(name)])
def test_an_app_can_follow_its_last_release(name: str) -> None:
    released = releases(name)[-1]
    with Node() as node:
        before = node.manage("cannery_module_add", released.read_bytes())
        after = node.manage("cannery_module_add", present(name))
        found = node.manage("cannery_module_compare", ModuleCompareArgs(before, after))  # type: ignore[arg-type]  # hashes
    assert isinstance(found, ModuleDifferences)
    what_to_do = (
        f"{name} cannot follow {released.name}: keep what clients and stored values need; where the break "
        f"is wanted, take the present one as released: python -m tests.apps.released {name}"
    )
    assert (found.interface, found.state) == (None, None), what_to_do
