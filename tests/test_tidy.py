"""The rules of the house that no other tool checks: sizes, first lines, names, doors for exceptions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "cannery"
MODULES = sorted(SOURCE.rglob("*.py"))
MODULE_LINES_MAX = 600
FUNCTION_LINES_MAX = 60
FORBIDDEN_NAMES = {"utils", "helpers", "common", "manager", "base"}
UNFINISHED = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error")
ASYNC_ROOMS = {"node", "client", "cli"}
# Everything is caught where code of a canister's author runs or is loaded, around an HTTP request, and where
# the store's engine is called, which has no error class of its own.
CATCH_ALL_DOORS = {
    "replica/run.py": 1,
    "cdk/program.py": 2,
    "cdk/delivery.py": 1,
    "cdk/failure.py": 1,
    "node/python_runtime.py": 1,
    "node/gateway/app.py": 1,
    "node/store_rocksdb.py": 1,
    "node/outcall_fetch.py": 1,
}


def _functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


@pytest.fixture(params=MODULES, ids=_name)
def module(request: pytest.FixtureRequest) -> Path:
    path = request.param
    assert isinstance(path, Path)
    return path


def test_a_module_says_what_it_is(module: Path) -> None:
    assert ast.get_docstring(ast.parse(module.read_text())), f"{_name(module)} has no docstring"


def test_modules_and_functions_keep_their_size(module: Path) -> None:
    text = module.read_text()
    assert text.count("\n") <= MODULE_LINES_MAX, f"{_name(module)} is longer than {MODULE_LINES_MAX} lines"
    for function in _functions(ast.parse(text)):
        length = (function.end_lineno or function.lineno) - function.lineno + 1
        assert length <= FUNCTION_LINES_MAX, f"{_name(module)}:{function.name} has {length} lines"


def test_nothing_is_left_unfinished(module: Path) -> None:
    text = module.read_text()
    for word in UNFINISHED:
        assert word not in text, f"{_name(module)} contains {word}"


def test_rooms_and_modules_have_names(module: Path) -> None:
    for part in module.relative_to(SOURCE).with_suffix("").parts:
        assert part not in FORBIDDEN_NAMES, f"{_name(module)}: {part} says nothing"


def test_only_the_shell_is_async(module: Path) -> None:
    if module.relative_to(SOURCE).parts[0] in ASYNC_ROOMS:
        return
    for function in _functions(ast.parse(module.read_text())):
        assert not isinstance(function, ast.AsyncFunctionDef), f"{_name(module)}:{function.name} is async"


def _catches_all(handler: ast.ExceptHandler) -> bool:
    """Tell whether a handler takes everything and keeps it; one that cleans up and raises again does not."""
    last = handler.body[-1]
    if isinstance(last, ast.Raise) and last.exc is None:
        return False
    return handler.type is None or (
        isinstance(handler.type, ast.Name) and handler.type.id in {"Exception", "BaseException"}
    )


def test_everything_is_caught_at_two_doors_only(module: Path) -> None:
    handlers = [
        node
        for node in ast.walk(ast.parse(module.read_text()))
        if isinstance(node, ast.ExceptHandler) and _catches_all(node)
    ]
    assert len(handlers) <= CATCH_ALL_DOORS.get(_name(module), 0), (
        f"{_name(module)} catches everything at lines {[h.lineno for h in handlers]}"
    )


def test_every_dependency_has_its_line() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + [
        d for group in project["optional-dependencies"].values() for d in group
    ]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    for requirement in wanted:
        name = requirement.split(">")[0].split("=")[0].split("[")[0]
        assert f"| {name} |" in text, f"docs/dependencies.md has no line for {name}"


def test_every_limit_is_named_once() -> None:
    names = [
        target.id
        for statement in ast.parse((SOURCE / "limits.py").read_text()).body
        if isinstance(statement, ast.Assign)
        for target in statement.targets
        if isinstance(target, ast.Name)
    ]
    assert sorted(names) == sorted(set(names))


def test_there_are_benches_and_all_of_them_load() -> None:
    from bench.__main__ import BENCHES

    assert BENCHES
