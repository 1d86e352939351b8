"""The cast of an operator who backs up the running node, prunes, and has what is kept put back.

The way of a real backup: all subnets are held, each store is copied beside itself, while machines fail
between one and the next; then the copies are read and written onto a shelf that fails as well (`shelf.py`).
What was acknowledged must come back, equal to what was saved; what cannot come back must be told.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from cannery.errors import CanneryError, StoreError
from cannery.node.backup.create import Order, create_backup
from cannery.node.backup.cut import find_cut_fault
from cannery.node.backup.errors import BackupError
from cannery.node.backup.format.errors import BackupFormatError
from cannery.node.backup.format.names import MARKER_NAME
from cannery.node.backup.format.prune_plan import KeepRule
from cannery.node.backup.format.units import units_in
from cannery.node.backup.prune import prune_repository
from cannery.node.backup.repository import Backup, Repository, open_repository
from cannery.node.backup.restore import write_units
from cannery.node.backup.source import Source, SubnetState
from cannery.node.backup.verify import verify_repository
from cannery.node.data_dir import FORMAT, DataDir
from cannery.node.service import Subnet
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.pem import format_pem
from cannery.replica import keys, records
from cannery.replica.block import state_hash
from tests.sim.failure import Broken
from tests.sim.machine import Machine
from tests.sim.shelf import SimShelf
from tests.sim.store import SimStore
from tests.sim.world import World

COPY = "checkpoint"
SHELF_ERROR_RATE = 0.03
HOLDER = "the simulator"


class Backups:
    """The operator's backups, and the shelf that has them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.shelf = SimShelf(world.chance, self._shelf_fails)
        self.made: set[int] = set()
        self._held: list[Subnet] = []
        self._copies: list[SubnetState] = []
        world.on_turn.append(self.turn)

    def _shelf_fails(self) -> bool:
        return not self.world.is_calm and self.world.chance.random() < SHELF_ERROR_RATE

    def setup(self) -> None:
        """Nothing is there yet."""

    # --- what happens

    def act(self) -> None:
        """Begin a backup, prune, or lose a bit on the shelf, by chance."""
        world, chance = self.world, self.world.chance
        if chance.random() >= world.plan.backup_rate:
            return
        draw = chance.random()
        if draw < 0.7:
            self._hold()
        elif draw < 0.9:
            self._prune()
        elif chance.random() < world.plan.damage_rate * 10:
            world.say(f"damaged {self.shelf.damage()} on the shelf")
            world.count("damaged backups")

    def _hold(self) -> None:
        """Ask all subnets to take nothing from each other."""
        if self._held or not all(machine.is_up for machine in self.world.machines):
            return
        for machine in self.world.machines:
            assert machine.subnet is not None
            machine.subnet.links.is_held = True
            self._held.append(machine.subnet)

    def _let_go(self) -> None:
        for subnet in self._held:
            subnet.links.is_held = False
        self._held.clear()
        self._copies.clear()

    def turn(self) -> None:
        """Copy the next store, or begin to write when there are all."""
        if not self._held or (not self.world.is_calm and self.world.chance.random() < 0.4):
            return
        machine = self.world.machines[len(self._copies)]
        try:
            self._copy(machine)
        except StoreError as error:
            self.world.say(f"no copy: {error}")
            self.world.count("backups that failed")
            self._let_go()
            return
        if len(self._copies) == len(self.world.machines):
            copies = tuple(self._copies)
            self._let_go()
            self._attempt(lambda: self._create(copies))

    def _copy(self, machine: Machine) -> None:
        subnet = self._held[machine.number]
        if machine.subnet is not subnet:
            raise StoreError("its process has ended")
        with machine.crashing():
            number = subnet.checkpoint(COPY)
            copy = machine.store.copies[COPY]
            head = records.HEAD.decode(copy.values[keys.HEAD_KEY])
            if head.number != number:
                raise Broken("a copy has the block that it says", f"block {head.number}, not {number}")
            self._copies.append(SubnetState(copy, head))
            return
        raise StoreError("its process has ended")

    def _create(self, copies: tuple[SubnetState, ...]) -> None:
        @contextmanager
        def open_state(_data: Path, _say: Callable[[str], None]) -> Iterator[Source]:
            fault = find_cut_fault([copy.reader for copy in copies])
            if fault is not None:
                self.world.count("backups that did not fit")
                raise BackupError(fault)
            yield Source(DataDir(_data), copies, was_running=True)

        order = Order(data_folder(), with_keys=False)
        now = self.world.clock.now_ns
        made = create_backup(self.shelf, order, HOLDER, now=now, open_state=open_state)
        self.made.add(made.head.number)
        self.world.count("backups")
        self.world.say(f"backup {made.head.number} at block {made.head.block.number}")

    def _prune(self) -> None:
        rule = KeepRule(last=self.world.chance.randint(1, 3))
        now = self.world.clock.now_ns

        def prune() -> None:
            # What is on its way out is promised to nobody any more, whether the pruning ends or not.
            repository = open_repository(self.shelf)
            numbers = sorted(backup.head.number for backup in repository.backups())
            self.made.difference_update(numbers[: -rule.last])
            prune_repository(self.shelf, rule, HOLDER, now=now)
            self.world.count("prunings")

        self._attempt(prune)

    def _attempt(self, act: Callable[[], None]) -> None:
        """Do something that may fail for a reason, and for no other."""
        try:
            act()
        except CanneryError as error:
            if self.world.is_calm and not self.shelf.damaged:
                raise Broken("backups go on when all is well", str(error)) from error
            self.world.say(f"no backup: {error}")
            self.world.count("backups that failed")

    # --- what is left

    def settle(self) -> None:
        """Have what is damaged found and moved away, as its text says, and back up once more."""
        self._let_go()
        if self.shelf.objects:
            self._clear_away()
        self._hold()
        for _ in self.world.machines:
            self.turn()
        if not self.made:
            raise Broken("backups go on when all is well", "none was made in peace")

    def _clear_away(self) -> None:
        damaged = sorted(self.shelf.damaged)
        if not damaged:
            return
        if MARKER_NAME in damaged:
            self._check_told([MARKER_NAME])
            self.shelf.mend(MARKER_NAME)
        damaged = sorted(self.shelf.damaged)
        self._check_told(damaged)
        # What stood in them, or was a difference to it, may be gone: what is left is looked at below.
        for name in damaged:
            self.shelf.delete(name)
        self.made = self.made & set(self._whole())

    def _check_told(self, damaged: list[str]) -> None:
        told = self._told()
        for name in damaged:
            if not any(name in text for text in told):
                raise Broken("a damaged backup is told of", f"{name} is damaged, told was {told}")

    def _told(self) -> tuple[str, ...]:
        try:
            return verify_repository(self.shelf).problems
        except CanneryError as error:
            # Where the marker is damaged, nothing else can be looked at.
            return (str(error), MARKER_NAME)

    def _whole(self) -> list[int]:
        """Give the backups that say of themselves that they can be restored."""
        found = []
        try:
            repository = open_repository(self.shelf)
            repository.load_index(lambda _: None)
            backups = repository.backups()
        except CanneryError:
            return []
        for backup in backups:
            try:
                units = repository.units(backup, backups)
            except BackupFormatError:
                continue
            if all(repository.has(chunk) for unit in units.values() for chunk in unit.chunks):
                found.append(backup.head.number)
        return found

    def check(self) -> None:
        """Put each backup that was acknowledged back, and go on from one of them. Raises `Broken`."""
        repository = open_repository(self.shelf)
        repository.load_index(lambda _: None)
        backups = repository.backups()
        lost = self.made - {backup.head.number for backup in backups}
        if lost:
            raise Broken("a backup that was made can be restored", f"backups {sorted(lost)} are gone")
        restored: list[SimStore] = []
        for backup in backups:
            if backup.head.number in self.made:
                restored = self._restore(repository, backup, backups)
        for machine, store in zip(self.world.machines, restored, strict=True):
            # The replay of all that came after begins here: `checks.check_machine`.
            head = records.HEAD.decode(store.values[keys.HEAD_KEY])
            machine.checkpoint = head.number, store.values

    def _restore(self, repository: Repository, backup: Backup, backups: list[Backup]) -> list[SimStore]:
        stores = []
        units = repository.units(backup, backups)
        for machine in self.world.machines:
            store = SimStore(self.world.chance)
            write_units(store, repository, units_in(machine.number, units), lambda _: None)
            point = backup.head.of(machine.number)
            if state_hash(store) != point.state_hash:
                raise Broken("a backup is restored as it was saved", f"backup {backup.head.number}")
            head = machine.heads[point.block.number]
            if (head.root, head.block_hash) != (point.block.root, point.block.hash):
                raise Broken("a backup is of a durable state", f"{backup.head.number} has another block")
            stores.append(store)
        fault = find_cut_fault(stores)
        if fault is not None:
            raise Broken("subnets of a backup fit each other", fault)
        self.world.count("backups put back")
        return stores


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="cannery-sim-")


@cache
def data_folder() -> Path:
    """Make a data directory, once for a process, whose keys are always the same: a seed is a run."""
    folder = Path(_scratch().name)
    (folder / "keys").mkdir()
    (folder / "subnet-0").mkdir()
    (folder / "keys" / "root.bls").write_text("11" * 32)
    (folder / "keys" / "node.pem").write_text(format_pem(Ed25519Identity(bytes(31) + b"\x01")))
    (folder / "operator.pem").write_text(format_pem(Ed25519Identity(bytes(31) + b"\x02")))
    (folder / "format").write_text(FORMAT + "\n")
    return folder
