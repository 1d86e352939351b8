"""The management canister `aaaaa-aa` for the command line: each method used here, with its types.

The types are the replica's own (`replica.management.types`); calls are sent to the subnet of the canister
that they are about.
"""

from __future__ import annotations

from cannery.cli.typed_calls import TypedCanister
from cannery.client.agent import Agent
from cannery.client.transfer import ProgressReport
from cannery.limits import SNAPSHOT_TRANSFER_SIZE_BYTES_MAX
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as mt
from cannery.replica.management.subnets import SubnetInfo
from cannery.replica.management.watch_types import CanisterMetricsReport
from cannery.replica.places import SubnetChoice


class Management:
    """The management canister as one agent sees it."""

    def __init__(self, agent: Agent) -> None:
        self._canister = TypedCanister(agent, MANAGEMENT)

    # --- canisters ---

    def create(
        self,
        controllers: list[Principal] | None,
        cycles: int | None,
        subnet: SubnetChoice | None = None,
    ) -> Principal:
        """Create an empty canister, on a subnet if it is said which."""
        settings = None if controllers is None else mt.CanisterSettings(controllers=controllers)
        args = mt.ProvisionalCreateArgs(amount=cycles, settings=settings, subnet=subnet)
        created = self._canister.call("provisional_create_canister_with_cycles", mt.CanisterIdRecord, (args,))
        return created.canister_id

    def subnets(self) -> list[Principal]:
        """List the node's subnets by number."""
        return [found.subnet_id for found in self._canister.query("cannery_subnets", list[SubnetInfo])]

    def install(self, canister_id: Principal, mode: str, module_hash: bytes, arg: bytes) -> None:
        """Install a module that the node holds, by its hash."""
        args = mt.InstallChunkedCodeArgs(
            mode=install_mode(mode),
            target_canister=canister_id,
            store_canister=None,
            chunk_hashes_list=[],
            wasm_module_hash=module_hash,
            arg=arg,
        )
        self._canister.call_for_effect("install_chunked_code", (args,), effective=canister_id)

    def status(self, canister_id: Principal) -> mt.CanisterStatusResult:
        """Read a canister's status; controllers only."""
        args = mt.CanisterIdRecord(canister_id=canister_id)
        return self._canister.call("canister_status", mt.CanisterStatusResult, (args,), effective=canister_id)

    def start(self, canister_id: Principal) -> None:
        """Start a canister."""
        self._about("start_canister", canister_id)

    def stop(self, canister_id: Principal, *, force: bool) -> None:
        """Stop a canister; `force` turns what is open into rejects."""
        args = mt.StopArgs(canister_id=canister_id, force=force)
        self._canister.call_for_effect("cannery_stop_canister", (args,), effective=canister_id)

    def delete(self, canister_id: Principal) -> None:
        """Delete a stopped canister."""
        self._about("delete_canister", canister_id)

    def update_settings(self, canister_id: Principal, settings: mt.CanisterSettings) -> None:
        """Change the settings that are given."""
        args = mt.UpdateSettingsArgs(canister_id=canister_id, settings=settings)
        self._canister.call_for_effect("update_settings", (args,), effective=canister_id)

    def logs(self, canister_id: Principal, wanted: mt.LogFilter | None = None) -> list[mt.LogRecord]:
        """Read the canister's log, all of it or a part."""
        args = mt.FetchLogsArgs(canister_id=canister_id, filter=wanted)
        found = self._canister.query(
            "fetch_canister_logs", mt.FetchLogsResult, (args,), effective=canister_id
        )
        return found.canister_log_records

    def canister_metrics(self, canister_id: Principal) -> CanisterMetricsReport:
        """Read what a canister uses and how it answers."""
        args = mt.CanisterIdRecord(canister_id=canister_id)
        return self._canister.query(
            "cannery_canister_metrics", CanisterMetricsReport, (args,), effective=canister_id
        )

    def top_up(self, canister_id: Principal, amount: int) -> None:
        """Mint cycles for a canister; operators only."""
        args = mt.TopUpArgs(canister_id=canister_id, amount=amount)
        self._canister.call_for_effect("cannery_top_up", (args,), effective=canister_id)

    # --- snapshots ---

    def snapshot_take(self, canister_id: Principal, replaced: bytes | None) -> st.Snapshot:
        """Take a snapshot of a canister."""
        args = st.TakeSnapshotArgs(canister_id, replaced)
        return self._canister.call("take_canister_snapshot", st.Snapshot, (args,), effective=canister_id)

    def snapshot_load(self, canister_id: Principal, snapshot_id: bytes) -> None:
        """Put a snapshot's state back."""
        args = st.LoadSnapshotArgs(canister_id, snapshot_id)
        self._canister.call_for_effect("load_canister_snapshot", (args,), effective=canister_id)

    def snapshots(self, canister_id: Principal) -> list[st.Snapshot]:
        """List a canister's snapshots."""
        args = mt.CanisterIdRecord(canister_id=canister_id)
        return self._canister.call(
            "list_canister_snapshots", list[st.Snapshot], (args,), effective=canister_id
        )

    def snapshot_delete(self, canister_id: Principal, snapshot_id: bytes) -> None:
        """Delete a snapshot."""
        args = st.SnapshotArgs(canister_id, snapshot_id)
        self._canister.call_for_effect("delete_canister_snapshot", (args,), effective=canister_id)

    def snapshot_begin(
        self, canister_id: Principal, module_bytes: int, archive_bytes: int, certified_data: bytes
    ) -> bytes:
        """Begin to upload a snapshot and give its id; no module's bytes where the node has the module."""
        args = st.UploadSnapshotMetadataArgs(canister_id, module_bytes, [], 0, archive_bytes, certified_data)
        return self._canister.call(
            "upload_canister_snapshot_metadata", st.UploadedSnapshot, (args,), effective=canister_id
        ).snapshot_id

    def snapshot_send(
        self, canister_id: Principal, snapshot_id: bytes, module: bytes, archive: bytes, say: ProgressReport
    ) -> None:
        """Upload the bytes of a snapshot."""
        done, in_all = 0, len(module) + len(archive)
        for part, data in (("wasm_module", module), ("stable_memory", archive)):
            for offset in range(0, len(data), SNAPSHOT_TRANSFER_SIZE_BYTES_MAX):
                chunk = data[offset : offset + SNAPSHOT_TRANSFER_SIZE_BYTES_MAX]
                kind = getattr(st.SnapshotDataOffset, part)(st.SnapshotOffset(offset))
                args = st.UploadSnapshotDataArgs(canister_id, snapshot_id, kind, chunk)
                self._canister.call_for_effect(
                    "upload_canister_snapshot_data", (args,), effective=canister_id
                )
                done += len(chunk)
                say(done, in_all)

    def _about(self, method: str, canister_id: Principal) -> None:
        args = mt.CanisterIdRecord(canister_id=canister_id)
        self._canister.call_for_effect(method, (args,), effective=canister_id)

    # --- modules, names, operators ---

    def module_add(self, module: bytes) -> bytes:
        """Bring a module to the node; return its hash."""
        return self._canister.call("cannery_module_add", bytes, (module,))

    def module_bring(self, module: bytes, module_hash: bytes) -> None:
        """Bring a module, unless the node has it: then nobody needs to be an operator."""
        if all(info.hash != module_hash for info in self.modules()):
            self.module_add(module)

    def modules(self) -> list[mt.ModuleInfo]:
        """List the modules that the node holds."""
        return self._canister.query("cannery_module_list", list[mt.ModuleInfo])

    def names(self) -> dict[str, Principal]:
        """List the named canisters."""
        named = self._canister.query("cannery_name_list", list[mt.NamedCanister])
        return {entry.name: entry.canister_id for entry in named}

    def name_set(self, name: str, canister_id: Principal | None) -> None:
        """Name a canister, or take a name away."""
        args = mt.NameSetArgs(name=name, canister_id=canister_id)
        self._canister.call_for_effect("cannery_name_set", (args,))

    def operators(self) -> list[Principal]:
        """List the node's operators."""
        return self._canister.query("cannery_operator_list", list[Principal])

    def operator_add(self, principal: Principal) -> None:
        """Make somebody an operator."""
        self._canister.call_for_effect("cannery_operator_add", (principal,))

    def operator_remove(self, principal: Principal) -> None:
        """Make somebody no operator any more."""
        self._canister.call_for_effect("cannery_operator_remove", (principal,))


def install_mode(mode: str) -> mt.InstallMode:
    """Give the variant of an installation mode."""
    if mode == "upgrade":
        return mt.InstallMode.upgrade(None)
    return mt.InstallMode.reinstall() if mode == "reinstall" else mt.InstallMode.install()
