"""Which files belong to a canister: those that it imports from beside it, whatever the form of the import."""

from __future__ import annotations

from pathlib import Path

import pytest

from cannery.node.source_files import SourceError, collect_files, read_source

CANISTER = "from cannery import Canister\nclass Book(Canister):\n    pass\n"


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_one_file(tmp_path: Path) -> None:
    write(tmp_path, {"book.py": CANISTER, "other.py": "x = 1\n"})
    source = read_source(str(tmp_path / "book.py"))
    assert (source.entry, source.name, list(source.files)) == ("book:Book", "book", ["book.py"])


def test_imports_are_followed_late_and_indirect_ones_too(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "book.py": "import texts\nfrom shapes.round import Circle\n"
            + CANISTER
            + "    def m(self):\n        from late import x\n",
            "texts.py": "import deeper, json\n",
            "deeper.py": "",
            "late.py": "",
            "unused.py": "",
            "shapes/__init__.py": "",
            "shapes/round.py": "from . import lines\nfrom .colour import red\n",
            "shapes/lines.py": "",
            "shapes/colour.py": "",
            "shapes/square.py": "",
        },
    )
    assert list(read_source(str(tmp_path / "book.py")).files) == [
        "book.py",
        "deeper.py",
        "late.py",
        "shapes/__init__.py",
        "shapes/colour.py",
        "shapes/lines.py",
        "shapes/round.py",
        "texts.py",
    ]


def test_a_file_of_a_package_brings_the_package(tmp_path: Path) -> None:
    write(
        tmp_path,
        {"pkg/__init__.py": "", "pkg/book.py": "from .types import T\n" + CANISTER, "pkg/types.py": ""},
    )
    source = read_source(str(tmp_path / "pkg" / "book.py"))
    assert source.entry == "pkg.book:Book"
    assert list(source.files) == ["pkg/__init__.py", "pkg/book.py", "pkg/types.py"]


def test_a_package_under_a_given_root(tmp_path: Path) -> None:
    write(tmp_path, {"__init__.py": "", "pkg/__init__.py": "", "pkg/book.py": CANISTER})
    assert list(collect_files(tmp_path, "pkg.book")) == ["pkg/__init__.py", "pkg/book.py"]


def test_the_class_is_named_where_there_are_several(tmp_path: Path) -> None:
    write(tmp_path, {"two.py": CANISTER + CANISTER.replace("Book", "Shelf")})
    with pytest.raises(SourceError, match=r"holds Book, Shelf.*two\.py:"):
        read_source(str(tmp_path / "two.py"))
    assert read_source(f"{tmp_path}/two.py:Shelf").entry == "two:Shelf"


@pytest.mark.parametrize(
    ("name", "text", "complaint"),
    [
        ("none.py", "x = 1\n", "no subclass of Canister"),
        ("bad.py", "def\n", r"bad\.py:1"),
        ("null.py", "x = '\0'\n", r"null\.py"),
    ],
)
def test_what_is_no_canister_is_refused(tmp_path: Path, name: str, text: str, complaint: str) -> None:
    write(tmp_path, {name: text})
    with pytest.raises(SourceError, match=complaint):
        read_source(str(tmp_path / name))


def test_a_missing_file_and_a_wrong_kind(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        read_source(str(tmp_path / "nothing.py"))
    with pytest.raises(SourceError, match="name a Python file"):
        read_source("book.txt")
