"""docs/placement.md: its tables are what the code does today, and its examples run."""

from __future__ import annotations

import re
from pathlib import Path

from tests.fleet.placement_tables import measured

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "placement.md"


def test_the_tables_of_the_document_are_measured() -> None:
    text = DOCUMENT.read_text()
    for table in measured():
        assert table in text, f"run python -m tests.fleet.placement_tables; measured now:\n{table}"


def test_the_examples_of_the_document_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", DOCUMENT.read_text(), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 2
    exec("".join(blocks), {})
