"""A subnet's process whose store syncs in another way, for tests of what leaves before a sync has returned.

WEAK_SYNC says how: `removed`, a sync does nothing; `late`, it returns at once and happens a little later;
`held`, it does not return as long as the file `hold` is in the folder SYNC_GATE, and says `begun` there.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from pathlib import Path

from cannery.node import subnet_process
from cannery.node.store_rocksdb import RocksStore

LATE_S = 0.05
HELD_STEP_S = 0.002
LAUNCHER = """
from cannery.node import supervisor
supervisor.SUBNET_MODULE = "tests.clients.weak_subnet"
from cannery.cli.main import main
main()
"""


def weaken(kind: str) -> None:
    """Replace the store's sync."""
    sync = RocksStore.sync

    def no_sync(store: RocksStore) -> None:
        """Do nothing."""

    def late_sync(store: RocksStore) -> None:
        """Sync when the answers have left."""
        timer = threading.Timer(LATE_S, sync, (store,))
        timer.daemon = True
        timer.start()

    def held_sync(store: RocksStore) -> None:
        """Sync, and return when nobody holds it."""
        sync(store)
        gate = Path(os.environ["SYNC_GATE"])
        while (gate / "hold").exists():
            (gate / "begun").touch()
            time.sleep(HELD_STEP_S)

    RocksStore.sync = {"removed": no_sync, "late": late_sync, "held": held_sync}[kind]  # type: ignore[method-assign]


if __name__ == "__main__":
    weaken(os.environ["WEAK_SYNC"])
    sys.exit(subnet_process.main())
