"""Modules as files: one form, one error, and the parts come back."""

from __future__ import annotations

import contextlib
import gzip
import io
import sys
import types
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Canister, limits
from cannery.cdk.archive import ArchiveError, build_archive, read_archive
from cannery.cdk.build import BuildError, build_module
from cannery.cdk.manifest import ManifestError, decode_manifest, encode_manifest
from cannery.cdk.module_file import (
    ARCHIVE_SECTION,
    CANDID_SECTION,
    MANIFEST_SECTION,
    ModuleError,
    module_hash,
    parse_module,
)

ROOT = Path(__file__).parent.parent.parent
FORMATS = ROOT / "tests" / "formats"
SOURCES = {
    "guestbook.py": b'''"""A guestbook."""
from cannery import Canister, Context, Principal, StableLog, nat32, nat64, query, record, update


@record
class Entry:
    """One line in the book."""

    author: Principal
    at_ns: nat64
    text: str


class Guestbook(Canister):
    """Keep entries."""

    entries = StableLog(Entry)

    @update
    def sign(self, ctx: Context, text: str) -> nat64:
        """Add an entry and return its number."""
        return self.entries.append(Entry(ctx.caller, ctx.now_ns, text))

    @query
    def latest(self, ctx: Context, limit: nat32) -> list[Entry]:
        return [entry for _, entry in self.entries.page(limit=limit, reverse=True).items]
''',
    "data.txt": b"beside the code",
}
ENTRY = "guestbook:Guestbook"


def load(sources: Mapping[str, bytes], entry: str) -> type[Canister]:
    """Load a one-file module."""
    name, _, cls = entry.partition(":")
    module = types.ModuleType(f"loaded_for_tests_{name}")
    sys.modules[module.__name__] = module
    exec(compile(sources[f"{name}.py"], f"{name}.py", "exec"), module.__dict__)
    found = getattr(module, cls)
    assert isinstance(found, type)
    return found


BUILT = build_module(SOURCES, ENTRY, load)


def section(number: int, body: bytes) -> bytes:
    assert len(body) < 2**14
    return bytes([number, len(body) & 0x7F | 0x80, len(body) >> 7]) + body


def custom(name: str, content: bytes) -> bytes:
    return section(0, bytes([len(name)]) + name.encode() + content)


def test_a_module_is_parsed_to_what_it_was_built_of() -> None:
    module = parse_module(BUILT.module)
    assert module.files() == dict(sorted(SOURCES.items()))
    assert module.did == BUILT.did
    assert module.manifest.entry == ENTRY
    assert module.encode() == BUILT.module
    assert module.metadata("candid:service") == (BUILT.did.encode(), True)
    assert module.metadata("cannery:module") == (encode_manifest(module.manifest), True)
    assert module.metadata("cannery:archive") == (module.archive, False)
    assert module.metadata("nothing") is None
    assert [m.name for m in module.manifest.methods] == ["latest", "sign"]
    sign = module.manifest.method("sign")
    assert sign is not None
    assert sign.kind == "update"
    assert module.manifest.method("entries") is None
    assert BUILT.hash == module_hash(BUILT.module)


def test_gzip_is_accepted() -> None:
    assert parse_module(gzip.compress(BUILT.module)) == parse_module(BUILT.module)


def test_further_custom_sections_are_kept() -> None:
    module = parse_module(BUILT.module + custom("icp:private git", b"abc") + custom("name", b""))
    assert module.metadata("git") == (b"abc", False)
    assert module.extras == (("icp:private git", b"abc"), ("name", b""))


@pytest.mark.parametrize("order", [1, -1])
def test_the_same_sources_give_the_same_bytes(order: int) -> None:
    shuffled = dict(list(SOURCES.items())[::order])
    assert build_module(shuffled, ENTRY, load).module == BUILT.module


def test_the_golden_module_still_opens() -> None:
    module = parse_module((FORMATS / "guestbook-1.wasm").read_bytes())
    assert module.manifest.entry == ENTRY
    assert module.files() == dict(sorted(SOURCES.items()))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a Wasm file"),
        (b"\x00asm\x02\x00\x00\x00", "not a Wasm file"),
        (b"\x00asm\x01\x00\x00\x00", "Wasm programs are not supported yet"),
        (b"\x00asm\x01\x00\x00\x00" + section(1, b"\x00"), "Wasm programs are not supported yet"),
        (BUILT.module + section(1, b"\x00"), "a Cannery section stands beside a standard section"),
        (BUILT.module + custom(CANDID_SECTION, b""), "stands twice"),
        (BUILT.module[:-1], "ends inside"),
        (BUILT.module + b"\x00", "ends inside a size"),
        (BUILT.module + b"\x00\x80\x80\x80\x80\x80\x00", "not below 2^32"),
        (BUILT.module + b"\x00\xff\xff\xff\xff\x7f", "not below 2^32"),
        (BUILT.module + b"\x00\x01\x05", "ends inside its name"),
        (BUILT.module + b"\x00\x02\x01\xff", "not UTF-8"),
        (b"\x00asm\x01\x00\x00\x00" + custom(MANIFEST_SECTION, b""), "is missing"),
        (BUILT.module + b"\x00\x02\x01a" * 100, "sections"),
        (gzip.compress(BUILT.module)[:-9], "not valid gzip"),
        (gzip.compress(BUILT.module) + b"x", "not valid gzip"),
        (b"\x1f\x8bxxxx", "not valid gzip"),
        (gzip.compress(bytes(limits.MODULE_SIZE_BYTES_MAX + 1)), "is larger than"),
    ],
    ids=range(18),
)
def test_other_files_are_refused_with_a_reason(data: bytes, text: str) -> None:
    with pytest.raises(ModuleError, match=text.replace("^", r"\^")):
        parse_module(data)


@given(st.data())
def test_a_damaged_module_raises_its_one_error_or_parses(data: st.DataObject) -> None:
    damaged = bytearray(BUILT.module)
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(8, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ModuleError):
        parse_module(bytes(damaged[: data.draw(st.integers(0, len(damaged)))]))


@given(st.binary(max_size=60))
def test_junk_is_no_manifest(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        with pytest.raises(ManifestError):
            decode_manifest(candidate)


def replaced(**facts: object) -> bytes:
    import msgspec

    return encode_manifest(msgspec.structs.replace(parse_module(BUILT.module).manifest, **facts))


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"entry": "a/b:c"}, "not of the form"),
        ({"types": ()}, "named by the manifest and not given"),
        ({"types": (b"junk",)}, "a type of the module is malformed"),
        ({"hooks": ("init",)}, "do not go together"),
        ({"methods": parse_module(BUILT.module).manifest.methods * 2}, "a method stands twice"),
        ({"hooks": ("other",)}, "malformed"),
    ],
)
def test_a_manifest_that_is_not_whole_is_refused(facts: dict[str, object], text: str) -> None:
    with pytest.raises(ManifestError, match=text):
        decode_manifest(replaced(**facts))


paths = st.from_regex(r"[a-z_]{1,5}(/[a-z0-9]{1,4}){0,2}\.py", fullmatch=True)
files = st.dictionaries(paths, st.binary(max_size=50), max_size=6)


@given(files)
def test_an_archive_gives_its_files_back_in_one_form(content: dict[str, bytes]) -> None:
    archive = build_archive(content)
    assert list(read_archive(archive).items()) == sorted(content.items())
    assert build_archive(dict(reversed(content.items()))) == archive
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == content


@given(files, st.data())
def test_any_other_archive_is_refused(content: dict[str, bytes], data: st.DataObject) -> None:
    archive = bytearray(build_archive(content))
    at = data.draw(st.integers(0, len(archive) - 1))
    archive[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArchiveError):
        read_archive(bytes(archive))


@pytest.mark.parametrize(
    "path",
    ["/a.py", "../a.py", "a//b.py", "", "a\\b.py", "a/../b.py", "a b.py", ".hidden", "__pycache__/a.pyc"],
)
def test_paths_that_leave_the_archive_are_refused(path: str) -> None:
    with pytest.raises(ArchiveError, match="is not a path"):
        build_archive({path: b""})


def test_a_class_that_is_not_declared_right_does_not_build() -> None:
    sources = {
        "a.py": b"from cannery import Canister, query\nclass A(Canister):\n    @query\n    def m(self): ...\n"
    }
    with pytest.raises(BuildError, match=r"A\.m: the parameter after self is"):
        build_module(sources, "a:A", load)


def test_sources_that_reach_around_the_context_do_not_build() -> None:
    sources = {**SOURCES, "guestbook.py": SOURCES["guestbook.py"] + b"\nimport time\n"}
    with pytest.raises(BuildError, match=r"guestbook.py:\d+: import of time: use ctx.now_ns"):
        build_module(sources, ENTRY, lambda *_: pytest.fail("it was loaded"))


def test_sections_have_the_names_that_tools_look_for() -> None:
    for name in (CANDID_SECTION, MANIFEST_SECTION, ARCHIVE_SECTION):
        assert name.encode() in BUILT.module
