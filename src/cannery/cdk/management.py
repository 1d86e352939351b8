"""The management canister as authors call it: a typed interface of `aaaaa-aa`.

IC interface specification 0.66, `ic.did`; methods with the prefix `cannery_` are this node's own. Only what a
canister needs stands here: results name the fields that are read, and Candid's subtyping skips the rest.

    return ctx.call(Management().deposit_cycles(CanisterIdArg(child)), then=self.funded, cycles=10**12)
"""

from __future__ import annotations

from cannery.candid.python import Case, Variant, field, nat, nat32, nat64, record, variant
from cannery.cdk.outcalls import HttpRequestArgs, HttpResult
from cannery.cdk.service import Service, method
from cannery.protocol.principal import Principal


@record
class CanisterIdArg:
    """A canister by its id: the argument of many methods."""

    canister_id: Principal


@record
class CanisterSettings:
    """Settings to change; what is None stays as it is, or takes its default at creation."""

    controllers: list[Principal] | None = None
    freezing_threshold: nat | None = None
    memory_allocation: nat | None = None
    reserved_cycles_limit: nat | None = None


@variant
class SubnetChoice(Variant):
    """Where a canister is made: on the subnet with the fewest canisters, or on a named one."""

    any: Case[None]
    id: Case[Principal]


@record
class SubnetInfo:
    """A subnet of the node, and the ids that it gives; `answers`: it was asked, and its count is exact."""

    subnet_id: Principal
    first_canister: Principal
    last_canister: Principal
    canister_count: nat64
    answers: bool


@record
class CreateCanisterArgs:
    """Arguments of `create_canister`; the attached cycles become the new canister's balance. Without `subnet`
    it is made on the caller's.
    """

    settings: CanisterSettings | None = None
    subnet: SubnetChoice | None = None


@record
class CreateCanisterResult:
    """The new canister."""

    canister_id: Principal


@record
class UpdateSettingsArgs:
    """Arguments of `update_settings`."""

    canister_id: Principal
    settings: CanisterSettings


@record
class UpgradeFlags:
    """Options of an upgrade."""

    skip_pre_upgrade: bool | None = None


@variant
class InstallMode(Variant):
    """What an installation does with what is there."""

    install: Case[None]
    reinstall: Case[None]
    upgrade: Case[UpgradeFlags | None]


@record
class ChunkHash:
    """The SHA-256 of a chunk."""

    hash: bytes


@record
class InstallChunkedCodeArgs:
    """Arguments of `install_chunked_code`; a module that the node knows by its hash needs no chunks."""

    mode: InstallMode
    target_canister: Principal
    wasm_module_hash: bytes
    arg: bytes
    chunk_hashes_list: list[ChunkHash]
    store_canister: Principal | None = None


@record
class CreateInstalledArgs:
    """Arguments of `cannery_create_installed`."""

    module_hash: bytes
    arg: bytes
    controllers: list[Principal]
    subnet: SubnetChoice | None = None


@record
class CreateInstalledResult:
    """The canister that was made and installed."""

    canister_id: Principal


@variant
class CanisterState(Variant):
    """Where a canister stands between running and stopped."""

    running: Case[None]
    stopping: Case[None]
    stopped: Case[None]


@record
class CanisterStatus:
    """What `canister_status` tells a controller, as far as canisters read it."""

    status: CanisterState
    version: nat64
    module_hash: bytes | None
    memory_size: nat
    cycles: nat
    idle_cycles_burned_per_day: nat


@record
class CanisterInfoArgs:
    """Arguments of `canister_info`."""

    canister_id: Principal
    num_requested_changes: nat64 | None = None


@record
class CanisterInfo:
    """What anybody may know of a canister."""

    total_num_changes: nat64
    module_hash: bytes | None
    controllers: list[Principal]


@record
class Snapshot:
    """A snapshot of a canister; `total_size` counts in the canister's memory size."""

    id: bytes
    taken_at_timestamp: nat64
    total_size: nat64


@record
class StopCanisterArgs:
    """Arguments of `cannery_stop_canister`: `force` turns what is open into rejects."""

    canister_id: Principal
    force: bool


@record
class DeleteCanisterArgs:
    """Arguments of `cannery_delete_canister`; without `cycles_to` the canister's cycles burn."""

    canister_id: Principal
    cycles_to: Principal | None = None


@record
class TakeCyclesArgs:
    """Arguments of `cannery_cycles_take`; no amount: all of them."""

    canister_id: Principal
    amount: nat | None


@record
class TakeSnapshotArgs:
    """Arguments of `take_canister_snapshot`."""

    canister_id: Principal
    replace_snapshot: bytes | None = None
    uninstall_code: bool | None = None


@record
class SnapshotArgs:
    """A canister and a snapshot: the argument of `load_canister_snapshot` and `delete_canister_snapshot`."""

    canister_id: Principal
    snapshot_id: bytes


@record
class FleetModuleArgs:
    """A module of the node for the registry of the caller's fleet."""

    module_hash: bytes
    kind: str
    version: nat64


@record
class FleetRole:
    """Principals in a role."""

    role: str
    principals: list[Principal]


@record
class FleetValue:
    """A named value to set; without a value the name is removed."""

    name: str
    value: str | None


@record
class FleetConfigureArgs:
    """Changes to a fleet's configuration: roles that are given, roles that are taken away, values."""

    roles: list[FleetRole]
    remove_roles: list[FleetRole]
    values: list[FleetValue]


@record
class FleetConfigureResult:
    """The configuration's version; `waiting` are the members that do not have it yet: none on one subnet."""

    version: nat64
    waiting: list[Principal]


@record
class FleetMembersArgs:
    """A page of a fleet's members, in the order of their ids, from the one behind `after`."""

    fleet: Principal
    after: Principal | None
    limit: nat32


@record
class FleetInfo:
    """A fleet as the node knows it."""

    members: nat64
    config_version: nat64
    config_at_ns: nat64
    modules: list[FleetModuleArgs]
    roles: list[FleetRole]
    values: list[FleetValue]


@record
class ReplaceArgs:
    """Arguments of `cannery_replace`; `expected`: the module that the canister must be on."""

    canister_id: Principal
    module_hash: bytes
    arg: bytes
    expected: bytes | None = None


@record
class ModuleCompareArgs:
    """Two modules of the node: the one that is there, and the one that may follow it."""

    from_module: bytes = field(name="from")
    to_module: bytes = field(name="to")


@record
class ModuleDifferences:
    """What keeps a module from following another, and from being followed by it; None: nothing."""

    interface: str | None
    state: str | None
    back_interface: str | None
    back_state: str | None


@record
class ModuleAddChunkedArgs:
    """Arguments of `cannery_module_add_chunked`: the chunks of a module's file, in their order."""

    store_canister: Principal
    chunk_hashes_list: list[ChunkHash]
    module_hash: bytes


@record
class CanisterReport:
    """A canister's figures, as `cannery_status_many` tells them.

    `kind` and `version` are those of its module in the registry of its fleet; `burned` to `traps` count from
    its creation; `active_ns` is the time of the last message that it ran; `message_fee` is what the smallest
    signed message costs before it does anything.
    """

    fleet: Principal | None
    kind: str | None
    version: nat64 | None
    module_hash: bytes | None
    running: CanisterState
    cycles: nat
    burned: nat
    memory_size: nat
    key_count: nat64
    messages: nat64
    rejects: nat64
    traps: nat64
    queued: nat64
    calls_open: nat64
    created_ns: nat64
    installed_ns: nat64
    active_ns: nat64
    frozen: bool
    idle_burned_per_day: nat
    freezing_limit: nat
    message_fee: nat
    controllers: list[Principal]
    replaced_by: Principal | None


@record
class StatusManyResult:
    """A target and its figures, where the caller may see them. `is_gone`: there is no such canister."""

    canister_id: Principal
    status: CanisterReport | None
    is_gone: bool | None = None


@record
class UpgradeManyArgs:
    """Arguments of `cannery_upgrade_many`.

    `force` leaves the check of the interface out, `skip_pre_upgrade` the running module's hook. `only_from`
    skips canisters on any other module, `active_since_ns` those that have run nothing since.
    """

    module_hash: bytes
    arg: bytes
    targets: list[Principal]
    force: bool
    only_from: bytes | None = None
    active_since_ns: nat64 | None = None
    skip_pre_upgrade: bool | None = None


@record
class Upgraded:
    """The module that a canister came from."""

    from_module: bytes = field(name="from")


@record
class UpgradeFailure:
    """Why a canister is as it was: reject code, text, error code, and the module that it is on."""

    code: nat32
    text: str
    from_module: bytes | None = field(name="from")
    error_code: str | None = None


@variant
class UpgradeOutcome(Variant):
    """What became of one canister."""

    upgraded: Case[Upgraded]
    unchanged: Case[None]
    skipped: Case[str]
    failed: Case[UpgradeFailure]


@record
class UpgradeResult:
    """A target and what became of it."""

    canister_id: Principal
    outcome: UpgradeOutcome


@record
class AlarmSetArgs:
    """Canisters, and the balance under which the index of their fleet is told; 0: no alarm."""

    targets: list[Principal]
    cycles: nat


class Management(Service):
    """The management canister; `Management()` needs no id, `Management(subnet)` is that of another subnet."""

    def __init__(self, subnet: Principal | None = None) -> None:
        super().__init__(Principal.management() if subnet is None else subnet)

    @method
    def create_canister(self, args: CreateCanisterArgs) -> CreateCanisterResult: ...

    @method
    def cannery_subnets(self) -> list[SubnetInfo]:
        """List the node's subnets."""

    @method
    def cannery_create_installed(self, args: CreateInstalledArgs) -> CreateInstalledResult:
        """Make a canister and install a known module in it, in one step that leaves nothing where it
        fails."""

    @method
    def install_chunked_code(self, args: InstallChunkedCodeArgs) -> None: ...

    @method
    def uninstall_code(self, args: CanisterIdArg) -> None: ...

    @method
    def update_settings(self, args: UpdateSettingsArgs) -> None: ...

    @method
    def canister_status(self, args: CanisterIdArg) -> CanisterStatus: ...

    @method
    def canister_info(self, args: CanisterInfoArgs) -> CanisterInfo: ...

    @method
    def start_canister(self, args: CanisterIdArg) -> None: ...

    @method
    def stop_canister(self, args: CanisterIdArg) -> None: ...

    @method
    def cannery_stop_canister(self, args: StopCanisterArgs) -> None: ...

    @method
    def cannery_delete_canister(self, args: DeleteCanisterArgs) -> None:
        """Turn what a canister has open into rejects, and delete it once it rests; also the caller itself."""

    @method
    def cannery_cycles_take(self, args: TakeCyclesArgs) -> None:
        """Take cycles of a canister that the caller controls and that has no module."""

    @method
    def delete_canister(self, args: CanisterIdArg) -> None: ...

    @method
    def deposit_cycles(self, args: CanisterIdArg) -> None: ...

    @method
    def take_canister_snapshot(self, args: TakeSnapshotArgs) -> Snapshot:
        """Save a canister's state beside it; nothing is stopped."""

    @method
    def load_canister_snapshot(self, args: SnapshotArgs) -> None:
        """Put a saved state back; open calls of the canister are rejected, its calls in flight forgotten."""

    @method
    def list_canister_snapshots(self, args: CanisterIdArg) -> list[Snapshot]: ...

    @method
    def delete_canister_snapshot(self, args: SnapshotArgs) -> None: ...

    @method
    def cannery_fleet_found(self) -> None:
        """Become the index of a fleet: canisters that this one makes from now on are its members."""

    @method
    def cannery_fleet_module_put(self, args: FleetModuleArgs) -> None:
        """Let members run a module; put it there before the first canister is made with it."""

    @method
    def cannery_fleet_module_remove(self, module_hash: bytes) -> None: ...

    @method
    def cannery_fleet_configure(self, args: FleetConfigureArgs) -> FleetConfigureResult:
        """Change roles and values for all members at once."""

    @method
    def cannery_fleet_appoint(self, canister: Principal) -> None:
        """Let a member that the caller made be a local index: what it makes joins the caller's fleet."""

    @method
    def cannery_fleet_dismiss(self, canister: Principal) -> None:
        """Take an appointment away: what the canister makes from now on joins no fleet."""

    @method
    def cannery_fleet_members(self, args: FleetMembersArgs) -> list[Principal]:
        """List members of a fleet, 1,000 at a time: the index, its controllers and operators may; of a local
        index, those that it made.
        """

    @method
    def cannery_fleet_info(self, fleet: Principal) -> FleetInfo: ...

    @method
    def raw_rand(self) -> bytes: ...

    @method
    def http_request(self, args: HttpRequestArgs) -> HttpResult:
        """Ask the world outside; `cdk.outcalls` makes arguments. Attach cycles where the node has prices."""

    @method
    def cannery_replace(self, args: ReplaceArgs) -> CanisterIdArg:
        """Move a canister to a new id with all that it holds, upgraded; the old id points to the new one."""

    @method
    def cannery_module_compare(self, args: ModuleCompareArgs) -> ModuleDifferences:
        """Say whether a module can follow another, and whether there is a way back."""

    @method
    def cannery_module_add_chunked(self, args: ModuleAddChunkedArgs) -> bytes:
        """Bring a module out of a chunk store, as an operator who controls it; gives the module's hash."""

    @method
    def cannery_status_many(self, targets: list[Principal]) -> list[StatusManyResult]:
        """Tell the figures of up to 1,000 canisters."""

    @method
    def cannery_alarm_set(self, args: AlarmSetArgs) -> list[Principal]:
        """Let the index of a fleet be told when members fall under this balance; gives those left out."""

    @method
    def cannery_upgrade_many(self, args: UpgradeManyArgs) -> list[UpgradeResult]:
        """Upgrade up to 1,000 canisters, each in a message of its own; the answer has one result for each."""


def install_known(
    target: Principal, module_hash: bytes, arg: bytes, mode: InstallMode | None = None
) -> InstallChunkedCodeArgs:
    """Make the arguments that install a module which the node knows by its hash."""
    return InstallChunkedCodeArgs(
        mode=InstallMode.install() if mode is None else mode,
        target_canister=target,
        wasm_module_hash=module_hash,
        arg=arg,
        chunk_hashes_list=[],
    )
