"""Where a store stands when it is opened, and whether anything of it is lost."""

from __future__ import annotations

from cannery.errors import StoreError
from cannery.node.subnet_doors import DurableMark
from cannery.ports import Store
from cannery.replica.block import GENESIS_HASH, GENESIS_ROOT
from cannery.replica.keys import HEAD_KEY
from cannery.replica.records import HEAD, HeadRecord


def find_head(store: Store, mark: DurableMark | None) -> HeadRecord:
    """Give a store's last round. Raises `StoreError`, and closes the store, where it ends before a block that
    was durable.

    The engine takes a damaged record of its log for the torn end of it, and drops what stands behind.
    """
    record = store.get(HEAD_KEY)
    head = HEAD.decode(record) if record is not None else HeadRecord(0, GENESIS_HASH, GENESIS_ROOT, 0, 1)
    number = mark.durable_number() if mark is not None else 0
    if head.number < number:
        store.close()
        raise StoreError(
            f"the store is damaged: it ends at block {head.number}, and block {number} was "
            "durable. Restore a backup; if an older copy of the store stands here on purpose, remove "
            "the file 'running' beside it"
        )
    return head
