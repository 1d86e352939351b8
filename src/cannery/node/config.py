"""A node's configuration: defaults, what `<data>/cannery.toml` says, and what the command line overrides.

Sections: `[node]` (host, port, processes, memory), `[limits]`, `[prices]`, `[modules]`, `[outcalls]`,
`[gateway]` and `[watch]`; an unknown name is an error, so that a slip does not pass for a setting.
docs/configuration.md lists every name.
Keys, lock and layout of the data directory are `data_dir`'s.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import msgspec
import msgspec.structs

from cannery.errors import CanneryError
from cannery.limits import (
    COMPOSITE_CPU_NS_MAX,
    HOOK_CPU_NS_MAX,
    MEMORY_BYTES_MIN,
    MESSAGE_CPU_NS_MAX,
    QUERY_CPU_NS_MAX,
    SUBNET_COUNT_MAX,
)
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.outcall_rules import OutcallRules
from cannery.node.outcall_tls import read_authorities
from cannery.node.watching.settings import WatchSettings, WatchSettingsError
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.replica.prices import SCHEDULES

CONFIG_FILE: Final = "cannery.toml"
DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4943
_MS: Final = 1_000_000
_MIB: Final = 2**20
_REASON_SIZE_CHARS_MAX: Final = 500


class ConfigError(CanneryError):
    """The configuration does not say what can be done; the text names the setting."""


class _Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; unknown names are errors."""


class NodeSection(_Section, frozen=True, forbid_unknown_fields=True):
    """`[node]`: where it listens, and what its processes may use."""

    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    gateway_count: int | None = None
    subnet_count: int = 0
    spread_canisters: bool = False
    memory_mib_max: int = 2048
    no_progress_ms_max: int = 5_000
    stop_ms_max: int = 30_000


class LimitsSection(_Section, frozen=True, forbid_unknown_fields=True):
    """`[limits]`: what a message may use."""

    message_cpu_ms_max: int = MESSAGE_CPU_NS_MAX // _MS
    hook_cpu_ms_max: int = HOOK_CPU_NS_MAX // _MS
    query_cpu_ms_max: int = QUERY_CPU_NS_MAX // _MS
    composite_cpu_ms_max: int = COMPOSITE_CPU_NS_MAX // _MS
    argument_mib_max: int = 100
    reply_mib_max: int = 100
    canister_quota_count: int = 1_000_000
    block_window_count: int = 1_000


class ModulesSection(_Section, frozen=True, forbid_unknown_fields=True):
    """`[modules]`: packages beside the kit that canister code may import."""

    third_party_imports: tuple[str, ...] = ()


class OutcallsSection(_Section, frozen=True, forbid_unknown_fields=True):
    """`[outcalls]`: whom canisters may call over HTTP."""

    allow: tuple[str, ...] = ()
    private_networks: tuple[str, ...] = ()
    authorities: tuple[str, ...] = ()


class ConfigFile(_Section, frozen=True, forbid_unknown_fields=True):
    """The whole file."""

    node: NodeSection = NodeSection()
    limits: LimitsSection = LimitsSection()
    modules: ModulesSection = ModulesSection()
    outcalls: OutcallsSection = OutcallsSection()
    prices: dict[str, int | str] = {}
    gateway: dict[str, object] = {}
    watch: dict[str, object] = {}


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """Everything a node's processes need to know, but the keys. `gateway_count`: None follows the machine."""

    data: Path
    host: str = DEFAULT_HOST
    port: int = DEFAULT_PORT
    gateway_count: int | None = None
    subnet_count: int = 0
    memory_bytes_max: int = 2048 * _MIB
    no_progress_ms_max: int = 5_000
    stop_ms_max: int = 30_000
    replica: ReplicaConfig = field(default_factory=ReplicaConfig)
    gateway: GatewaySettings = field(default_factory=GatewaySettings)
    watch: WatchSettings = field(default_factory=WatchSettings)
    outcalls: OutcallRules = field(default_factory=OutcallRules)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The addresses to listen on: the loopback of both families where the host is a loopback."""
        return ("127.0.0.1", "::1") if self.host in ("127.0.0.1", "localhost") else (self.host,)

    @property
    def third_party(self) -> frozenset[str]:
        return frozenset(self.replica.third_party_imports)


def load_config(
    data: Path | str, host: str | None = None, port: int | None = None, subnets: int | None = None
) -> NodeConfig:
    """Read `<data>/cannery.toml` if it is there; the other arguments override it. Raises `ConfigError`."""
    folder = Path(data).absolute()
    path = folder / CONFIG_FILE
    try:
        text = path.read_text() if path.exists() else ""
        file = msgspec.convert(tomllib.loads(text), ConfigFile)
        config = _check(_resolve(folder, file))
    except RecursionError as error:
        raise ConfigError(f"{path}: tables and lists lie too deep in each other") from error
    except (OSError, ValueError, msgspec.ValidationError, ConfigError) as error:
        # Not every slip of the file is a `TOMLDecodeError`: a number of thousands of digits is none.
        raise ConfigError(f"{path}: {str(error)[:_REASON_SIZE_CHARS_MAX]}") from error
    return _check(
        replace(
            config,
            host=host or config.host,
            port=config.port if port is None else port,
            subnet_count=config.subnet_count if subnets is None else subnets,
        )
    )


def _resolve(folder: Path, file: ConfigFile) -> NodeConfig:
    limits = file.limits
    for name in limits.__struct_fields__:
        if getattr(limits, name) < 1:
            raise ConfigError(f"limits.{name} must be at least 1")
    outcalls = _outcall_rules(folder, file.outcalls)
    return NodeConfig(
        data=folder,
        host=file.node.host,
        port=file.node.port,
        gateway_count=file.node.gateway_count,
        subnet_count=file.node.subnet_count,
        memory_bytes_max=file.node.memory_mib_max * _MIB,
        no_progress_ms_max=file.node.no_progress_ms_max,
        stop_ms_max=file.node.stop_ms_max,
        replica=ReplicaConfig(
            prices=_prices(file.prices),
            third_party_imports=tuple(sorted(set(file.modules.third_party_imports))),
            message_cpu_ns_max=limits.message_cpu_ms_max * _MS,
            hook_cpu_ns_max=limits.hook_cpu_ms_max * _MS,
            query_cpu_ns_max=limits.query_cpu_ms_max * _MS,
            composite_cpu_ns_max=limits.composite_cpu_ms_max * _MS,
            argument_size_bytes_max=limits.argument_mib_max * _MIB,
            reply_size_bytes_max=limits.reply_mib_max * _MIB,
            canister_quota_count=limits.canister_quota_count,
            block_window_count=limits.block_window_count,
            outcall_hosts=outcalls.hosts,
            spreads=file.node.spread_canisters,
        ),
        outcalls=outcalls,
        gateway=_gateway_settings(file.gateway),
        watch=_watch_settings(file.watch),
    )


def _prices(values: Mapping[str, int | str]) -> PriceSchedule:
    """Give the schedule that is named, with the single prices that stand beside it."""
    _check_names("prices", values, {"schedule", *PriceSchedule.__struct_fields__})
    name = values.get("schedule", "free")
    schedule = SCHEDULES.get(str(name))
    if schedule is None:
        raise ConfigError(f"prices.schedule {name!r} is unknown; there are {', '.join(sorted(SCHEDULES))}")
    single: dict[str, int] = {}
    for setting, value in values.items():
        if setting == "schedule":
            continue
        if isinstance(value, str):
            raise ConfigError(f"prices.{setting} is a number of cycles, not {value!r}")
        single[setting] = value
    return msgspec.structs.replace(schedule, **single)


def _gateway_settings(values: Mapping[str, object]) -> GatewaySettings:
    _check_names("gateway", values, {known.name for known in fields(GatewaySettings)})
    for name, value in values.items():
        # Waiting for no answer at all makes sense: every call is then answered with 202 and polled for.
        if isinstance(value, int | float) and (value < 0 or (value == 0 and name != "answer_wait_ms_max")):
            raise ConfigError(f"gateway.{name} must be more than 0")
    try:
        return msgspec.convert(dict(values), GatewaySettings)
    except msgspec.ValidationError as error:
        raise ConfigError(f"gateway: {error}") from error


def _watch_settings(values: Mapping[str, object]) -> WatchSettings:
    _check_names("watch", values, {known.name for known in fields(WatchSettings)})
    try:
        settings = msgspec.convert(dict(values), WatchSettings)
        settings.check()
    except msgspec.ValidationError as error:
        raise ConfigError(f"watch: {error}") from error
    except WatchSettingsError as error:
        raise ConfigError(str(error)) from error
    return settings


def _outcall_rules(folder: Path, section: OutcallsSection) -> OutcallRules:
    try:
        authorities = read_authorities(folder, section.authorities)
        return OutcallRules.of(section.allow, section.private_networks, authorities)
    except ValueError as error:
        raise ConfigError(f"outcalls.{error}") from error


def _check_names(section: str, values: Mapping[str, object], known: set[str]) -> None:
    for name, value in values.items():
        if name not in known:
            raise ConfigError(f"{section}.{name} is not a setting; there are {', '.join(sorted(known))}")
        if isinstance(value, int | float) and value < 0:
            raise ConfigError(f"{section}.{name} must not be negative")


def _check(config: NodeConfig) -> NodeConfig:
    for name in sorted(config.third_party):
        if not name.isidentifier() or find_spec(name) is None:
            raise ConfigError(
                f"modules.third_party_imports: {name!r} is not installed beside the node; install it first"
            )
    if not 0 <= config.port <= 65_535:
        raise ConfigError(f"port {config.port} is not between 0 and 65535")
    if config.gateway_count is not None and not 1 <= config.gateway_count <= 64:
        raise ConfigError(
            f"node.gateway_count is {config.gateway_count}, not between 1 and 64 "
            "(leave it out: as many as the machine's cores make worth while)"
        )
    if not 0 <= config.subnet_count <= SUBNET_COUNT_MAX:
        raise ConfigError(
            f"node.subnet_count is {config.subnet_count}, not between 1 and {SUBNET_COUNT_MAX} "
            "(0: as many as there are)"
        )
    if config.memory_bytes_max < MEMORY_BYTES_MIN:
        raise ConfigError(f"node.memory_mib_max must be at least {MEMORY_BYTES_MIN // _MIB}")
    if config.no_progress_ms_max < 100 or config.stop_ms_max < 100:
        raise ConfigError("node.no_progress_ms_max and node.stop_ms_max must be at least 100")
    return config
