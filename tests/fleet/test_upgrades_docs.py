"""docs/upgrades.md names every order, rule, state, alarm and limit of rollouts, with today's values."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from cannery import limits
from cannery.cdk.describe import describe
from cannery.fleet.rollout import RolloutRule
from cannery.fleet.rollout_types import RolloutArgs, RolloutState
from tests.fleet.hamlet import Hamlet

ROOT = Path(__file__).parent.parent.parent
TEXT = (ROOT / "docs" / "upgrades.md").read_text()
RUNBOOKS = (ROOT / "docs" / "runbooks.md").read_text()
SOURCES = (ROOT / "src" / "cannery" / "fleet").glob("*.py")
METHODS = [
    name for name in describe(Hamlet).methods if re.match("fleet_(rollout|release|retry|failures)", name)
]


@pytest.mark.parametrize("name", METHODS)
def test_each_order_stands_in_the_page(name: str) -> None:
    assert f"`{name}(" in TEXT


@pytest.mark.parametrize("name", [name for name in vars(limits) if re.match("ROLLOUT_|RELEASE_", name)])
def test_each_limit_stands_in_the_page_with_its_value(name: str) -> None:
    (line,) = [line for line in TEXT.splitlines() if f"`{name}`" in line]
    value = getattr(limits, name)
    shown = f"{value // 1024} KiB" if "BYTES" in name else f"{value:,}"
    assert re.search(rf"(?<![\d,]){shown}(?![\d,]*\d)", line), line


def test_each_rule_stands_in_the_page_with_its_default() -> None:
    for field in fields(RolloutRule):  # type: ignore[arg-type]  # @record makes a dataclass
        default = field.default
        if field.name.endswith("_ns"):
            shown = "0" if default == 0 else f"{default // 10**9} s"
        else:
            shown = str(default).lower()
        assert f"| `{field.name}` | {shown} |" in TEXT
    for field in fields(RolloutArgs):  # type: ignore[arg-type]
        assert f"| `{field.name}` |" in TEXT


def test_each_state_and_alarm_stands_in_the_page() -> None:
    for state in RolloutState.__candid_cases__:
        assert f"`{state}`" in TEXT
    source = "".join(path.read_text() for path in SOURCES if path.stem in ("waves", "rollouts"))
    kinds = set(re.findall(r'alarms\.begin\(\s*ctx, "(\w+)"', source))
    assert len(kinds) >= 4
    for kind in kinds:
        assert f"| `{kind}` |" in TEXT
        assert f"\n## {kind}\n" in RUNBOOKS
