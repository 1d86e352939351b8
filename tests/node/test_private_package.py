"""Archives under private names: versions side by side, late imports, the allow-list, no traces after
discard.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator

import pytest

from cannery.node.private_package import PrivatePackage

ALLOWED = {"dataclasses", "typing", "__future__", "cannery", "cannery.errors"}


@pytest.fixture(autouse=True)
def _no_traces() -> Iterator[None]:
    before = set(sys.modules)
    yield
    assert {name for name in set(sys.modules) - before if name.startswith("_t")} == set()


def package(private_name: str, **files: str) -> PrivatePackage:
    sources = {
        path.replace("__", "/") + ".py": textwrap.dedent(text).encode() for path, text in files.items()
    }
    sources = {path.replace("/init/", "__init__"): data for path, data in sources.items()}
    return PrivatePackage(private_name, sources, lambda module: module in ALLOWED)


LATE = """
    class C:
        def run(self):
            import part
            from part import VALUE
            return part.VALUE, VALUE
"""


def test_two_versions_run_side_by_side_with_late_imports() -> None:
    one, two = (package(f"_t{n}", main=LATE, part=f"VALUE = {n}") for n in (1, 2))
    first, second = one.load_class("main:C"), two.load_class("main:C")
    assert second().run() == (2, 2)
    assert first().run() == (1, 1)
    assert "part" not in sys.modules
    assert "_t1.part" in sys.modules
    one.discard()
    assert not [name for name in sys.modules if name.startswith("_t1")]
    assert first().run() == (1, 1)
    two.discard()


def test_packages_relative_and_absolute_imports() -> None:
    files = {
        "pkg/__init__.py": b"from .a import A\nNAME = __name__",
        "pkg/a.py": b"from . import b\nfrom pkg.sub.deep import D\nclass A: v = b.V + D",
        "pkg/b.py": b"V = 1",
        "pkg/sub/deep.py": b"from ..b import V\nimport pkg.b\nD = V + pkg.b.V",
    }
    loaded = PrivatePackage("_t", files, lambda name: name in ALLOWED)
    assert loaded.load_class("pkg:A").v == 3
    assert loaded.load_class("pkg.a:A") is loaded.load_class("pkg:A")
    loaded.discard()


def test_an_archive_may_hold_part_of_a_package_that_is_there() -> None:
    files = {"cannery/own/part.py": b"from cannery.errors import Trap\nclass C(Trap): pass"}
    files["cannery/own/main.py"] = b"from cannery.own.part import C as Base\nclass C(Base): pass"
    loaded = PrivatePackage("_t", files, lambda name: name in ALLOWED)
    found = loaded.load_class("cannery.own.main:C")
    assert found.__mro__[2].__module__ == "cannery.errors"
    assert found.__module__ == "_t.cannery.own.main"
    loaded.discard()


@pytest.mark.parametrize(
    "line", ["import os", "from time import time", "import cannery.node", "import no_such"]
)
def test_what_is_not_allowed_is_refused(line: str) -> None:
    with pytest.raises(ImportError, match="not allowed"):
        package("_t", main=line).load_class("main:C")


def test_late_forbidden_imports_and_calls_are_refused() -> None:
    late = package(
        "_t",
        main="""
        class C:
            def a(self): import os
            def b(self): __import__("os")
            def c(self): open("/etc/passwd")
            def d(self): print("x")
        """,
    )
    instance = late.load_class("main:C")()
    for method in (instance.a, instance.b):
        with pytest.raises(ImportError, match="'os' is not allowed"):
            method()
    for method in (instance.c, instance.d):
        with pytest.raises(RuntimeError, match="is not there"):
            method()
    late.discard()


def test_dataclasses_and_forward_references_work() -> None:
    loaded = package(
        "_t",
        main="""
        from __future__ import annotations
        from dataclasses import dataclass
        from typing import ClassVar, get_type_hints
        @dataclass(frozen=True, slots=True)
        class P:
            x: int
            k: ClassVar[int] = 3
            def hints(self): return get_type_hints(P)
        """,
    )
    assert loaded.load_class("main:P")(1).hints()["x"] is int
    loaded.discard()


def test_a_module_that_fails_leaves_no_trace_and_names_its_line() -> None:
    bad = package("_t", main="import part", part="x = 1\ny = undefined\n")
    with pytest.raises(NameError) as caught:
        bad.load_class("main:C")
    frame = caught.traceback[-1].frame
    assert (frame.code.raw.co_filename, caught.traceback[-1].lineno + 1) == ("part.py", 2)
    with pytest.raises(ImportError, match="no class 'C'"):
        package("_t", main="C = 1").load_class("main:C")
    with pytest.raises(ImportError, match="no module 'x'"):
        package("_t", main="C = 1").load_class("x:C")


@pytest.mark.parametrize(
    "value",
    ["itertools.count()", "iter((1, 2))", "(n for n in (1, 2))", "list((1,))", "dict(a=1)", "{1} | {2}"],
)
def test_what_changes_as_it_is_used_cannot_stand_in_a_module(value: str) -> None:
    source = f"import itertools\nSHARED = {value}\nclass C: pass\n"
    made = PrivatePackage("_tshared", {"main.py": source.encode()}, lambda module: module == "itertools")
    with pytest.raises(ImportError, match=r"SHARED is a .*from one message to the next"):
        made.load_class("main:C")
    made.discard()
