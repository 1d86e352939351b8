"""What authors import from `cannery`, and that a build does not depend on the process that makes it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import cannery

SCRIPT = """
from tests.cdk.test_module_file import BUILT
print(BUILT.hash.hex())
"""


@pytest.mark.parametrize("name", cannery.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(cannery, name) is not None


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'StableQueue'"):
        cannery.StableQueue  # type: ignore[attr-defined]  # noqa: B018


def test_the_lower_floors_do_not_load_the_kit() -> None:
    script = "import sys, cannery.errors, cannery.ports; print('cannery.cdk' in sys.modules)"
    assert run(script, "0") == "False"


def test_a_build_is_the_same_under_every_hash_seed() -> None:
    assert run(SCRIPT, "1") == run(SCRIPT, "2")


def run(script: str, seed: str) -> str:
    path = os.pathsep.join(entry for entry in sys.path if entry)
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()
