"""Whether a subnet's store takes writes: how it failed last, and how much room its disk has."""

from __future__ import annotations

from cannery.errors import Reject, RejectCode, StoreError
from cannery.node.subnet_doors import Doors


class StoreHealth:
    """`failure`: why nothing is written for now, or None; whoever runs the rounds sets it."""

    __slots__ = ("_doors", "_reserve_bytes", "failure")

    def __init__(self, doors: Doors, disk_reserve_bytes: int) -> None:
        self._doors = doors
        self._reserve_bytes = disk_reserve_bytes
        self.failure: StoreError | None = None

    def check_room(self) -> None:
        """Raise `StoreError` where the disk has less room than is kept in reserve."""
        free_bytes = self._doors.free_bytes
        if free_bytes is not None and free_bytes() < self._reserve_bytes:
            raise StoreError(
                f"the disk is full: less than {self._reserve_bytes // 2**20} MiB are free"
                " where the node's data stands; make room there, the node goes on by itself"
            )

    def check(self) -> None:
        """Raise `Reject` where nothing can be written: the first to come then hears so as well."""
        failure = self.failure
        if failure is None:
            try:
                return self.check_room()
            except StoreError as error:
                failure = error
        raise Reject(RejectCode.SYS_TRANSIENT, f"no updates for now: {failure}", "CNRY0202")
