"""Identities and pins on disk: modes, names, exchange with other tools, and a root key that changed."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.client.errors import Unverified
from cannery.client.identity_store import (
    IdentityStore,
    PinStore,
    StoreProblem,
    default_home,
    origin_of,
    write_private,
)
from cannery.protocol.principal import ANONYMOUS

URL = "http://127.0.0.1:4943"
KEY, OTHER_KEY = b"\x01" * 133, b"\x02" * 133


@pytest.mark.parametrize("key_type", ["ed25519", "secp256k1"])
def test_a_new_identity_comes_back(tmp_path: Path, key_type: str) -> None:
    store = IdentityStore(tmp_path)
    made = store.create("ann", key_type)
    assert IdentityStore(tmp_path).load("ann").principal == made.principal
    assert store.names() == ["ann"]


def test_key_files_are_for_their_owner_alone(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "deep" / "home")
    store.create("ann")
    assert stat.S_IMODE(store.path("ann").stat().st_mode) == 0o600
    assert stat.S_IMODE(store.path("ann").parent.stat().st_mode) == 0o700


def test_a_name_is_not_taken_twice(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    first = store.create("ann").principal
    with pytest.raises(StoreProblem, match="already"):
        store.create("ann")
    assert store.load("ann").principal == first


def test_an_unknown_name_is_told_with_those_there_are(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    store.create("ann")
    with pytest.raises(StoreProblem, match=r"there are: ann.*cannery identity new bob"):
        store.load("bob")


def test_anonymous_is_always_there_and_never_made(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    assert store.load("anonymous").principal == ANONYMOUS
    with pytest.raises(StoreProblem):
        store.create("anonymous")


@given(st.text(max_size=70))
def test_a_name_never_leads_out_of_the_folder(name: str) -> None:
    store = IdentityStore(Path("/home/of/ann"))
    try:
        path = store.path(name)
    except StoreProblem:
        return
    assert path.parent == Path("/home/of/ann/identities")
    assert path.name == f"{name}.pem"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl writes the foreign key files")
@pytest.mark.parametrize(
    "command",
    [
        ["genpkey", "-algorithm", "ed25519"],
        ["ecparam", "-name", "secp256k1", "-genkey", "-noout"],
        ["ecparam", "-name", "secp256k1", "-genkey"],
    ],
)
def test_key_files_of_openssl_are_taken_in(tmp_path: Path, command: list[str]) -> None:
    source = tmp_path / "foreign.pem"
    source.write_bytes(subprocess.run(["openssl", *command], check=True, capture_output=True).stdout)
    store = IdentityStore(tmp_path)
    principal = store.import_pem("foreign", source).principal
    assert store.load("foreign").principal == principal


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xfe", b"-----BEGIN PRIVATE KEY-----\nAAAA\n"])
def test_what_is_no_key_is_refused_by_file_name(tmp_path: Path, content: bytes) -> None:
    source = tmp_path / "bad.pem"
    source.write_bytes(content)
    with pytest.raises(StoreProblem, match=r"bad\.pem"):
        IdentityStore(tmp_path).import_pem("bad", source)
    assert IdentityStore(tmp_path).names() == []


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreProblem, match="cannot read"):
        IdentityStore(tmp_path).import_pem("x", tmp_path / "nothing.pem")


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_private(path, "one")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "\ud800")
    assert path.read_text() == "one"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# --- pins ---


def test_the_key_of_the_first_use_is_pinned(tmp_path: Path) -> None:
    assert PinStore(tmp_path).check(URL, KEY) == KEY
    assert PinStore(tmp_path).find(URL) == KEY
    assert PinStore(tmp_path).check(URL, KEY) == KEY


def test_a_changed_key_is_refused_with_the_remedy(tmp_path: Path) -> None:
    PinStore(tmp_path).check(URL, KEY)
    with pytest.raises(Unverified, match=rf"another root key.*cannery trust --node {URL}"):
        PinStore(tmp_path).check(URL, OTHER_KEY)
    assert PinStore(tmp_path).find(URL) == KEY


def test_pins_are_per_node(tmp_path: Path) -> None:
    pins = PinStore(tmp_path)
    pins.check(URL, KEY)
    pins.check("http://127.0.0.1:5000", OTHER_KEY)
    assert pins.find(URL) == KEY


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://127.0.0.1:4943/", "http://127.0.0.1:4943"),
        ("http://[::1]:4943", "http://[::1]:4943"),
        ("https://Node.Example", "https://node.example:443"),
        ("http://node.example/path?x=1", "http://node.example:80"),
    ],
)
def test_an_origin_is_scheme_host_and_port(url: str, origin: str) -> None:
    assert origin_of(url) == origin


@pytest.mark.parametrize("url", ["", "127.0.0.1:4943", "ftp://x", "http://", "http://x:99999", "http://[::1"])
def test_what_is_no_url_is_refused(url: str) -> None:
    with pytest.raises(StoreProblem, match="no URL of a node"):
        origin_of(url)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"http://a:1": 3}', '{"http://a:1": "xyz"}'])
def test_a_damaged_list_of_pins_is_said_to_be_one(tmp_path: Path, text: str) -> None:
    (tmp_path / "pins.json").write_text(text)
    with pytest.raises(StoreProblem, match=r"pins\.json"):
        PinStore(tmp_path).find(URL)


def test_the_home_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("CANNERY_HOME", raising=False)
    assert default_home() == tmp_path / "xdg" / "cannery"
    monkeypatch.setenv("CANNERY_HOME", str(tmp_path))
    assert default_home() == tmp_path
