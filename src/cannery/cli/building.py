"""From a canister's source file to a module, for the commands that take one."""

from __future__ import annotations

from pathlib import Path

from cannery.cdk.build import BuiltModule, build_module
from cannery.cli.problem import Problem
from cannery.errors import CanneryError
from cannery.limits import MODULE_SIZE_BYTES_MAX
from cannery.node.python_runtime import SourceLoader
from cannery.node.source_files import CanisterSource, SourceError, read_source


def build_file(text: str, third_party: frozenset[str] = frozenset()) -> BuiltModule:
    """Build `FILE.py` or `FILE.py:Class`; what is wrong comes as one line per finding, joined."""
    return build_source(read_canister(text), third_party)


def read_canister(text: str) -> CanisterSource:
    """Collect the files of `FILE.py` or `FILE.py:Class`."""
    try:
        return read_source(text)
    except SourceError as error:
        raise Problem(str(error)) from None


def build_source(source: CanisterSource, third_party: frozenset[str] = frozenset()) -> BuiltModule:
    """Build collected files; raise `Problem` with what the checks found."""
    loader = SourceLoader(third_party)
    try:
        return build_module(source.files, source.entry, loader.load, third_party)
    except CanneryError as error:
        raise Problem(f"{source.name}: {error}") from None
    finally:
        loader.discard()


def read_module(text: str) -> bytes:
    """Give the module of a source file, built now, or of a `.wasm` (or `.wasm.gz`) file as it is."""
    if not text.endswith((".wasm", ".wasm.gz")):
        return build_file(text).module
    path = Path(text)
    if not path.is_file():
        raise Problem(f"{path}: there is no such file")
    if path.stat().st_size > MODULE_SIZE_BYTES_MAX:
        raise Problem(f"{path} is larger than a module may be ({MODULE_SIZE_BYTES_MAX} bytes)")
    return path.read_bytes()
