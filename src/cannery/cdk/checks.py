"""Static checks of canister sources: what would make two replays differ, or reach around the context, is
refused.

Read with `ast`, so that every finding has its file and line. This is a help against mistakes, not a sandbox:
Python canisters are trusted code (ARCHITECTURE.md, "Trust borders").
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

LIBRARY = frozenset(
    (
        "__future__",
        "abc",
        "base64",
        "binascii",
        "bisect",
        "collections",
        "copy",
        "dataclasses",
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "hashlib",
        "heapq",
        "hmac",
        "html",
        "itertools",
        "json",
        "keyword",
        "math",
        "numbers",
        "operator",
        "re",
        "statistics",
        "string",
        "struct",
        "textwrap",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
        "zlib",
    )
)
"""Modules of Python's library that give the same results in every run."""

_ADVICE = MappingProxyType(
    {
        "time": "use ctx.now_ns",
        "datetime": "use ctx.now_ns (nanoseconds since 1970)",
        "random": "use ctx.random_bytes or ctx.random_below",
        "secrets": "use ctx.random_bytes",
        "uuid": "use ctx.random_bytes(16)",
        "os": "a canister has no operating system: keep state in stable collections",
        "sys": "a canister has no process: leave it out",
        "io": "a canister has no files: keep state in stable collections",
        "pathlib": "a canister has no files: keep state in stable collections",
        "threading": "a canister runs one message at a time",
        "asyncio": "return a pending call and continue in a @continuation",
        "socket": "call another canister through ctx.call",
        "subprocess": "a canister has no processes",
        "pickle": "stable collections store typed values",
        "logging": "use ctx.log",
        "contextlib": "write try and finally",
    }
)
_BUILTINS = MappingProxyType(
    {
        "open": "a canister has no files: keep state in stable collections",
        "input": "a canister has no terminal",
        "print": "use ctx.log",
        "eval": "write the code out",
        "exec": "write the code out",
        "compile": "write the code out",
        "__import__": "use an import statement",
        "globals": "pass what is needed as arguments",
        "breakpoint": "use ctx.log",
        "hash": "differs between processes: use hashlib",
        "id": "differs between processes",
    }
)
_MUTABLE_CALLS = frozenset(
    {"list", "dict", "set", "bytearray", "deque", "defaultdict", "Counter", "OrderedDict"}
)
_KEEPERS = MappingProxyType(
    {
        "cache": "functools.cache keeps values between messages: compute them, or store them",
        "lru_cache": "functools.lru_cache keeps values between messages: compute them, or store them",
        "getcontext": "decimal's context is shared between messages: use decimal.localcontext",
        "setcontext": "decimal's context is shared between messages: use decimal.localcontext",
    }
)
_MUTABLE_NODES = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
_ORDERED_BY = frozenset({"list", "tuple", "iter", "enumerate", "zip", "map", "filter", "reversed"})


@dataclass(frozen=True, slots=True)
class Finding:
    """A place that is refused, and what to do."""

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


def check_sources(
    sources: Mapping[str, bytes], third_party: Collection[str] = frozenset()
) -> tuple[Finding, ...]:
    """Check all Python files of a module; return the findings by path and line."""
    own = {path.split("/")[0].removesuffix(".py") for path in sources if path.endswith(".py")}
    findings: list[Finding] = []
    for path in sorted(sources):
        if not path.endswith(".py"):
            continue
        try:
            tree = ast.parse(sources[path], path)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            findings.append(Finding(path, line, f"this is not valid Python: {getattr(error, 'msg', error)}"))
            continue
        checker = _Checker(path, own | set(third_party))
        findings.extend(Finding(path, line, text) for line, text in checker.check(tree))
    return tuple(sorted(set(findings), key=lambda f: (f.path, f.line, f.text)))


class _Checker:
    """Checks one file."""

    def __init__(self, path: str, known: set[str]) -> None:
        self.path = path
        self.known = known
        self.local_names: set[str] = set()
        self.shared: set[str] = set()

    def check(self, tree: ast.Module) -> Iterator[tuple[int, str]]:
        """Yield line and text of each finding."""
        self.local_names = _bound_names(tree)
        self.shared = _module_names(tree)
        for statement in tree.body:
            yield from self.global_statement(statement)
        for node in ast.walk(tree):
            yield from self.node(node)

    def node(self, node: ast.AST) -> Iterator[tuple[int, str]]:
        match node:
            case ast.Import():
                for alias in node.names:
                    yield from self.imported(node.lineno, alias.name)
            case ast.ImportFrom():
                if node.level == 0 and node.module is not None:
                    yield from self.imported_from(node)
            case ast.Global():
                yield node.lineno, f"'global {node.names[0]}': keep state in stable collections"
            case ast.AsyncFunctionDef() | ast.Await() | ast.AsyncFor() | ast.AsyncWith():
                yield (
                    node.lineno,
                    "canister code does not await: return a pending call and continue in a @continuation",
                )
            case ast.Name(ctx=ast.Load()) if node.id in _BUILTINS and node.id not in self.local_names:
                yield node.lineno, f"{node.id}: {_BUILTINS[node.id]}"
            case ast.For() | ast.comprehension():
                yield from self.iterated(node.iter)
            case ast.Call(func=ast.Name(id=name)) if name in _ORDERED_BY:
                for argument in node.args:
                    yield from self.iterated(argument)
            case ast.Call(func=ast.Attribute(attr="join")):
                for argument in node.args:
                    yield from self.iterated(argument)
            case ast.Attribute(value=ast.Name(id="functools" | "decimal"), attr=name) if name in _KEEPERS:
                yield node.lineno, _KEEPERS[name]
            case ast.Attribute(ctx=ast.Store() | ast.Del(), value=ast.Name(id=name)) if name in self.shared:
                yield node.lineno, f"{name}.{node.attr} is shared between messages: keep state in collections"
            case ast.FunctionDef() | ast.Lambda():
                for default in (*node.args.defaults, *node.args.kw_defaults):
                    if default is not None and _is_mutable(default):
                        yield default.lineno, "a mutable default is shared between messages: use None"
            case _:
                return

    def imported(self, line: int, name: str) -> Iterator[tuple[int, str]]:
        top = name.split(".")[0]
        allowed = {entry.split(".")[0] for entry in LIBRARY if "." in entry}
        if top == "cannery":
            yield from self.kit_import(line, name)
        elif top in self.known or name in LIBRARY or (top in LIBRARY and top not in allowed):
            return
        else:
            advice = _ADVICE.get(
                top, "it is not part of the module, of the allowed library or of the node's list"
            )
            yield line, f"import of {name}: {advice}"

    def imported_from(self, node: ast.ImportFrom) -> Iterator[tuple[int, str]]:
        assert node.module is not None
        if node.module in ("functools", "decimal"):
            for alias in node.names:
                if alias.name in _KEEPERS:
                    yield node.lineno, _KEEPERS[alias.name]
        dotted = [f"{node.module}.{alias.name}" for alias in node.names]
        if all(name in LIBRARY for name in dotted):
            return
        yield from self.imported(node.lineno, node.module)

    def kit_import(self, line: int, name: str) -> Iterator[tuple[int, str]]:
        """Allow what authors see of Cannery: the package itself, the kit, Candid, the fleet, the apps."""
        room = [*name.split("."), ""][1]
        if room not in ("", "cdk", "candid", "fleet", "apps", "protocol", "errors", "limits"):
            yield line, f"import of {name}: a canister sees 'cannery', its kit and its libraries alone"

    def iterated(self, node: ast.expr) -> Iterator[tuple[int, str]]:
        is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if isinstance(node, ast.Set | ast.SetComp) or (
            is_call and node.func.id in ("set", "frozenset")  # type: ignore[attr-defined] # is_call says so
        ):
            yield node.lineno, "the order of a set differs between runs: iterate over sorted(...)"

    def global_statement(self, statement: ast.stmt) -> Iterator[tuple[int, str]]:
        match statement:
            case ast.Assign(value=value):
                names = [t.id for t in statement.targets if isinstance(t, ast.Name)]
            case ast.AnnAssign(value=ast.expr() as value, target=ast.Name(id=name)):
                names = [name]
            case ast.If() | ast.Try() | ast.ClassDef():
                # What stands in a class's body is shared like the module's own.
                for inner in ast.iter_child_nodes(statement):
                    if isinstance(inner, ast.stmt):
                        yield from self.global_statement(inner)
                return
            case ast.AugAssign():
                yield statement.lineno, "a module's names are set once"
                return
            case _:
                return
        if names != ["__all__"] and _is_mutable(value):
            yield (
                statement.lineno,
                (
                    f"{', '.join(names) or 'a name'} is a mutable value of the module, which would be shared "
                    "and lost: use a tuple, frozenset or MappingProxyType, or a stable collection"
                ),
            )


def _is_mutable(value: ast.expr) -> bool:
    if isinstance(value, _MUTABLE_NODES):
        return True
    if isinstance(value, ast.Tuple):
        return any(map(_is_mutable, value.elts))
    if isinstance(value, ast.Call):
        function = value.func
        name = function.id if isinstance(function, ast.Name) else getattr(function, "attr", "")
        return name in _MUTABLE_CALLS
    return False


def _module_names(tree: ast.Module) -> set[str]:
    """Collect the classes, functions and modules named at the top of a file that nothing inside rebinds."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return (
        names
        - {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
        - {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    )


def _bound_names(tree: ast.Module) -> set[str]:
    """Collect names that the file binds itself, so that `def open(...)` as an own function is no finding."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(ctx=ast.Store()):
                names.add(node.id)
            case ast.arg():
                names.add(node.arg)
            case ast.FunctionDef() | ast.ClassDef() if node in tree.body:
                names.add(node.name)
            case ast.ImportFrom() | ast.Import():
                names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
            case _:
                continue
    return names
