"""The source of a canister class that stands anywhere, a test file included, as a module's files.

A class in a file of its own brings that file and what it imports beside it. In a test file there is more than
a canister may have (pytest, the test functions): then only the class comes, with the definitions and imports
that it needs, each on its own line, so that an error names the line of the real file.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path

from cannery.cdk.checks import check_sources
from cannery.cdk.declare import Canister
from cannery.node.source_files import CanisterSource, SourceError, collect_files, parse_file, read_source


def source_of(cls: type[Canister]) -> CanisterSource:
    """Find a class's source. Raises `SourceError`."""
    try:
        path = Path(inspect.getsourcefile(cls) or "").resolve()
    except TypeError:
        path = Path()
    if not path.is_file():
        raise SourceError(f"the source of {cls.__qualname__} is not in a file: install it from a file")
    tree = parse_file(path)
    if "." not in cls.__qualname__:
        whole = read_source(f"{path}:{cls.__name__}")
        if not check_sources(whole.files):
            return whole
    return _part_of(cls, path, tree)


def _part_of(cls: type[Canister], path: Path, tree: ast.Module) -> CanisterSource:
    """Cut out a class with what it needs."""
    chain = _find(tree, cls.__qualname__.split("."))
    if chain is None:
        raise SourceError(f"{path}: class {cls.__qualname__} is not found; install it from a file")
    scopes: list[ast.stmt | ast.Module] = [tree, *chain[:-1]]
    defined: dict[str, ast.stmt] = {}
    for scope in scopes:
        for statement in _body(scope):
            for name in _bound(statement):
                defined[name] = statement
    needed: dict[int, ast.stmt] = {}
    waiting: list[ast.stmt] = [chain[-1], *_future_imports(tree)]
    while waiting:
        statement = waiting.pop()
        if id(statement) in needed:
            continue
        needed[id(statement)] = statement
        waiting += [defined[name] for name in sorted(_used(statement)) if name in defined]
    text = _keep(path.read_text(), list(needed.values()))
    files = {f"{path.stem}.py": text.encode()}
    for name, data in collect_files(path.parent, path.stem).items():
        if name != f"{path.stem}.py" and _imports(text, name):
            files[name] = data
    return CanisterSource(files, f"{path.stem}:{cls.__name__}", path.stem)


def _find(tree: ast.Module, parts: list[str]) -> list[ast.stmt] | None:
    """Give the nested definitions that lead to a qualified name."""
    names = [part for part in parts if part != "<locals>"]
    chain: list[ast.stmt] = []
    scope: ast.stmt | ast.Module = tree
    for name in names:
        found = [
            node
            for node in _body(scope)
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name
        ]
        if not found:
            return None
        scope = found[-1]
        chain.append(scope)
    return chain


def _body(scope: ast.stmt | ast.Module) -> Iterator[ast.stmt]:
    """Give the statements of a scope, those inside `if` and `try` too."""
    for statement in getattr(scope, "body", []):
        yield statement
        if isinstance(statement, ast.If | ast.Try):
            yield from _body(statement)


def _bound(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.ClassDef() | ast.FunctionDef():
            yield statement.name
        case ast.Import() | ast.ImportFrom():
            for alias in statement.names:
                yield (alias.asname or alias.name).partition(".")[0]
        case ast.Assign():
            for target in statement.targets:
                yield from (node.id for node in ast.walk(target) if isinstance(node, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name


def _used(statement: ast.stmt) -> set[str]:
    names = {
        node.id
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }
    for node in ast.walk(statement):
        # A forward reference in a hint is a string.
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.isidentifier():
            names.add(node.value)
    return names


def _future_imports(tree: ast.Module) -> list[ast.stmt]:
    return [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == "__future__"]


def _keep(text: str, statements: list[ast.stmt]) -> str:
    """Keep the lines of statements and empty the others; nested ones move to the left."""
    lines = text.splitlines()
    kept = [""] * len(lines)
    for statement in statements:
        decorators = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(node.lineno for node in decorators)]) - 1
        last = statement.end_lineno or statement.lineno
        chunk = textwrap.dedent("\n".join(lines[first:last])).split("\n")
        kept[first:last] = chunk
    return "\n".join(kept).rstrip() + "\n"


def _imports(text: str, name: str) -> bool:
    module = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import) and any(alias.name.startswith(module) for alias in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(module):
            return True
    return False
