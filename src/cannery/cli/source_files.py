"""The files of a canister: the one that is named, and those beside it that it imports, directly or not.

Nothing is executed here: imports are read from the syntax tree. Names that are no files beside it are left
for the build, which knows what a canister may import.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cannery.cli.problem import Problem
from cannery.limits import MODULE_FILE_COUNT_MAX

FRAMEWORK = "cannery"


@dataclass(frozen=True, slots=True)
class CanisterSource:
    """Archive paths with their bytes, and the class to start with as `module:Class`."""

    files: dict[str, bytes]
    entry: str
    name: str


def read_source(text: str) -> CanisterSource:
    """Collect the files of `FILE.py` or `FILE.py:Class`."""
    path_text, _, class_name = text.partition(".py:")
    path = Path(path_text + ".py" if class_name else text)
    if path.suffix != ".py":
        raise Problem(f"{text}: name a Python file, as in guestbook.py or guestbook.py:Guestbook")
    if not path.is_file():
        raise Problem(f"{path}: there is no such file")
    path = path.resolve()
    root = path.parent
    while (root / "__init__.py").exists():
        root = root.parent
    module = ".".join(path.relative_to(root).with_suffix("").parts)
    entry_class = class_name or _only_canister(_parse(path), path)
    return CanisterSource(_collect(root, module), f"{module}:{entry_class}", path.stem)


def read_package(root: Path, module: str, class_name: str) -> CanisterSource:
    """Collect the files of a canister that lies in a package under `root`."""
    return CanisterSource(_collect(root, module), f"{module}:{class_name}", module.rpartition(".")[2])


def _collect(root: Path, first: str) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    waiting, seen = [first], {first}
    while waiting:
        module = waiting.pop()
        path = _file_of(root, module)
        if path is None:
            continue
        files[path.relative_to(root).as_posix()] = path.read_bytes()
        if len(files) > MODULE_FILE_COUNT_MAX:
            raise Problem(f"{first} imports more than {MODULE_FILE_COUNT_MAX} files")
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in (*_parents(module), *_imports(_parse(path), package)):
            if name not in seen and name.partition(".")[0] != FRAMEWORK:
                seen.add(name)
                waiting.append(name)
    return dict(sorted(files.items()))


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


def _imports(tree: ast.Module, package: str) -> Iterator[str]:
    """List every module that a file may mean by its imports, late ones included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
                yield from _parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".") if package else []
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if base:
                yield base
                yield from _parents(base)
            for alias in node.names:
                yield f"{base}.{alias.name}" if base else alias.name


def _parse(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), str(path))
    except (SyntaxError, ValueError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, SyntaxError) else str(path)
        raise Problem(f"{where}: {getattr(error, 'msg', error)}") from None


def _only_canister(tree: ast.Module, path: Path) -> str:
    names = [
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef) and any(_is_canister(base) for base in node.bases)
    ]
    if len(names) == 1:
        return names[0]
    found = f"holds {', '.join(names)}" if names else "holds no subclass of Canister"
    raise Problem(f"{path} {found}: say which class is meant, as in {path.name}:Guestbook")


def _is_canister(base: ast.expr) -> bool:
    return (isinstance(base, ast.Name) and base.id == "Canister") or (
        isinstance(base, ast.Attribute) and base.attr == "Canister"
    )
