"""One valid argument for each method of the management canister."""

from __future__ import annotations

from cannery import Principal
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as t
from cannery.replica.management import upgrade_types as u
from cannery.replica.management.alarm import AlarmSetArgs
from cannery.replica.management.compare import ModuleCompareArgs
from cannery.replica.management.outcall_types import HttpMethod, HttpRequestArgs

_HASH = bytes(32)
_SOMEBODY = Principal.self_authenticating(b"somebody")


def example_argument(method: str, canister: Principal) -> object:
    """Give a valid argument about this canister; None for methods without one."""
    special: dict[str, object] = {
        "create_canister": t.CreateCanisterArgs(),
        "provisional_create_canister_with_cycles": t.ProvisionalCreateArgs(),
        "provisional_top_up_canister": t.ProvisionalTopUpArgs(canister, 5),
        "cannery_top_up": t.TopUpArgs(canister, 5),
        "update_settings": t.UpdateSettingsArgs(canister, t.CanisterSettings()),
        "install_code": t.InstallCodeArgs(t.InstallMode.reinstall(), canister, b"\x00asm", b""),
        "install_chunked_code": t.InstallChunkedCodeArgs(
            t.InstallMode.reinstall(), canister, None, [t.ChunkHash(_HASH)], _HASH, b""
        ),
        "cannery_create_installed": t.CreateInstalledArgs(_HASH, b"", []),
        "uninstall_code": t.VersionedCanisterId(canister),
        "cannery_stop_canister": t.StopArgs(canister, True),
        "cannery_delete_canister": t.DeleteArgs(canister),
        "upload_chunk": t.UploadChunkArgs(canister, b"chunk"),
        "take_canister_snapshot": st.TakeSnapshotArgs(canister),
        "load_canister_snapshot": st.LoadSnapshotArgs(canister, bytes(8) + canister.raw),
        "delete_canister_snapshot": st.SnapshotArgs(canister, bytes(8) + canister.raw),
        "read_canister_snapshot_metadata": st.SnapshotArgs(canister, bytes(8) + canister.raw),
        "read_canister_snapshot_data": st.ReadSnapshotDataArgs(
            canister, bytes(8) + canister.raw, st.SnapshotDataKind.stable_memory(st.SnapshotRange(0, 1))
        ),
        "upload_canister_snapshot_metadata": st.UploadSnapshotMetadataArgs(canister, 5, [], 0, 5, b""),
        "upload_canister_snapshot_data": st.UploadSnapshotDataArgs(
            canister,
            bytes(8) + canister.raw,
            st.SnapshotDataOffset.wasm_module(st.SnapshotOffset(0)),
            b"chunk",
        ),
        "canister_info": t.CanisterInfoArgs(canister),
        "canister_metadata": t.CanisterMetadataArgs(canister, "candid:service"),
        "fetch_canister_logs": t.FetchLogsArgs(canister),
        "cannery_canister_list": t.CanisterListArgs(None, 10),
        "cannery_module_add_chunked": t.ModuleAddChunkedArgs(canister, [t.ChunkHash(_HASH)], _HASH),
        "cannery_module_compare": ModuleCompareArgs(_HASH, _HASH),
        "cannery_replace": t.ReplaceArgs(canister, _HASH, b""),
        "cannery_status_many": [canister],
        "cannery_alarm_set": AlarmSetArgs([canister], 5),
        "cannery_upgrade_many": u.UpgradeManyArgs(_HASH, b"", [canister], False),
        "cannery_module_add": b"\x00asm",
        "cannery_canary": b"word",
        "http_request": HttpRequestArgs("https://a.org", None, HttpMethod.get(), [], None, None),
        "cannery_name_set": t.NameSetArgs("name", canister),
        "cannery_operator_add": _SOMEBODY,
        "cannery_cycles_take": t.TakeCyclesArgs(canister),
        "cannery_fleet_module_put": ft.FleetModuleArgs(_HASH, "user", 1),
        "cannery_fleet_module_remove": _HASH,
        "cannery_fleet_configure": ft.FleetConfigureArgs([], [], [ft.FleetValue("open", "yes")]),
        "cannery_fleet_info": canister,
        "cannery_fleet_appoint": canister,
        "cannery_fleet_dismiss": canister,
        "cannery_fleet_members": ft.FleetMembersArgs(canister, None, 10),
        "cannery_operator_remove": _SOMEBODY,
    }
    if method in special:
        return special[method]
    if method in _WITHOUT:
        return None
    return t.CanisterIdRecord(canister)


_WITHOUT = frozenset(
    {
        "raw_rand",
        "list_canisters",
        "cannery_operator_list",
        "cannery_module_list",
        "cannery_subnets",
        "cannery_name_list",
        "cannery_cycles",
        "cannery_fleet_found",
        "cannery_fleet_list",
    }
)
