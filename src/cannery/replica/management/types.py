"""Candid types of the management canister: arguments and results of every method that is present.

IC interface specification 0.66, `ic.did`, and the methods that Cannery adds (prefix `cannery_`). Cases of
variants in results that cannot occur here (renamed canisters) are left out: the types stay subtypes of those
in `ic.did`. Two fields stand here that the specification lacks and clients demand: `log_memory_limit` of the
settings and `log_memory_store_size` of the memory metrics. Types about snapshots stand in `snapshot_types`,
what the methods do in the modules beside this one.
"""

from __future__ import annotations

from cannery.candid.python import Case, Variant, nat, nat32, nat64, record, variant
from cannery.protocol.principal import Principal
from cannery.replica.management.snapshot_types import SnapshotSource
from cannery.replica.places import SubnetChoice

# --- shared --------------------------------------------------------------------------------------------


@record
class CanisterIdRecord:
    """A canister, by its id."""

    canister_id: Principal


@record
class VersionedCanisterId:
    """A canister, by its id; the caller's own version where the caller is a canister."""

    canister_id: Principal
    sender_canister_version: nat64 | None = None


# --- settings ------------------------------------------------------------------------------------------


@variant
class Visibility(Variant):
    """Who may see a part of a canister."""

    controllers: Case[None]
    public: Case[None]
    allowed_viewers: Case[list[Principal]]


@record
class EnvironmentVariable:
    """A setting that the canister reads itself."""

    name: str
    value: str


@record
class CanisterSettings:
    """Settings to change; what is absent stays as it is, or takes its default at creation."""

    controllers: list[Principal] | None = None
    compute_allocation: nat | None = None
    memory_allocation: nat | None = None
    freezing_threshold: nat | None = None
    reserved_cycles_limit: nat | None = None
    minimum_incoming_canister_call_cycles: nat | None = None
    log_visibility: Visibility | None = None
    log_memory_limit: nat | None = None
    snapshot_visibility: Visibility | None = None
    status_visibility: Visibility | None = None
    wasm_memory_limit: nat | None = None
    wasm_memory_threshold: nat | None = None
    environment_variables: list[EnvironmentVariable] | None = None


@record
class DefiniteCanisterSettings:
    """Settings in force."""

    controllers: list[Principal]
    compute_allocation: nat
    memory_allocation: nat
    freezing_threshold: nat
    reserved_cycles_limit: nat
    minimum_incoming_canister_call_cycles: nat
    log_visibility: Visibility
    log_memory_limit: nat
    snapshot_visibility: Visibility
    status_visibility: Visibility
    wasm_memory_limit: nat
    wasm_memory_threshold: nat
    environment_variables: list[EnvironmentVariable]


# --- creation and settings -----------------------------------------------------------------------------


@record
class CreateCanisterArgs:
    """Arguments of `create_canister`."""

    settings: CanisterSettings | None = None
    sender_canister_version: nat64 | None = None
    subnet: SubnetChoice | None = None


@record
class ProvisionalCreateArgs:
    """Arguments of `provisional_create_canister_with_cycles`."""

    amount: nat | None = None
    settings: CanisterSettings | None = None
    specified_id: Principal | None = None
    sender_canister_version: nat64 | None = None
    subnet: SubnetChoice | None = None


@record
class ProvisionalTopUpArgs:
    """Arguments of `provisional_top_up_canister`."""

    canister_id: Principal
    amount: nat


@record
class UpdateSettingsArgs:
    """Arguments of `update_settings`."""

    canister_id: Principal
    settings: CanisterSettings
    sender_canister_version: nat64 | None = None


# --- code ----------------------------------------------------------------------------------------------


@variant
class WasmMemoryPersistence(Variant):
    """What becomes of Wasm memory at an upgrade; Python canisters have none, so it changes nothing."""

    keep: Case[None]
    replace: Case[None]


@record
class UpgradeFlags:
    """Options of an upgrade."""

    skip_pre_upgrade: bool | None = None
    wasm_memory_persistence: WasmMemoryPersistence | None = None


@variant
class InstallMode(Variant):
    """What an installation does with what is there."""

    install: Case[None]
    reinstall: Case[None]
    upgrade: Case[UpgradeFlags | None]


@record
class InstallCodeArgs:
    """Arguments of `install_code`."""

    mode: InstallMode
    canister_id: Principal
    wasm_module: bytes
    arg: bytes
    sender_canister_version: nat64 | None = None


@record
class ChunkHash:
    """The SHA-256 of a chunk."""

    hash: bytes


@record
class InstallChunkedCodeArgs:
    """Arguments of `install_chunked_code`."""

    mode: InstallMode
    target_canister: Principal
    store_canister: Principal | None
    chunk_hashes_list: list[ChunkHash]
    wasm_module_hash: bytes
    arg: bytes
    sender_canister_version: nat64 | None = None


@record
class UploadChunkArgs:
    """Arguments of `upload_chunk`."""

    canister_id: Principal
    chunk: bytes


# --- status --------------------------------------------------------------------------------------------


@variant
class StatusKind(Variant):
    """Where a canister stands between running and stopped."""

    running: Case[None]
    stopping: Case[None]
    stopped: Case[None]


@record
class MemoryMetrics:
    """Bytes by what they are for."""

    wasm_memory_size: nat
    stable_memory_size: nat
    global_memory_size: nat
    wasm_binary_size: nat
    custom_sections_size: nat
    canister_history_size: nat
    wasm_chunk_store_size: nat
    snapshots_size: nat
    log_memory_store_size: nat


@record
class QueryStats:
    """Counts of queries; queries leave no trace in the replicated state, so all are zero."""

    num_calls_total: nat
    num_instructions_total: nat
    request_payload_bytes_total: nat
    response_payload_bytes_total: nat


@record
class CanisterStatusResult:
    """Result of `canister_status`."""

    status: StatusKind
    ready_for_migration: bool
    version: nat64
    settings: DefiniteCanisterSettings
    module_hash: bytes | None
    memory_size: nat
    memory_metrics: MemoryMetrics
    cycles: nat
    reserved_cycles: nat
    idle_cycles_burned_per_day: nat
    query_stats: QueryStats


@record
class CyclesConsumed:
    """Cycles that a canister has used up, by purpose, since its creation."""

    memory: nat
    compute_allocation: nat
    ingress_induction: nat
    instructions: nat
    request_and_response_transmission: nat
    uninstall: nat
    canister_creation: nat
    http_outcalls: nat
    burned_cycles: nat


@record
class CanisterMetricsResult:
    """Result of `canister_metrics`."""

    cycles_consumed: CyclesConsumed


@record
class CanisterInfoArgs:
    """Arguments of `canister_info`."""

    canister_id: Principal
    num_requested_changes: nat64 | None = None


@record
class FromUser:
    """A change made by a user."""

    user_id: Principal


@record
class FromCanister:
    """A change made by a canister."""

    canister_id: Principal
    canister_version: nat64 | None


@variant
class ChangeOrigin(Variant):
    """Who made a change."""

    from_user: Case[FromUser]
    from_canister: Case[FromCanister]


@record
class Creation:
    """The canister was made, with these controllers."""

    controllers: list[Principal]
    environment_variables_hash: bytes | None


@variant
class DeploymentMode(Variant):
    """The mode of an installation, in the history."""

    install: Case[None]
    reinstall: Case[None]
    upgrade: Case[None]


@record
class CodeDeployment:
    """Code was installed."""

    mode: DeploymentMode
    module_hash: bytes


@record
class ControllersChange:
    """The controllers became these."""

    controllers: list[Principal]


@record
class SnapshotLoad:
    """A snapshot was loaded; `from_canister_id` where it was another canister's."""

    from_canister_id: Principal | None
    snapshot_id: bytes
    canister_version: nat64
    taken_at_timestamp: nat64
    source: SnapshotSource


@variant
class ChangeDetails(Variant):
    """What changed."""

    creation: Case[Creation]
    code_uninstall: Case[None]
    code_deployment: Case[CodeDeployment]
    load_snapshot: Case[SnapshotLoad]
    controllers_change: Case[ControllersChange]


@record
class Change:
    """An entry of a canister's history."""

    timestamp_nanos: nat64
    canister_version: nat64
    origin: ChangeOrigin
    details: ChangeDetails


@record
class CanisterInfoResult:
    """Result of `canister_info`."""

    total_num_changes: nat64
    recent_changes: list[Change]
    module_hash: bytes | None
    controllers: list[Principal]


@record
class CanisterMetadataArgs:
    """Arguments of `canister_metadata`."""

    canister_id: Principal
    name: str


@record
class CanisterMetadataResult:
    """Result of `canister_metadata`."""

    value: bytes


# --- logs and lists ------------------------------------------------------------------------------------


@record
class LogRange:
    """Entries from `start` up to `end`, which is not included."""

    start: nat64
    end: nat64


@variant
class LogFilter(Variant):
    """Which entries of a log are wanted."""

    by_idx: Case[LogRange]
    by_timestamp_nanos: Case[LogRange]


@record
class FetchLogsArgs:
    """Arguments of `fetch_canister_logs`; the filter is newer than the specification."""

    canister_id: Principal
    filter: LogFilter | None = None


@record
class LogRecord:
    """An entry of a canister's log; `is_trap`, an addition of Cannery's: a message failed with this text."""

    idx: nat64
    timestamp_nanos: nat64
    content: bytes
    is_trap: bool


@record
class FetchLogsResult:
    """Result of `fetch_canister_logs`."""

    canister_log_records: list[LogRecord]


@record
class CanisterIdRange:
    """Canisters from `start` to `end`, both included."""

    start: Principal
    end: Principal


@record
class ListCanistersResult:
    """Result of `list_canisters`."""

    canisters: list[CanisterIdRange]


# --- what Cannery adds ---------------------------------------------------------------------------------


@record
class StopArgs:
    """Arguments of `cannery_stop_canister`; `force` turns what is open into rejects."""

    canister_id: Principal
    force: bool


@record
class DeleteArgs:
    """Arguments of `cannery_delete_canister`; without `cycles_to` the canister's cycles burn."""

    canister_id: Principal
    cycles_to: Principal | None = None


@record
class ModuleAddChunkedArgs:
    """Arguments of `cannery_module_add_chunked`: the chunks of a module's file, in their order."""

    store_canister: Principal
    chunk_hashes_list: list[ChunkHash]
    module_hash: bytes


@record
class ModuleInfo:
    """A module that the node holds, and how many canisters run on it."""

    hash: bytes
    size: nat64
    added_ns: nat64
    name: str
    kit_version: str
    canisters: nat64


@record
class NameSetArgs:
    """A name for a canister; without a canister the name is removed."""

    name: str
    canister_id: Principal | None


@record
class NamedCanister:
    """A canister that has a name in this node."""

    name: str
    canister_id: Principal


@record
class TopUpArgs:
    """Cycles that an operator mints for a canister."""

    canister_id: Principal
    amount: nat


@record
class CyclesReport:
    """The node's cycles: `minted` = `burned` + `held`."""

    minted: nat
    burned: nat
    held: nat


@record
class CanisterListArgs:
    """A page of canisters, in the order of their ids."""

    after: Principal | None
    limit: nat32


@record
class CanisterSummary:
    """A canister in a list."""

    canister_id: Principal
    status: StatusKind
    module_hash: bytes | None
    controllers: list[Principal]
    memory_size: nat64
    cycles: nat


@record
class CanisterListResult:
    """A page; `next` is given as `after` for the page that follows."""

    canisters: list[CanisterSummary]
    next: Principal | None


@record
class TakeCyclesArgs:
    """Arguments of `cannery_cycles_take`; no amount: all of them."""

    canister_id: Principal
    amount: nat | None = None


@record
class ReplaceArgs:
    """Arguments of `cannery_replace`; `expected`: the module that the canister must be on."""

    canister_id: Principal
    module_hash: bytes
    arg: bytes
    expected: bytes | None = None


@record
class CreateInstalledArgs:
    """Arguments of `cannery_create_installed`: a canister that runs a known module from the first."""

    module_hash: bytes
    arg: bytes
    controllers: list[Principal]
    subnet: SubnetChoice | None = None
