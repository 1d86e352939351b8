"""What docs/zones.md shows is what happens."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.docs.test_readme import play
from tests.node_under_test import ROOT, NodeUnderTest


def test_the_transcript_of_the_guide(start_node: Callable[..., NodeUnderTest], tmp_path: Path) -> None:
    play(ROOT / "docs" / "zones.md", start_node(), tmp_path)
