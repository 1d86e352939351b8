"""What canister sources may not use is refused with file, line and what to do instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from cannery.cdk.checks import check_sources

EXAMPLES = Path(__file__).parent.parent.parent / "examples"

REFUSED = [
    ("import time", "import of time: use ctx.now_ns"),
    ("from time import time", "import of time: use ctx.now_ns"),
    ("import datetime", "use ctx.now_ns"),
    ("import random", "use ctx.random_bytes"),
    ("from os import path", "no operating system"),
    ("import os.path", "no operating system"),
    ("import threading", "one message at a time"),
    ("import asyncio", "return a pending call"),
    ("import socket", "ctx.call"),
    ("import subprocess", "no processes"),
    ("import pickle", "typed values"),
    ("import urllib.request", "not part of the module"),
    ("import numpy", "not part of the module"),
    ("def f():\n    import time", "use ctx.now_ns"),
    ("import cannery.node.service", "a canister sees"),
    ("from cannery.replica import execute", "a canister sees"),
    ("x = []", "x is a mutable value of the module"),
    ("class Q:\n    x = []", "x is a mutable value of the module"),
    ("x = ((), ([],))", "mutable value"),
    ("x: dict[str, int] = {}", "mutable value"),
    ("x = set()", "mutable value"),
    ("x = [i for i in (1, 2)]", "mutable value"),
    ("from collections import defaultdict\nx = defaultdict(int)", "mutable value"),
    ("if True:\n    x = {}", "mutable value"),
    ("x = 1\nx += 1", "set once"),
    ("def f():\n    global x\n    x = 1", "'global x'"),
    ("open('a')", "open: a canister has no files"),
    ("def f():\n    return eval('1')", "eval: write the code out"),
    ("print(1)", "print: use ctx.log"),
    ("__import__('os')", "__import__: use an import statement"),
    ("x = hash('a')", "hash: differs between processes"),
    ("f = open", "open: a canister has no files"),
    ("async def f(): ...", "does not await"),
    ("for x in {1, 2}:\n    pass", "the order of a set differs"),
    ("x = list({1, 2})", "the order of a set differs"),
    ("x = tuple(set((1, 2)))", "the order of a set differs"),
    ("y = tuple(i for i in frozenset((1, 2)))", "the order of a set differs"),
    ("import functools\n@functools.lru_cache\ndef f(): ...", "keeps values between messages"),
    ("from functools import cache", "keeps values between messages"),
    ("from decimal import getcontext", "use decimal.localcontext"),
    ("def f(x=[]): ...", "a mutable default is shared"),
    ("f = lambda *, x={}: x", "a mutable default is shared"),
    ("class A: ...\ndef f():\n    A.x = 1", "A.x is shared between messages"),
    ("import math\nmath.pi = 3", "math.pi is shared between messages"),
    ("x = ','.join({'a', 'b'})", "the order of a set differs"),
    ("def f(:", "not valid Python"),
    ("\0", "not valid Python"),
]

ALLOWED = """
from __future__ import annotations
import dataclasses, enum, functools, hashlib, itertools, json, math, re, typing
import collections.abc
from collections import OrderedDict
from decimal import Decimal
from urllib.parse import quote
from types import MappingProxyType
import cannery
from cannery import Canister, nat64
from cannery.cdk.management import Management
from . import beside
from beside import thing
import package.inner
import orjson

__all__ = ["NAMES"]
NAMES = ("a", "b")
KINDS = frozenset({"a"})
TABLE = MappingProxyType({"a": 1})
PATTERN = re.compile("a")

def hash_of(data: bytes) -> bytes:
    found = {}
    found["x"] = sorted({1, 2})
    for x in sorted(set(data)):
        found[x] = x
    return hashlib.sha256(data).digest()

def change(Thing):
    Thing.x = 1

class Other:
    def id(self, open: bool) -> bool:
        return open and self.id(open)
"""


@pytest.mark.parametrize(("source", "text"), REFUSED)
def test_what_replays_cannot_repeat_is_refused(source: str, text: str) -> None:
    findings = check_sources({"a.py": b"# first line\n" + source.encode()})
    assert findings
    assert any(text in str(finding) for finding in findings)
    assert all(str(finding).startswith("a.py:") and finding.line >= 1 for finding in findings)


def test_findings_come_by_path_and_line() -> None:
    sources = {"b.py": b"import time", "a.py": b"\n\nimport os\nimport time\n"}
    assert [(f.path, f.line) for f in check_sources(sources)] == [("a.py", 3), ("a.py", 4), ("b.py", 1)]


def test_what_is_allowed_passes() -> None:
    sources = {
        "a.py": ALLOWED.encode(),
        "beside.py": b"thing = 1",
        "package/inner.py": b"",
        "data.json": b"{",
    }
    assert check_sources(sources, {"orjson"}) == ()
    assert [f.text for f in check_sources(sources)] == [
        "import of orjson: it is not part of the module, of the allowed library or of the node's list"
    ]


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_the_examples_pass(path: Path) -> None:
    assert check_sources({path.name: path.read_bytes()}) == ()
