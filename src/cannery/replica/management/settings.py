"""Settings of canisters: checked when they come in, shown when they are asked for.

IC interface specification, "IC method create_canister". Numbers are bounded as there, apart from two that the
specification allows up to 2^128-1 and that end at 2^64-1 here, as nothing holds more cycles than that.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import (
    CONTROLLER_COUNT_MAX,
    ENVIRONMENT_NAME_SIZE_BYTES_MAX,
    ENVIRONMENT_VALUE_SIZE_BYTES_MAX,
    ENVIRONMENT_VARIABLE_COUNT_MAX,
    LOG_SIZE_BYTES_MAX,
    VIEWER_COUNT_MAX,
)
from cannery.protocol.principal import Principal
from cannery.protocol.representation import hash_map
from cannery.replica.management.types import (
    CanisterSettings,
    DefiniteCanisterSettings,
    EnvironmentVariable,
    Visibility,
)
from cannery.replica.records import CanisterRecord, Settings, VisibilityKind
from cannery.replica.records import Visibility as VisibilityRecord

_NAT64_MAX = 2**64 - 1
_WASM_MEMORY_MAX = 2**48


def plan_controllers(wanted: list[Principal], setting: str = "controllers") -> tuple[bytes, ...]:
    """Check a list of controllers and give it without repetitions; raises `Reject`."""
    distinct = tuple(dict.fromkeys(p.raw for p in wanted))
    count_max = CONTROLLER_COUNT_MAX if setting == "controllers" else VIEWER_COUNT_MAX
    if len(distinct) > count_max:
        raise _invalid(f"{setting} has {len(distinct)} principals, more than {count_max}")
    return distinct


def plan_settings(present: Settings, wanted: CanisterSettings) -> Settings:
    """Apply wanted changes (controllers apart) to settings; raises `Reject` for what is out of bounds."""
    return replace(
        present,
        freezing_threshold_s=_number(
            "freezing_threshold", wanted.freezing_threshold, present.freezing_threshold_s
        ),
        compute_allocation=_number(
            "compute_allocation", wanted.compute_allocation, present.compute_allocation, 100
        ),
        memory_allocation=_number("memory_allocation", wanted.memory_allocation, present.memory_allocation),
        reserved_cycles_limit=_number(
            "reserved_cycles_limit", wanted.reserved_cycles_limit, present.reserved_cycles_limit
        ),
        minimum_incoming_canister_call_cycles=_number(
            "minimum_incoming_canister_call_cycles",
            wanted.minimum_incoming_canister_call_cycles,
            present.minimum_incoming_canister_call_cycles,
        ),
        log_visibility=_visibility("log_visibility", wanted.log_visibility, present.log_visibility),
        log_memory_limit=_number(
            "log_memory_limit", wanted.log_memory_limit, present.log_memory_limit, LOG_SIZE_BYTES_MAX
        ),
        snapshot_visibility=_visibility(
            "snapshot_visibility", wanted.snapshot_visibility, present.snapshot_visibility
        ),
        status_visibility=_visibility(
            "status_visibility", wanted.status_visibility, present.status_visibility
        ),
        wasm_memory_limit=_number(
            "wasm_memory_limit", wanted.wasm_memory_limit, present.wasm_memory_limit, _WASM_MEMORY_MAX
        ),
        wasm_memory_threshold=_number(
            "wasm_memory_threshold",
            wanted.wasm_memory_threshold,
            present.wasm_memory_threshold,
            _WASM_MEMORY_MAX,
        ),
        environment_variables=_environment(wanted.environment_variables, present.environment_variables),
    )


def show_settings(canister: CanisterRecord) -> DefiniteCanisterSettings:
    """Give a canister's settings as `canister_status` shows them."""
    settings = canister.settings
    return DefiniteCanisterSettings(
        controllers=[Principal(raw) for raw in canister.controllers],
        compute_allocation=settings.compute_allocation,
        memory_allocation=settings.memory_allocation,
        freezing_threshold=settings.freezing_threshold_s,
        reserved_cycles_limit=settings.reserved_cycles_limit,
        minimum_incoming_canister_call_cycles=settings.minimum_incoming_canister_call_cycles,
        log_visibility=_show_visibility(settings.log_visibility),
        log_memory_limit=settings.log_memory_limit,
        snapshot_visibility=_show_visibility(settings.snapshot_visibility),
        status_visibility=_show_visibility(settings.status_visibility),
        wasm_memory_limit=settings.wasm_memory_limit,
        wasm_memory_threshold=settings.wasm_memory_threshold,
        environment_variables=[EnvironmentVariable(n, v) for n, v in settings.environment_variables],
    )


def environment_hash(wanted: CanisterSettings | None, settings: Settings) -> bytes | None:
    """Give the hash of environment variables that a creation's history has; None where none were given."""
    if wanted is None or wanted.environment_variables is None:
        return None
    return hash_map(dict(settings.environment_variables))


def _number(name: str, wanted: int | None, present: int, number_max: int = _NAT64_MAX) -> int:
    if wanted is None:
        return present
    if wanted > number_max:
        raise _invalid(f"{name} is {wanted}, more than {number_max}")
    return wanted


def _visibility(name: str, wanted: Visibility | None, present: VisibilityRecord) -> VisibilityRecord:
    if wanted is None:
        return present
    if wanted.tag != "allowed_viewers":
        return VisibilityRecord(
            VisibilityKind.PUBLIC if wanted.tag == "public" else VisibilityKind.CONTROLLERS
        )
    return VisibilityRecord(VisibilityKind.ALLOWED_VIEWERS, plan_controllers(wanted.allowed_viewers, name))


def _show_visibility(visibility: VisibilityRecord) -> Visibility:
    if visibility.kind is VisibilityKind.PUBLIC:
        return Visibility.public()
    if visibility.kind is VisibilityKind.CONTROLLERS:
        return Visibility.controllers()
    return Visibility.allowed_viewers([Principal(raw) for raw in visibility.viewers])


def _environment(
    wanted: list[EnvironmentVariable] | None, present: tuple[tuple[str, str], ...]
) -> tuple[tuple[str, str], ...]:
    if wanted is None:
        return present
    if len(wanted) > ENVIRONMENT_VARIABLE_COUNT_MAX:
        raise _invalid(
            f"there are {len(wanted)} environment variables, more than {ENVIRONMENT_VARIABLE_COUNT_MAX}"
        )
    if len({v.name for v in wanted}) != len(wanted):
        raise _invalid("an environment variable stands twice")
    for variable in wanted:
        if len(variable.name.encode()) > ENVIRONMENT_NAME_SIZE_BYTES_MAX:
            raise _invalid(
                f"the name of an environment variable exceeds {ENVIRONMENT_NAME_SIZE_BYTES_MAX} bytes"
            )
        if len(variable.value.encode()) > ENVIRONMENT_VALUE_SIZE_BYTES_MAX:
            raise _invalid(
                f"environment variable {variable.name!r} exceeds {ENVIRONMENT_VALUE_SIZE_BYTES_MAX} bytes"
            )
    return tuple((v.name, v.value) for v in wanted)


def _invalid(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_ERROR, f"These settings are not valid: {text}", "IC0408")
