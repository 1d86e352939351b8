"""The store app on an in-process node: people by name, who put, get, find and delete as a client does.

`Store` follows what buckets answer (`moved`, `full`, `on_its_way`) as the real client does, and lets rounds
pass where that one would wait.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from cannery.apps.store.bucket import Bucket
from cannery.apps.store.store_index import StoreIndex
from cannery.apps.store.types import Cursor, Entry, Find, Put, PutResult
from cannery.cdk.management import FleetConfigureArgs, FleetRole, FleetValue
from cannery.ports import Store as NodeStore
from cannery.protocol.principal import Principal
from cannery.replica.block import ReplicaConfig
from cannery.testing import Actor, Node, Rejected
from cannery.testing.actor import interface_of_class

_MODULES: dict[str, bytes] = {}
_BUCKET = interface_of_class(Bucket)
TRIES = 60


class Stuck(AssertionError):
    """Nobody answers for a key, however long one waits."""


class StoreWorld:
    """A node with a store of small buckets."""

    def __init__(
        self,
        store: NodeStore | Sequence[NodeStore] | None = None,
        *,
        slots: int = 20,
        slot_size_bytes: int = 65_536,
        seed: int = 0,
        config: ReplicaConfig | None = None,
        cycles: int = 0,
        subnets: int = 1,
        spread: str = "any",
    ) -> None:
        self.node = Node(store, seed=seed, config=config, subnets=subnets)
        self.rounds_apart = 2
        for name, cls in (("index", StoreIndex), ("bucket", Bucket)):
            if name not in _MODULES:
                _MODULES[name] = self.node.build(cls)
        installed = self.node.install(_MODULES["index"])
        self.index = self.node.actor(installed.id, StoreIndex).as_(self.node.operator)
        if cycles:
            self.node.top_up(self.index, 1_000 * cycles)
            self.index.fleet_birth_set("bucket", cycles)
        module_hash = self.node.manage("cannery_module_add", _MODULES["bucket"])
        assert self.index.fleet_release_add("bucket", 1, module_hash, "first").tag == "ok"
        self.configure(bucket_slots=slots, slot_size_bytes=slot_size_bytes)
        if subnets > 1:
            self.configure(bucket_subnet=spread)
        self.index.place_look()
        self.settle()

    def configure(self, **values: int | str) -> None:
        args = FleetConfigureArgs([], [], [FleetValue(name, str(value)) for name, value in values.items()])
        self.index.fleet_config_set(args)

    def role(self, name: str, *who: str, is_given: bool = True) -> None:
        roles = [FleetRole(name, [self.node.principal(each) for each in who])]
        given, taken = (roles, []) if is_given else ([], roles)
        self.index.fleet_config_set(FleetConfigureArgs(given, taken, []))

    def bucket(self, canister: Principal, who: object = "ann") -> Actor:
        return Actor(self.node, canister, _BUCKET, self.node.principal(who))

    @property
    def buckets(self) -> list[Principal]:
        found: list[Principal] = self.index.where([]).buckets
        return found

    def subnet_of(self, bucket: Principal) -> int:
        return self.node._subnet_of(bucket).number

    @property
    def status(self) -> Any:  # PlaceStatus
        return self.index.place_status()

    def migrate(self) -> None:
        """Run until a new bucket is being filled."""
        self.index.place_grow.submit()
        for _ in range(200):
            self.node.step()
            if self.index.where([]).arriving:
                return
        raise Stuck("no migration begins")

    def settle(self, seconds: int = 2) -> None:
        """Let time pass until no change of the table is under way."""
        self.index.place_look()
        for _ in range(TRIES):
            self.node.advance(seconds=seconds)
            if self.status.change is None and not self.status.planned_slots:
                return
        raise Stuck(f"a change does not end: {self.status}")

    # as a client

    def _asked(
        self, key: str, who: str, ask: Callable[[Actor], Any], at: Principal | None = None
    ) -> Any:  # of the method's result
        """Ask for a key where it is, following what the buckets say."""
        bucket = at
        for _ in range(TRIES):
            if bucket is None:
                located = self.index.locate([key])
                bucket = located[0] if located else None
            if bucket is not None:
                try:
                    result = ask(self.bucket(bucket, who))
                except Rejected:
                    result = None
                if result is not None and result.tag not in ("moved", "full"):
                    return result
                bucket = result.moved if result is not None and result.tag == "moved" else None
            if bucket is None:
                self.node.advance(seconds=1)
        raise Stuck(f"nobody answers for {key!r}")

    def put(
        self,
        who: str,
        key: str,
        value: bytes = b"x",
        tags: tuple[str, ...] = (),
        *,
        private: bool = False,
        readers: tuple[str, ...] = (),
        expect: int | None = None,
        at: Principal | None = None,
    ) -> PutResult:
        names = [self.node.principal(reader) for reader in readers]
        put = Put(key, value, list(tags), private, names, expect)
        result = self._asked(key, who, lambda bucket: bucket.put(put), at)
        assert isinstance(result, PutResult)
        return result

    def get(self, who: str, key: str, at: Principal | None = None) -> bytes | None:
        result = self._asked(key, who, lambda bucket: bucket.get(key), at)
        if result.tag == "absent":
            return None
        found = result.ok
        parts = [found.value]
        while sum(map(len, parts)) < found.entry.size:
            number = len(parts)
            part = self.bucket(found.canister, who).get_part(key, found.entry.revision, number)
            parts.append(part.ok)
        return b"".join(parts)

    def delete(self, who: str, key: str) -> str:
        return str(self._asked(key, who, lambda bucket: bucket.delete(key, None)).tag)

    def find(self, who: str, *tags: str, owner: str | None = None, limit: int = 100) -> list[Entry]:
        of = None if owner is None else self.node.principal(owner)
        found: dict[str, Entry] = {}
        before: Cursor | None = None
        while True:
            page, before = self._find_page(who, Find(list(tags), of, before, limit))
            found.update((entry.key, entry) for entry in page)
            if before is None:
                return sorted(found.values(), key=lambda entry: (entry.revision, entry.key), reverse=True)

    def _find_page(self, who: str, wanted: Find) -> tuple[list[Entry], Cursor | None]:
        for _ in range(TRIES):
            where = self.index.as_(who).where(wanted.tags)
            order = [b for b in where.buckets if b not in where.arriving] + where.arriving
            # A client's questions are rounds apart.
            for _ in range(self.rounds_apart):
                self.node.step()
            pages = [self.bucket(bucket, who).find(wanted) for bucket in order]
            now = self.index.as_(who).where(wanted.tags)
            is_as_before = now.number == where.number and set(now.arriving) <= set(where.arriving)
            if is_as_before and not any(page.on_its_way for page in pages):
                break
            self.node.step()
        ends = [page.next for page in pages if page.next is not None]
        entries = {entry.key: entry for page in pages for entry in page.entries}
        if not ends:
            return list(entries.values()), None
        floor = max(ends, key=lambda end: (end.revision, end.key))
        kept = [e for e in entries.values() if (e.revision, e.key) >= (floor.revision, floor.key)]
        return kept, floor

    def keys(self, who: str, *tags: str) -> list[str]:
        return [entry.key for entry in self.find(who, *tags)]


def digest(number: int) -> str:
    return sha256(str(number).encode()).hexdigest()[:12]
