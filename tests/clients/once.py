"""Things that are made once on a machine, whichever of the test workers comes first."""

from __future__ import annotations

import fcntl
import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path


def made_once(path: Path, make: Callable[[], None]) -> None:
    """Call `make` where `path` is not there yet; other processes that want it wait until it is."""
    if path.exists():
        return
    name = f"cannery-{hashlib.sha256(bytes(path)).hexdigest()[:16]}.lock"
    with (Path(tempfile.gettempdir()) / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            make()
    assert path.exists(), f"{path} is not there although it was made"
