"""What a node reads of its own small files, of strangers' servers, and of an object store's lock.

`tests/test_fuzz.py` has the laws.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cannery.errors import StoreError
from cannery.node.backup.shelf_objects import _read_lock
from cannery.node.condemned import _read as read_condemned
from cannery.node.config import CONFIG_FILE, ConfigError, load_config
from cannery.node.data_dir import DataDirError, load_keys, open_data_dir
from cannery.node.watching.alarm_file import ALARMS
from cannery.replica.records import RECORD_VERSION
from tests.fuzzing import Decoder, NeverRefused
from tests.node.test_outcall_fetch import OK, World

CONFIG = b"""[node]
host = "localhost"
port = 4943
[limits]
message_cpu_ms_max = 500
[prices]
schedule = "free"
per_message = 3
[modules]
third_party_imports = ["msgspec"]
[outcalls]
allow = ["*.example.org"]
private_networks = ["10.0.0.0/8"]
[gateway]
requests_per_address_per_s = 50.5
answer_wait_ms_max = 0
"""
CHUNKED = (
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-a: 1\r\n\r\n3\r\nabc\r\n0\r\ntrailer: x\r\n\r\n"
)


class NoResponse(Exception):
    """An outcall was refused."""


def _in_file(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def run(data: bytes) -> object:
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / name).write_bytes(data)
            return read(Path(folder))

    return run


@cache
def _data_dir() -> tuple[Path, tempfile.TemporaryDirectory[str]]:
    """Set up a data directory, once for a process; give what keeps it there as well."""
    folder = tempfile.TemporaryDirectory()
    place = Path(folder.name) / "data"
    _, lock = open_data_dir(place)
    lock.release()
    return place, folder


def _with_key(name: str) -> Callable[[bytes], object]:
    """Read the keys of a data directory, one of whose files has any bytes."""

    def run(data: bytes) -> object:
        place, _ = _data_dir()
        sound = (place / name).read_bytes()
        (place / name).write_bytes(data)
        try:
            return load_keys(place)
        finally:
            (place / name).write_bytes(sound)

    return run


def _fetched(data: bytes) -> None:
    answer = World(data).fetch()
    if answer.reject_code:
        assert not answer.body
        raise NoResponse(answer.reject_message)


DECODERS = {
    "configuration file": Decoder(
        _in_file(CONFIG_FILE, load_config), ConfigError, (CONFIG,), heads=(b"", b"[node]\nport = ", b"x = ")
    ),
    "condemned": Decoder(
        _in_file("condemned", lambda folder: read_condemned(folder / "condemned")),
        NeverRefused,
        (b"\x01\x80", b"\x01\x81\xc4\x01x\x05"),
        heads=(b"", b"\x01"),
    ),
    "alarms": Decoder(ALARMS.decode, StoreError, (), heads=(b"", RECORD_VERSION)),
    "lock of an object store": Decoder(_read_lock, NeverRefused, (b'{"holder": "x", "until_ns": 5}',)),
    "root key file": Decoder(_with_key("keys/root.bls"), DataDirError, (b"00" * 32,)),
    "node key file": Decoder(_with_key("keys/node.pem"), DataDirError, ()),
    "response to an outcall": Decoder(
        _fetched, NoResponse, (OK, CHUNKED), heads=(b"", b"HTTP/1.1 200 OK\r\n")
    ),
}
