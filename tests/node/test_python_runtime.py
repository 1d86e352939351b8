"""Programs from modules: what loads, what does not and why, two versions side by side, a bounded number at a
time.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from hashlib import sha256

import pytest

from cannery.cdk.build import BuildError, build_module
from cannery.errors import Reject
from cannery.node.python_runtime import PythonPrograms, SourceLoader
from cannery.node.watch import CpuWatch

GREETER = """
from cannery import Canister, Context, query, nat32

class Greeter(Canister):
    @query
    def version(self, ctx: Context) -> nat32:
        from part import VERSION
        return VERSION
"""


def build(sources: dict[str, bytes], entry: str) -> bytes:
    loader = SourceLoader()
    try:
        return build_module(sources, entry, loader.load).module
    finally:
        loader.discard()


def greeter(version: int) -> bytes:
    return build({"greeter.py": GREETER.encode(), "part.py": b"VERSION = %d\n" % version}, "greeter:Greeter")


@pytest.fixture(autouse=True)
def loaded_before() -> Iterator[None]:
    """Other tests of the same process may keep programs loaded: what counts is what a test here leaves."""
    before = frozenset(_private_names())
    _LOADED_BEFORE.append(before)
    yield
    _LOADED_BEFORE.remove(before)


_LOADED_BEFORE: list[frozenset[str]] = []


def _private_names() -> list[str]:
    return [name for name in sys.modules if name.startswith("_cannery_")]


def private_modules() -> list[str]:
    return [name for name in _private_names() if name not in _LOADED_BEFORE[-1]]


def test_a_bounded_number_of_programs_is_loaded_and_evicted_ones_leave_nothing() -> None:
    programs = PythonPrograms(count_max=2)
    modules = [greeter(version) for version in range(3)]
    hashes = [sha256(module).digest() for module in modules]
    first = programs.load(hashes[0], modules[0])
    assert programs.load(hashes[0], modules[0]) is first
    programs.load(hashes[1], modules[1])
    assert programs.loaded(hashes[0]) is first
    programs.load(hashes[2], modules[2])
    assert programs.loaded(hashes[1]) is None
    assert programs.count() == 2
    assert not [name for name in private_modules() if hashes[1].hex()[:32] in name]
    programs.close()
    assert not private_modules()


def test_the_same_source_gives_the_same_module() -> None:
    assert greeter(1) == greeter(1) != greeter(2)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("from cannery import Canister\nclass C(Canister): pass\nx = 1 / 0\n", r"ZeroDivisionError.*m\.py:3"),
        ("from cannery import Canister\nclass C(Canister): pass\nraise SystemExit(3)\n", "SystemExit"),
        ("class C: pass\n", "not a subclass of cannery.Canister"),
        ("from cannery import Canister\n", "no class 'C'"),
        ("from cannery import Nope\n", "Nope"),
    ],
)
def test_what_does_not_load_says_where(source: str, text: str) -> None:
    with pytest.raises(BuildError, match=text):
        build({"m.py": source.encode()}, "m:C")
    assert not private_modules()


def test_what_is_no_module_is_a_reject() -> None:
    with pytest.raises(Reject, match="not a Wasm file"):
        PythonPrograms().load(bytes(32), b"nonsense")


def test_a_module_that_loads_for_ever_is_stopped_and_a_condemned_one_is_not_loaded() -> None:
    source = b"from cannery import Canister\nclass C(Canister): pass\n"
    source += b"while C.__module__.startswith('_cannery_module'): pass\n"
    module = build({"m.py": source}, "m:C")
    digest = sha256(module).digest()
    watch = CpuWatch()
    try:
        with pytest.raises(Reject, match="CPU time"):
            PythonPrograms(watch=ShortWatch(watch)).load(digest, module)
    finally:
        watch.close()
    with pytest.raises(Reject, match="brought the node's process down"):
        PythonPrograms(condemned={digest}).load(digest, module)
    assert not private_modules()


class ShortWatch:
    """A watch with little patience."""

    def __init__(self, watch: CpuWatch) -> None:
        self._watch = watch
        self.end = watch.end

    def begin(self, identity: bytes, cpu_ns_max: int) -> None:
        self._watch.begin(identity, 30_000_000)
