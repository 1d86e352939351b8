"""The configuration file and the data directory: what is taken, what is refused and why."""

from __future__ import annotations

import stat
from dataclasses import fields
from pathlib import Path

import pytest
from msgspec.structs import replace

from cannery.limits import DISK_RESERVE_BYTES
from cannery.node.config import (
    ConfigError,
    LimitsSection,
    ModulesSection,
    NodeSection,
    OutcallsSection,
    load_config,
)
from cannery.node.data_dir import DataDir, DataDirError, load_keys, open_data_dir
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.watching.settings import WatchSettings
from cannery.replica.block import PriceSchedule
from cannery.replica.prices import IC


def test_defaults_overrides_and_a_full_file(tmp_path: Path) -> None:
    config = load_config(tmp_path)
    assert (config.port, config.hosts) == (4943, ("127.0.0.1", "::1"))
    assert load_config(tmp_path, "0.0.0.0", 0).hosts == ("0.0.0.0",)
    (tmp_path / "cannery.toml").write_text(
        "[node]\nport = 5000\nmemory_mib_max = 512\n"
        "[limits]\nmessage_cpu_ms_max = 250\nargument_mib_max = 3\n"
        "[modules]\nthird_party_imports = ['msgspec', 'cbor2', 'msgspec']\n"
        "[prices]\nper_message = 7\n"
        "[gateway]\nanswer_wait_ms_max = 5000\nrequests_per_address_per_s = 10.5\n"
    )
    config = load_config(tmp_path)
    assert config.port == 5000
    assert config.memory_bytes_max == 512 * 2**20
    assert config.replica.message_cpu_ns_max == 250_000_000
    assert config.replica.argument_size_bytes_max == 3 * 2**20
    assert config.replica.prices.per_message == 7
    assert config.third_party == {"msgspec", "cbor2"}
    assert config.replica.third_party_imports == ("cbor2", "msgspec")
    assert config.gateway.answer_wait_ms_max == 5000
    assert config.gateway.requests_per_address_per_s == 10.5


def test_a_schedule_of_prices_is_named_and_single_prices_override_it(tmp_path: Path) -> None:
    assert load_config(tmp_path).replica.prices == PriceSchedule()
    (tmp_path / "cannery.toml").write_text('[prices]\nschedule = "ic"\n')
    assert load_config(tmp_path).replica.prices == IC
    (tmp_path / "cannery.toml").write_text('[prices]\ncreation = 0\nschedule = "ic"\n')
    assert load_config(tmp_path).replica.prices == replace(IC, creation=0)
    (tmp_path / "cannery.toml").write_text('[prices]\nschedule = "free"\nper_call = 3\n')
    assert load_config(tmp_path).replica.prices == PriceSchedule(per_call=3)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[nodes]\n", "nodes"),
        ("[node]\nportt = 1\n", "portt"),
        ("[node]\nport = 'x'\n", r"\$\.node\.port"),
        ("[node]\nport = 70000\n", "not between 0 and 65535"),
        ("[node]\ngateway_count = 0\n", "gateway_count"),
        ("[node]\nmemory_mib_max = 1\n", "memory_mib_max must be at least"),
        ("[limits]\nmessage_cpu_ms_max = 0\n", "limits.message_cpu_ms_max must be at least 1"),
        ("[prices]\nper_mesage = 1\n", "prices.per_mesage is not a setting; there are .*per_message"),
        ("[prices]\nper_message = -1\n", "must not be negative"),
        ("[prices]\nper_message = 'x'\n", "prices.per_message is a number of cycles, not 'x'"),
        ("[prices]\nper_message = 0.5\n", r"\$\.prices"),
        ("[prices]\nschedule = 'dear'\n", "prices.schedule 'dear' is unknown; there are free, ic"),
        ("[prices]\nschedule = 1\n", "prices.schedule 1 is unknown"),
        ("[gateway]\nnope = 1\n", "gateway.nope is not a setting"),
        ("[gateway]\nrequests_per_address_per_s = 0\n", "requests_per_address_per_s must be more than 0"),
        ("[gateway]\nconnection_count_max = -1\n", "must not be negative"),
        ("[gateway]\nanswer_wait_ms_max = 0.5\n", r"gateway: Expected `int`.*answer_wait_ms_max"),
        ("[modules]\nthird_party_imports = ['nope_not_there']\n", "'nope_not_there' is not installed"),
        ("[modules]\nthird_party_imports = ['a.b']\n", "'a.b' is not installed"),
        ("[node\n", "cannery.toml"),
        ("\x00", "cannery.toml"),
    ],
)
def test_slips_are_errors_that_name_the_setting(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "cannery.toml").write_text(text)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(tmp_path)
    assert "cannery.toml" in str(caught.value)


def test_a_new_data_directory_has_keys_that_stay(tmp_path: Path) -> None:
    folder, lock = open_data_dir(tmp_path / "data")
    keys = load_keys(folder.path)
    for name in ("operator.pem", "keys/root.bls", "keys/node.pem"):
        assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o600
    lock.release()
    _, lock = open_data_dir(tmp_path / "data")
    again = load_keys(folder.path)
    assert again.root.public_key == keys.root.public_key
    assert again.node.principal == keys.node.principal
    assert again.operator.principal == keys.operator.principal
    with pytest.raises(DataDirError, match=r"in use by another node \(pid \d+\)"):
        open_data_dir(tmp_path / "data")
    lock.release()


def test_a_set_up_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    folder, lock = open_data_dir(tmp_path / "data")
    before = load_keys(folder.path)
    lock.release()
    (folder.path / "format").unlink()
    (folder.path / "keys" / "node.pem").unlink()
    _, lock = open_data_dir(tmp_path / "data")
    assert load_keys(folder.path).root.public_key == before.root.public_key
    lock.release()
    (folder.path / "format").unlink()
    folder.store.mkdir()
    with pytest.raises(DataDirError, match="no data directory"):
        open_data_dir(tmp_path / "data")


def test_damaged_keys_are_named(tmp_path: Path) -> None:
    folder, lock = open_data_dir(tmp_path / "data")
    lock.release()
    (folder.path / "keys" / "root.bls").write_text("zz")
    with pytest.raises(DataDirError, match="cannot read the keys"):
        load_keys(folder.path)


def test_a_long_path_gets_a_short_socket(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    assert len(DataDir(long).socket.encode()) <= 100
    assert DataDir(long).socket == DataDir(long).socket != DataDir(long / "y").socket


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("webhook = ['ftp://x']", "http:// or https:// URLs"),
        ("webhook = ['http://x', 'http://x']", "each of them once"),
        ("webhook = 'http://x'", "watch: "),
        ("webhook_secret = 'short'", "at least 16 characters"),
        ("canary_every_s = -1", "must not be negative"),
        ("canary_goal_percent = 100", "between 0 and 100"),
        ("webhooks = []", "watch.webhooks is not a setting"),
    ],
)
def test_watching_that_cannot_be_done_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "cannery.toml").write_text(f"[watch]\n{text}\n")
    with pytest.raises(ConfigError, match=reason):
        load_config(tmp_path)


def test_watching_is_configured(tmp_path: Path) -> None:
    (tmp_path / "cannery.toml").write_text("[watch]\nwebhook = ['https://x/y']\ncanary_every_s = 60\n")
    watch = load_config(tmp_path).watch
    assert (watch.webhook, watch.canary_every_s, watch.disk_low_bytes) == (("https://x/y",), 60, 2**30)
    assert load_config(tmp_path / "none").watch == WatchSettings()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("allow = ['https://x.org/path']", "outcalls.allow: 'https://x.org/path' is no host"),
        ("allow = ['x.org:0']", "between 1 and 65535"),
        ("allow = ['ftp://x.org']", "is no host"),
        ("private_networks = ['10.0.0.1/8']", "outcalls.private_networks: 10.0.0.1/8 has host bits set"),
        ("private_networks = ['localhost']", "does not appear to be"),
        ("hosts = []", "unknown field `hosts`"),
    ],
)
def test_outcalls_that_cannot_be_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "cannery.toml").write_text(f"[outcalls]\n{text}\n")
    with pytest.raises(ConfigError, match=reason):
        load_config(tmp_path)


def test_outcalls_are_configured(tmp_path: Path) -> None:
    lines = "allow = ['RPC.example.org', 'http://10.0.0.9:8545']\nprivate_networks = ['192.168.1.0/24']"
    (tmp_path / "cannery.toml").write_text(f"[outcalls]\n{lines}\n")
    config = load_config(tmp_path)
    assert config.replica.outcall_hosts == ("rpc.example.org", "http://10.0.0.9:8545")
    assert config.outcalls.hosts == config.replica.outcall_hosts
    assert [config.outcalls.may_connect(a) for a in ("192.168.1.5", "10.0.0.9", "10.0.0.8")] == [
        True,
        True,
        False,
    ]
    assert load_config(tmp_path / "none").replica.outcall_hosts == ()


def test_every_setting_stands_in_the_documentation() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "configuration.md").read_text()
    sections = (NodeSection, LimitsSection, ModulesSection, OutcallsSection, PriceSchedule)
    names = [name for section in sections for name in section.__struct_fields__]
    names += [field.name for settings in (GatewaySettings, WatchSettings) for field in fields(settings)]
    assert [name for name in names if f"`{name}`" not in text] == []
    assert f"{DISK_RESERVE_BYTES // 2**20} MiB are free" in text
