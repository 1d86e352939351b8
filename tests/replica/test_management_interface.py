"""The interface as a whole: all of `ic.did` is present or absent with a reason; routing; documents."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Principal
from cannery.candid.codec import encoder
from cannery.candid.did import format_did
from cannery.candid.types import Nat, PrincipalType, Text, Type, record_of
from cannery.errors import Reject
from cannery.replica.management import types as t
from cannery.replica.management.absent import ABSENT
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.interface import management_interface
from cannery.replica.management.routing import (
    effective_canister_id,
    management_query_methods,
    management_update_methods,
)
from tests.replica.management_world import OPERATOR, Rejected, World, encode_argument

DOCS = Path(__file__).parents[2] / "docs"

IC_METHODS = [
    "create_canister",
    "update_settings",
    "upload_chunk",
    "clear_chunk_store",
    "stored_chunks",
    "install_code",
    "install_chunked_code",
    "uninstall_code",
    "start_canister",
    "stop_canister",
    "canister_status",
    "canister_metrics",
    "delete_canister",
    "deposit_cycles",
    "raw_rand",
    "http_request",
    "canister_info",
    "canister_metadata",
    "ecdsa_public_key",
    "sign_with_ecdsa",
    "schnorr_public_key",
    "sign_with_schnorr",
    "vetkd_public_key",
    "vetkd_derive_key",
    "bitcoin_get_balance",
    "bitcoin_get_utxos",
    "bitcoin_send_transaction",
    "bitcoin_get_current_fee_percentiles",
    "bitcoin_get_block_headers",
    "node_metrics_history",
    "subnet_info",
    "provisional_create_canister_with_cycles",
    "provisional_top_up_canister",
    "take_canister_snapshot",
    "load_canister_snapshot",
    "read_canister_snapshot_metadata",
    "read_canister_snapshot_data",
    "upload_canister_snapshot_metadata",
    "upload_canister_snapshot_data",
    "list_canister_snapshots",
    "delete_canister_snapshot",
    "fetch_canister_logs",
    "list_canisters",
]
"""The methods of `ic.did` in version 0.66 of the IC interface specification."""

STATUS_FIELDS = [
    "status",
    "ready_for_migration",
    "version",
    "settings",
    "module_hash",
    "memory_size",
    "memory_metrics",
    "cycles",
    "reserved_cycles",
    "idle_cycles_burned_per_day",
    "query_stats",
]
SETTINGS_FIELDS = [
    "controllers",
    "compute_allocation",
    "memory_allocation",
    "freezing_threshold",
    "reserved_cycles_limit",
    "minimum_incoming_canister_call_cycles",
    "log_visibility",
    "snapshot_visibility",
    "status_visibility",
    "wasm_memory_limit",
    "wasm_memory_threshold",
    "environment_variables",
    "log_memory_limit",
]
MEMORY_FIELDS = [
    "wasm_memory_size",
    "stable_memory_size",
    "global_memory_size",
    "wasm_binary_size",
    "custom_sections_size",
    "canister_history_size",
    "wasm_chunk_store_size",
    "snapshots_size",
    "log_memory_store_size",
]

CANISTER = Principal(bytes.fromhex("00000000001000070101"))


def test_each_method_of_the_ic_is_present_or_absent_with_a_reason() -> None:
    present = {name for name in METHODS if not name.startswith("cannery_")}
    assert present | set(ABSENT) == set(IC_METHODS)
    assert not present & set(ABSENT)
    assert all(len(reason) > 20 for reason in ABSENT.values())


@pytest.mark.parametrize("method", sorted(ABSENT))
def test_an_absent_method_says_why(method: str) -> None:
    world = World()
    for call in (world.manage, world.manage_unadmitted, world.ask):
        with pytest.raises(Rejected) as caught:
            call(OPERATOR, method)
        assert ABSENT[method] in caught.value.text
        assert caught.value.code == 4


def test_an_unknown_method_is_told_so() -> None:
    world = World()
    for call in (world.manage, world.manage_unadmitted, world.ask):
        with pytest.raises(Rejected, match="has no method 'no_such_method'") as caught:
            call(OPERATOR, "no_such_method")
        assert (caught.value.code, caught.value.error_code) == (5, "IC0536")


def test_status_has_every_field_that_strict_clients_want() -> None:
    def names(cls: type) -> set[str]:
        return set(cls.__dataclass_fields__)  # type: ignore[attr-defined]  # records are dataclasses

    assert names(t.CanisterStatusResult) == set(STATUS_FIELDS)
    assert names(t.DefiniteCanisterSettings) == set(SETTINGS_FIELDS) == names(t.CanisterSettings)
    assert names(t.MemoryMetrics) == set(MEMORY_FIELDS)


def test_the_interface_file_is_that_of_the_code() -> None:
    assert (DOCS / "management.did").read_text() == format_did(management_interface())


def test_the_table_of_methods_names_each_one() -> None:
    text = (DOCS / "management.md").read_text()
    for name in [*METHODS, *ABSENT]:
        assert f"`{name}`" in text, f"docs/management.md does not tell of {name}"
    for reason in ABSENT.values():
        assert reason in text


def test_updates_and_queries_are_told_apart() -> None:
    world = World()
    for name in management_query_methods - management_update_methods:
        with pytest.raises(Rejected, match="is a query"):
            world.manage(OPERATOR, name, _argument(name))
    for name in management_update_methods - management_query_methods:
        with pytest.raises(Rejected, match="cannot be called as a query"):
            world.ask(OPERATOR, name, _argument(name))
    for name in set(METHODS) - management_update_methods - management_query_methods:
        with pytest.raises(Rejected, match="is for canisters"):
            world.manage(OPERATOR, name, _argument(name))
        with pytest.raises(Rejected, match="is for canisters"):
            world.manage_unadmitted(OPERATOR, name, _argument(name))


@pytest.mark.parametrize("method", sorted(m for m in METHODS if METHODS[m].args))
def test_an_argument_of_another_type_is_refused(method: str) -> None:
    world = World()
    wrong = encoder((record_of({"nothing": Text()}),))(({"nothing": "x"},))
    if method in ("create_canister", "provisional_create_canister_with_cycles"):
        wrong = b"DIDL"
    for bad in (wrong, b"", b"garbage"):
        as_query = METHODS[method].update is None
        with pytest.raises(Rejected, match=r"does not decode|is for canisters"):
            world.query(OPERATOR, Principal(b""), method, bad) if as_query else world.call(
                OPERATOR, Principal(b""), method, bad
            )


# --- routing ------------------------------------------------------------------------------------------------


def test_the_effective_canister_id_is_the_canister_that_the_argument_names() -> None:
    for method in (
        "canister_status",
        "install_code",
        "stop_canister",
        "update_settings",
        "fetch_canister_logs",
    ):
        assert effective_canister_id(method, _bytes_naming("canister_id")) == CANISTER.raw
    assert effective_canister_id("install_chunked_code", _bytes_naming("target_canister")) == CANISTER.raw


def test_creation_and_lists_go_with_any_effective_canister_id() -> None:
    for method in ("create_canister", "provisional_create_canister_with_cycles", "list_canisters"):
        assert effective_canister_id(method, b"whatever") is None
    assert effective_canister_id("sign_with_ecdsa", b"") is None
    assert effective_canister_id("no_such_method", b"") is None


def test_a_call_that_names_no_canister_is_refused() -> None:
    with pytest.raises(Reject, match="names no canister in canister_id"):
        effective_canister_id("install_code", _bytes_naming("target_canister"))
    with pytest.raises(Reject, match="names no canister in target_canister"):
        effective_canister_id("install_chunked_code", _bytes_naming("canister_id"))


@given(st.sampled_from(sorted(METHODS)), st.binary(max_size=60))
def test_routing_takes_any_bytes(method: str, data: bytes) -> None:
    for arg in (data, b"DIDL" + data):
        try:
            found = effective_canister_id(method, arg)
        except Reject:
            continue
        assert found is None or len(found) <= 29


def _bytes_naming(field: str) -> bytes:
    """Encode a record as clients of any version may send it: more fields than are known here."""
    fields: dict[str, Type] = {field: PrincipalType(), "more": Nat()}
    return encoder((record_of(fields),))(({field: CANISTER, "more": 5},))


def _argument(method: str) -> object:
    from tests.replica.management_arguments import example_argument

    return example_argument(method, CANISTER)


def test_each_method_has_an_example_argument_that_encodes() -> None:
    for method in METHODS:
        encode_argument(method, _argument(method))
