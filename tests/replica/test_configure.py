"""Configurations in the state: operators come with the first one, and stay removed when they were removed."""

from __future__ import annotations

from msgspec.structs import replace

from cannery.replica.block import ReplicaConfig
from cannery.testing import FaultyStore, Node


def test_a_removed_operator_does_not_come_back_with_a_changed_configuration() -> None:
    store = FaultyStore(seed=1)
    node = Node(store)
    second = node.principal("second")
    node.manage("cannery_operator_add", second)
    node.manage("cannery_operator_remove", node.operator, sender="second")
    store.crash()
    changed = Node(store.reopen(), config=replace(ReplicaConfig(), canister_quota_count=7))
    assert changed.manage("cannery_operator_list", sender="second") == [second]
    changed.close()
