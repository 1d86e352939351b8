"""The apps' modules as they were last released, and how the present ones become the next release:

python -m tests.apps.released user user_index

writes tests/formats/released/NAME-N.wasm with the next number. Releases stay there; the newest counts.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cannery.cdk.build import build_module
from cannery.node.python_runtime import SourceLoader
from cannery.node.source_files import read_source

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "tests" / "formats" / "released"
APPS = {
    "user": "src/cannery/apps/users/user.py",
    "user_index": "src/cannery/apps/users/user_index.py",
    "zone": "src/cannery/apps/zones/zone.py",
    "zone_factory": "src/cannery/apps/zones/zone_factory.py",
    "bucket": "src/cannery/apps/store/bucket.py",
    "store_index": "src/cannery/apps/store/store_index.py",
}


def present(name: str) -> bytes:
    """Build an app's module as it is now."""
    source = read_source(str(ROOT / APPS[name]))
    loader = SourceLoader(frozenset())
    try:
        return build_module(source.files, source.entry, loader.load, frozenset()).module
    finally:
        loader.discard()


def releases(name: str) -> list[Path]:
    """List the releases of an app, oldest first."""
    found = [path for path in FOLDER.glob(f"{name}-*.wasm") if path.stem.rpartition("-")[0] == name]
    return sorted(found, key=lambda path: int(path.stem.rpartition("-")[2]))


def main() -> None:
    for name in sys.argv[1:]:
        number = len(releases(name)) + 1
        path = FOLDER / f"{name}-{number}.wasm"
        path.write_bytes(present(name))
        print(path)


if __name__ == "__main__":
    main()
