"""The files of a canister: the one that is named, and those beside it that it imports, directly or not.

Nothing is executed here: imports are read from the syntax tree. Names that are no files beside it are left
for the build, which knows what a canister may import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cannery.errors import CanneryError
from cannery.limits import MODULE_FILE_COUNT_MAX

_FRAMEWORK: Final = "cannery"


class SourceError(CanneryError):
    """A canister's source cannot be read; the text names the file, and the line if there is one."""


@dataclass(frozen=True, slots=True)
class CanisterSource:
    """Archive paths with their bytes, and the class to start with as `module:Class`."""

    files: dict[str, bytes]
    entry: str
    name: str


def read_source(text: str) -> CanisterSource:
    """Collect the files of `FILE.py` or `FILE.py:Class`. Raises `SourceError`."""
    path_text, _, class_name = text.partition(".py:")
    path = Path(path_text + ".py" if class_name else text)
    if path.suffix != ".py":
        raise SourceError(f"{text}: name a Python file, as in guestbook.py or guestbook.py:Guestbook")
    if not path.is_file():
        raise SourceError(f"{path}: there is no such file")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    entry_class = class_name or _only_canister(parse_file(path), path)
    return CanisterSource(collect_files(root, module), f"{module}:{entry_class}", path.stem)


def collect_files(root: Path, first: str) -> dict[str, bytes]:
    """Give the module `first` under `root` and the files that it imports, by archive path."""
    files: dict[str, bytes] = {}
    waiting, seen = [first], {first}
    while waiting:
        module = waiting.pop()
        path = _file_of(root, module)
        if path is None:
            continue
        files[path.relative_to(root).as_posix()] = path.read_bytes()
        if len(files) > MODULE_FILE_COUNT_MAX:
            raise SourceError(f"{first} imports more than {MODULE_FILE_COUNT_MAX} files")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in (*_parents(module), *imported_names(parse_file(path), package)):
            is_own = name.partition(".")[0] != _FRAMEWORK or first.partition(".")[0] == _FRAMEWORK
            if name not in seen and is_own and _shares_package(first, name):
                seen.add(name)
                waiting.append(name)
    return dict(sorted(files.items()))


def imported_names(tree: ast.AST, package: str) -> Iterator[str]:
    """Give every module that a file may mean by its imports, late ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                yield from _parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            if origin:
                yield origin
                yield from _parents(origin)
            for alias in node.names:
                yield f"{origin}.{alias.name}" if origin else alias.name


def parse_file(path: Path) -> ast.Module:
    """Read a file's syntax tree. Raises `SourceError`."""
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) else str(path)
        raise SourceError(f"{where}: {getattr(error, 'msg', error)}") from None


def _shares_package(first: str, name: str) -> bool:
    """Within the framework's own package, only the files beside the first one belong to the canister."""
    if first.partition(".")[0] != _FRAMEWORK:
        return True
    folder = first.rpartition(".")[0]
    return name.startswith(folder + ".") or name == folder


def _file_of(root: Path, module: str) -> Path | None:
    path = root.joinpath(*module.split("."))
    for candidate in (path.with_suffix(".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _parents(module: str) -> Iterator[str]:
    parts = module.split(".")
    for depth in range(1, len(parts)):
        yield ".".join(parts[:depth])


def _only_canister(tree: ast.Module, path: Path) -> str:
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(_is_canister(origin) for origin in node.bases)
    ]
    if len(names) == 1:
        return names[0]
    found = f"holds {', '.join(names)}" if names else "holds no subclass of Canister"
    raise SourceError(f"{path} {found}: say which class is meant, as in {path.name}:Guestbook")


def _is_canister(origin: ast.expr) -> bool:
    return (isinstance(origin, ast.Name) and origin.id == "Canister") or (
        isinstance(origin, ast.Attribute) and origin.attr == "Canister"
    )
