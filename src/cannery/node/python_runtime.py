"""Loaded Python programs: behind `ports.Programs`, from module files; and the loader that a build uses.

Each module hash is loaded once, under its own private package, and the least recently used program is let go
when there are too many. Loading executes the module's top level, with the imports that `cdk` allows and the
third-party packages that the operator named; what goes wrong is an error that names file and line.

It runs no methods and stores nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Mapping
from hashlib import sha256
from typing import TypeVar

from cannery.cdk.build import BuildError
from cannery.cdk.checks import LIBRARY
from cannery.cdk.declare import Canister
from cannery.cdk.failure import failure_text
from cannery.cdk.module_file import ModuleError, ModuleFile, parse_module
from cannery.cdk.program import PythonProgram
from cannery.errors import CanneryError, Reject, RejectCode
from cannery.limits import MODULE_LOAD_CPU_NS_MAX, PROGRAM_COUNT_MAX
from cannery.node.private_package import PrivatePackage
from cannery.ports import Program, Watch

T = TypeVar("T")

_KIT_ROOMS = frozenset({"cdk", "candid", "fleet", "apps", "protocol", "errors", "limits"})
_LIBRARY_TOPS = frozenset(name.partition(".")[0] for name in LIBRARY if "." in name)


class LoadError(CanneryError):
    """A module's own code does not load; the text says what and where."""


class PythonPrograms:
    """The loaded programs of one process, at most `count_max` at a time."""

    def __init__(
        self,
        third_party: frozenset[str] = frozenset(),
        count_max: int = PROGRAM_COUNT_MAX,
        watch: Watch | None = None,
        condemned: Container[bytes] = frozenset(),
    ) -> None:
        """`watch` limits the time that loading takes; `condemned`: hashes whose loading ended a process."""
        self._is_allowed = allowed_imports(third_party)
        self._count_max = count_max
        self._watch = watch
        self._condemned = condemned
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
            package, program = self._load_watched(module_hash, parse_module(module))
        except (ModuleError, LoadError) as error:
            text = f"module {module_hash.hex()[:16]} cannot be loaded: {error}"
            raise Reject(RejectCode.CANISTER_ERROR, text, "CNRY0101") from error
        while len(self._loaded) >= self._count_max:
            _, (oldest, _) = self._loaded.popitem(last=False)
            oldest.discard()
        self._loaded[module_hash] = package, program
        return program

    def _load_watched(self, module_hash: bytes, parsed: ModuleFile) -> tuple[PrivatePackage, PythonProgram]:
        if module_hash in self._condemned:
            raise LoadError("loading it brought the node's process down: it takes too much time or memory")
        package = PrivatePackage(_private_name(module_hash, "module"), parsed.files(), self._is_allowed)
        if self._watch is None:
            return package, _load(package, parsed.manifest.entry, PythonProgram)
        has_stopped = False
        self._watch.begin(module_hash, MODULE_LOAD_CPU_NS_MAX)
        try:
            program = _load(package, parsed.manifest.entry, PythonProgram)
        finally:
            has_stopped = self._watch.end()
        if has_stopped:
            package.discard()
            raise LoadError("it takes too much CPU time")
        return package, program

    def close(self) -> None:
        """Let go of every program."""
        for package, _ in self._loaded.values():
            package.discard()
        self._loaded.clear()

    def count(self) -> int:
        return len(self._loaded)


class SourceLoader:
    """Loads sources for `cdk.build.build_module`; what it loaded stays until `discard`."""

    def __init__(self, third_party: frozenset[str] = frozenset()) -> None:
        self._is_allowed = allowed_imports(third_party)
        self._packages: list[PrivatePackage] = []

    def load(self, sources: Mapping[str, bytes], entry: str) -> type[Canister]:
        """Load a canister class under a private name that follows from its sources. Raises `BuildError`."""
        digest = sha256()
        for path in sorted(sources):
            digest.update(b"%d:%d:" % (len(path), len(sources[path])) + path.encode() + sources[path])
        package = PrivatePackage(_private_name(digest.digest(), "build"), sources, self._is_allowed)
        try:
            found = _load(package, entry, lambda cls: cls)
        except LoadError as error:
            raise BuildError(str(error)) from error
        self._packages.append(package)
        return found

    def discard(self) -> None:
        """Let go of all that was loaded."""
        for package in self._packages:
            package.discard()
        self._packages.clear()


def source_loader(
    third_party: frozenset[str] = frozenset(),
) -> Callable[[Mapping[str, bytes], str], type[Canister]]:
    """Give the loader that `cdk.build.build_module` wants, where nobody needs to discard what it loads."""
    return SourceLoader(third_party).load


def allowed_imports(third_party: frozenset[str]) -> Callable[[str], bool]:
    """Give the rule of what canister code may import: as in `cdk.checks`, and packages that the operator
    named.
    """

    def is_allowed(name: str) -> bool:
        top, _, rest = name.partition(".")
        if top == "cannery":
            return not rest or rest.partition(".")[0] in _KIT_ROOMS
        if top in third_party or name in LIBRARY:
            return True
        return top in LIBRARY and top not in _LIBRARY_TOPS

    return is_allowed


def _load(package: PrivatePackage, entry: str, make: Callable[[type[Canister]], T]) -> T:
    try:
        found = package.load_class(entry)
        if not issubclass(found, Canister):
            raise ImportError(f"{entry} is not a subclass of cannery.Canister")
        return make(found)
    except BaseException as error:
        package.discard()
        raise LoadError(failure_text(error)) from error


def _private_name(digest: bytes, kind: str) -> str:
    return f"_cannery_{kind}_{digest.hex()[:32]}"
