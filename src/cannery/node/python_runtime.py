"""Loaded Python programs: behind `ports.Programs`, from module files; and the loader that a build uses.

Each module hash is loaded once, under its own private package, and the least recently used program is let go
when there are too many. Loading executes the module's top level, with the imports that `cdk` allows and the
third-party packages that the operator named; what goes wrong is a `Reject` that names file and line.

It runs no methods and stores nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from hashlib import sha256

from cannery.cdk.build import is_allowed_import
from cannery.cdk.canister import Canister
from cannery.cdk.module_file import ModuleError, parse_module
from cannery.cdk.program import PythonProgram, failure_text
from cannery.errors import Reject, RejectCode
from cannery.limits import PROGRAM_COUNT_MAX
from cannery.node.private_package import PrivatePackage
from cannery.ports import Program, Stopped


class PythonPrograms:
    """The loaded programs of one process, at most `count_max` at a time."""

    def __init__(self, third_party: frozenset[str] = frozenset(), count_max: int = PROGRAM_COUNT_MAX) -> None:
        self._is_allowed = allowed_imports(third_party)
        self._count_max = count_max
        self._loaded: OrderedDict[bytes, tuple[PrivatePackage, PythonProgram]] = OrderedDict()

    def loaded(self, module_hash: bytes) -> Program | None:
        found = self._loaded.get(module_hash)
        if found is None:
            return None
        self._loaded.move_to_end(module_hash)
        return found[1]

    def load(self, module_hash: bytes, module: bytes) -> Program:
        found = self.loaded(module_hash)
        if found is not None:
            return found
        try:
            parsed = parse_module(module)
        except ModuleError as error:
            raise _load_reject(module_hash, str(error)) from error
        package = PrivatePackage(_private_name(module_hash), parsed.files(), self._is_allowed)
        try:
            program = PythonProgram(_canister_class(package, parsed.manifest.entry))
        except Stopped:
            package.discard()
            raise
        except BaseException as error:
            package.discard()
            raise _load_reject(module_hash, failure_text(error)) from error
        while len(self._loaded) >= self._count_max:
            _, (oldest, _) = self._loaded.popitem(last=False)
            oldest.discard()
        self._loaded[module_hash] = package, program
        return program

    def close(self) -> None:
        """Let go of every program."""
        for package, _ in self._loaded.values():
            package.discard()
        self._loaded.clear()

    def count(self) -> int:
        return len(self._loaded)


class BuildLoader:
    """Loads sources for `cdk.build.build_module`; `discard` lets go of all that was loaded."""

    def __init__(self, third_party: frozenset[str] = frozenset()) -> None:
        self._is_allowed = allowed_imports(third_party)
        self._packages: list[PrivatePackage] = []

    def load(self, sources: Mapping[str, bytes], entry: str) -> type[Canister]:
        """Load a canister class under a private name that follows from its sources."""
        digest = sha256(b"".join(path.encode() + b"\0" + sources[path] for path in sorted(sources)))
        package = PrivatePackage(_private_name(digest.digest(), "build"), sources, self._is_allowed)
        found = _canister_class(package, entry)
        self._packages.append(package)
        return found

    def discard(self) -> None:
        """Let go of all that was loaded."""
        for package in self._packages:
            package.discard()
        self._packages.clear()


def allowed_imports(third_party: frozenset[str]) -> Callable[[str], bool]:
    """Give the rule of what canister code may import: the kit's list, and packages that the operator
    named.
    """

    def is_allowed(name: str) -> bool:
        return is_allowed_import(name, third_party)

    return is_allowed


def _canister_class(package: PrivatePackage, entry: str) -> type[Canister]:
    found = package.load_class(entry)
    if not issubclass(found, Canister):
        package.discard()
        raise ImportError(f"{entry!r} is not a subclass of cannery.Canister")
    return found


def _private_name(digest: bytes, kind: str = "module") -> str:
    return f"_cannery_{kind}_{digest.hex()[:32]}"


def _load_reject(module_hash: bytes, text: str) -> Reject:
    return Reject(
        RejectCode.CANISTER_ERROR, f"module {module_hash.hex()[:16]} cannot be loaded: {text}", "CNRY0101"
    )
