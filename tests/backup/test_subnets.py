"""Backups of a node of several subnets: copies that fit each other, so that after a restoration each message
between them arrives once and in order, and no cycle is lost or made."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.node.backup.create import Created, Order, create_backup
from cannery.node.backup.cut import find_cut_fault
from cannery.node.backup.errors import BackupError
from cannery.node.backup.extract import open_extract
from cannery.node.backup.format.time_plan import ReplayPlan, plan_block, plan_time
from cannery.node.backup.repository import Backup, Repository, open_repository
from cannery.node.backup.restore import Restored, restore_node
from cannery.node.backup.shelf_folder import FolderShelf
from cannery.node.backup.source import open_source
from cannery.node.backup.verify import drill, verify_repository
from cannery.node.data_dir import DataDir, open_data_dir, set_subnets
from cannery.node.store_rocksdb import RocksStore
from cannery.ports import StoreReader, WriteBatch
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.records import SUBNET
from cannery.testing import Actor, Node
from cannery.testing.store import MemoryStore
from tests.node.process_node import ProcessNode
from tests.node.test_subnet_processes import SEND, install, numbers
from tests.testing.test_subnets import Far, Near, send
from tests.waiting import wait_until

CYCLES = 1_000


def silent(_text: str) -> None:
    pass


def held_cycles(readers: Sequence[StoreReader]) -> int:
    """Count the cycles of both subnets, those under way included."""
    records = [SUBNET.decode(reader.get(keys.SUBNET_KEY) or b"") for reader in readers]
    ways = sum(record.cycles_out - record.cycles_in for record in records)
    return sum(record.held for record in records) + ways


# the cut


def _copy(store: object) -> MemoryStore:
    copy = MemoryStore()
    assert isinstance(store, MemoryStore)
    copy.write(WriteBatch(dict(store.snapshot().scan(b"", b"\xff" * 64))))
    return copy


@given(
    turns=st.lists(st.sampled_from(["send", "carry", "first", "second"]), min_size=4, max_size=60),
    holds=st.tuples(st.integers(0, 60), st.integers(0, 60)),
    copies=st.tuples(st.integers(0, 20), st.integers(0, 20)),
)
@settings(max_examples=30, deadline=None)
def test_copies_made_while_all_are_held_fit_and_lose_and_repeat_nothing(
    turns: list[str], holds: tuple[int, int], copies: tuple[int, int]
) -> None:
    """Each subnet is held at a time of its own, and copied at another once all are."""
    stores = [MemoryStore(), MemoryStore()]
    with Node(stores, subnets=2) as node:
        near, far = node.install(Near, cycles=CYCLES), node.install(Far, cycles=CYCLES, subnet=1)
        node.run()
        first, second = node.subnets
        sent = 0
        held_at = max(holds)
        found: dict[int, MemoryStore] = {}
        for at in range(held_at + max(copies) + 1):
            for number, subnet in enumerate(node.subnets):
                if at >= holds[number]:
                    subnet.links.is_held = True
                if at == held_at + copies[number]:
                    found[number] = _copy(node._stores[number])
            match turns[at % len(turns)]:
                case "send":
                    send(node, near, far, sent)
                    sent += 1
                case "carry":
                    node._carrier.carry(node.subnets)
                case "first" if first.is_ready():
                    node.step_subnet(first)
                case "second" if second.is_ready():
                    node.step_subnet(second)
        states = [found[0], found[1]]
        assert find_cut_fault(states) is None
    with Node(states, subnets=2) as restored:
        restored.run()
        near, far = (Actor(restored, each.id, each.interface) for each in (near, far))
        assert far.all() == near.all() == list(range(len(near.all())))
        assert held_cycles(states) == 2 * CYCLES


def test_copies_that_do_not_fit_are_told() -> None:
    stores = [MemoryStore(), MemoryStore()]
    with Node(stores, subnets=2) as node:
        near, far = node.install(Near, cycles=CYCLES), node.install(Far, cycles=CYCLES, subnet=1)
        node.run()
        early = [_copy(store) for store in stores]
        send(node, near, far, 0)
        node.run()
        late = [_copy(store) for store in stores]
    assert find_cut_fault(early) is find_cut_fault(late) is None
    assert "subnet 1 has received" in (find_cut_fault([early[0], late[1]]) or "")
    assert "forgotten the first" in (find_cut_fault([late[0], early[1]]) or "")


# whole nodes


class Stand:
    """A data directory of two subnets, a canister on each, and a folder for backups."""

    def __init__(self, folder: Path) -> None:
        self.data, self.shelf = folder / "data", FolderShelf(folder / "backups")
        found, lock = open_data_dir(self.data)
        lock.release()
        set_subnets(found, 2)
        with self.node() as node:
            self.near = node.install(Near, cycles=CYCLES)
            self.far = node.install(Far, cycles=CYCLES, subnet=1)
        self.sent = 0
        self.now_ns = 0

    @contextmanager
    def node(self, data: Path | None = None) -> Iterator[Node]:
        folder = DataDir(self.data if data is None else data)
        stores = [RocksStore(str(folder.of(number).store)) for number in range(2)]
        with Node(stores, subnets=2) as node:
            yield node

    def work(self, count: int, *, stops_early: bool = False) -> int:
        """Send messages, an hour later; stopped early, some are under way."""
        with self.node() as node:
            node.advance(seconds=3600)
            for _ in range(count):
                send(node, self.near, self.far, self.sent)
                self.sent += 1
            if stops_early:
                node.step_subnet(node.subnets[0])
            else:
                node.run()
            self.now_ns = node.now_ns
            return self.now_ns

    def heard(self, data: Path) -> tuple[list[int], list[int]]:
        """Return what both have after all has arrived."""
        with self.node(data) as node:
            node.run()
            found = [Actor(node, each.id, each.interface).all() for each in (self.near, self.far)]
        return found[0], found[1]

    def back_up(self, **order: object) -> Created:
        wanted = Order(self.data, **order)  # type: ignore[arg-type]
        return create_backup(self.shelf, wanted, "a test", now=lambda: self.now_ns)

    def opened(self) -> tuple[Repository, list[Backup]]:
        repository = open_repository(self.shelf)
        repository.load_index(silent)
        return repository, repository.backups()

    def restore(self, target: Path, plan: ReplayPlan | None = None) -> Restored:
        repository, backups = self.opened()
        wanted = plan or ReplayPlan(backups[-1].head, None)
        return restore_node(repository, backups, wanted, target, silent)


@pytest.fixture(scope="module")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Stand:
    """Two backups, with messages under way in the second."""
    stand = Stand(tmp_path_factory.mktemp("stand"))
    stand.work(3)
    stand.back_up()
    stand.work(4, stops_early=True)
    stand.back_up()
    return stand


def test_a_restored_node_goes_on_with_what_was_under_way(stand: Stand, tmp_path: Path) -> None:
    stand.restore(tmp_path / "restored")
    with stand.node(tmp_path / "restored") as node:
        assert len(Actor(node, stand.near.id, stand.near.interface).all()) <= 7
    assert stand.heard(tmp_path / "restored") == (list(range(7)), list(range(7)))
    with open_source(tmp_path / "restored", silent) as source:
        assert held_cycles([subnet.reader for subnet in source.subnets]) == 2 * CYCLES
    names = {path.name for path in (tmp_path / "restored").iterdir()}
    assert {"subnet-0", "subnet-1", "keys", "format"} <= names


def test_what_did_not_change_on_either_subnet_is_not_written_again(stand: Stand) -> None:
    again = stand.back_up()
    assert (again.changed_count, again.head.subnet_count, again.head.canister_count) == (0, 2, 2)


def test_verify_and_drill_compare_each_subnet(stand: Stand) -> None:
    assert verify_repository(stand.shelf).problems == ()
    done = drill(stand.shelf, 2, silent)
    assert done.replayed_from == 1
    assert done.replayed is not None
    assert done.replayed.root == done.head.block.root
    units = stand.opened()[0].units(stand.opened()[1][-1], stand.opened()[1])
    assert any(name[:2] == b"\x05\x01" for name in units)


def test_a_time_between_two_backups_is_one_on_all_subnets(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    stand.work(2)
    stand.back_up()
    middle_ns = stand.work(2)
    stand.work(2)
    stand.back_up()
    repository, backups = stand.opened()
    heads = [backup.head for backup in backups]
    plan = plan_time(heads, middle_ns)
    assert plan is not None
    assert plan.blocks is not None
    stand.restore(tmp_path / "restored", plan)
    assert stand.heard(tmp_path / "restored") == (list(range(4)), list(range(4)))
    assert plan_block(heads, heads[0].block.number) is None, "a block is one subnet's"
    with open_extract(repository, backups, plan, silent) as extract:
        assert extract.archive(stand.far.id.raw).module_hash


def test_canisters_of_any_subnet_are_saved_and_found(stand: Stand, tmp_path: Path) -> None:
    shelf = FolderShelf(tmp_path / "others")
    both = (str(stand.near.id), str(stand.far.id))
    made = create_backup(shelf, Order(stand.data, canisters=both), "a test")
    assert (made.head.canister_count, made.head.is_node) == (2, False)
    repository = open_repository(shelf)
    repository.load_index(silent)
    backups = repository.backups()
    with open_extract(repository, backups, ReplayPlan(backups[0].head, None), silent) as extract:
        modules = {canister: extract.archive(Principal.parse(canister).raw).module_hash for canister in both}
        assert len(set(modules.values())) == 2
        assert all(extract.module(module_hash) for module_hash in modules.values())


def test_stores_that_were_set_back_alone_are_not_saved(tmp_path: Path) -> None:
    stand = Stand(tmp_path)
    store = DataDir(stand.data).store
    kept = store.with_name("kept")
    store.rename(kept)
    with stand_store(kept) as old:
        old.checkpoint(str(store))
    stand.work(3)
    store.rename(store.with_name("later"))
    kept.rename(store)
    with pytest.raises(BackupError, match="do not fit each other"):
        stand.back_up()


@contextmanager
def stand_store(path: Path) -> Iterator[RocksStore]:
    store = RocksStore(str(path))
    yield store
    store.close()


def test_a_node_that_serves_is_saved_while_messages_go_to_and_fro(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cannery.toml").write_text("[node]\nsubnet_count = 2\n")
    node = ProcessNode(tmp_path / "data")
    restored: ProcessNode | None = None
    try:
        near, far = install(node, Near, 0), install(node, Far, 1)
        acknowledged: list[int] = []
        ends = threading.Event()

        def load() -> None:
            while not ends.is_set():
                node.agent.call(near, "send", SEND((far, len(acknowledged))))
                acknowledged.append(len(acknowledged))

        sender = threading.Thread(target=load)
        sender.start()
        try:
            wait_until(lambda: len(acknowledged) >= 20, "the load does not get on")
            before = len(acknowledged)
            made = [create_backup(FolderShelf(tmp_path / "backups"), Order(node.data), "a test")]
            made.append(create_backup(FolderShelf(tmp_path / "backups"), Order(node.data), "a test"))
        finally:
            ends.set()
            sender.join()
        assert all(each.was_running for each in made)
        assert node.stop()[0] == 0
        repository = open_repository(FolderShelf(tmp_path / "backups"))
        repository.load_index(silent)
        backups = repository.backups()
        target = tmp_path / "restored"
        restore_node(repository, backups, ReplayPlan(backups[-1].head, None), target, silent)
        restored = ProcessNode(target)
        for number in (10**6, 10**6 + 1):
            restored.agent.call(near, "send", SEND((far, number)))
        wait_until(lambda: numbers(restored, near)[-1] == 10**6 + 1, "the last number is not heard")
        heard = numbers(restored, near)
        taken = numbers(restored, far)
        assert taken == heard
        assert before <= len(heard) - 2 <= len(acknowledged)
        assert heard[:-2] == list(range(len(heard) - 2))
    finally:
        for each in (node, restored):
            if each is not None and each.process.poll() is None:
                each.kill()
