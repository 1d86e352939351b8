"""The store's door where buckets do not answer at all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from cannery.client.store import Store, StoreIncomplete
from cannery.limits import CLIENT_EXCHANGE_COUNT_MAX
from cannery.protocol.principal import Principal

SILENT = [Principal.opaque(b"silent %d" % number) for number in range(2 * CLIENT_EXCHANGE_COUNT_MAX)]
OTHERS = [Principal.opaque(b"other %d" % number) for number in range(3)]


def entry_of(key: str, owner: Principal, revision: int) -> dict[str, object]:
    counts = dict.fromkeys(("private", "created_ns", "updated_ns", "size"), 0)
    return {**counts, "key": key, "owner": owner, "tags": [], "readers": [], "revision": revision}


class Index:
    """Names all buckets, those first that do not answer."""

    def __getitem__(self, name: str) -> Callable[[object], Awaitable[object]]:
        async def where(_tags: object) -> object:
            return {"buckets": [*SILENT, *OTHERS], "arriving": [], "number": 1}

        return where


class Bucket:
    """Holds one entry, or an exchange of the agent for ever."""

    def __init__(self, id: Principal, exchanges: asyncio.Semaphore) -> None:
        self._id, self._exchanges = id, exchanges

    def __getitem__(self, name: str) -> Callable[[object], Awaitable[object]]:
        async def find(_wanted: object) -> object:
            async with self._exchanges:
                if self._id in SILENT:
                    await asyncio.Event().wait()
                number = OTHERS.index(self._id)
                entry = entry_of(str(number), self._id, number)
                return {"entries": [entry], "next": None, "on_its_way": False}

        return find


def test_many_silent_buckets_keep_no_other_from_being_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        exchanges = asyncio.Semaphore(CLIENT_EXCHANGE_COUNT_MAX)

        async def bucket(_store: Store, id: Principal) -> Bucket:
            return Bucket(id, exchanges)

        monkeypatch.setattr("cannery.client.store.ANSWER_S_MAX", 0.01)
        monkeypatch.setattr(Store, "_bucket", bucket)
        store = Store(None, Index(), 0)  # type: ignore[arg-type]  # stand-ins
        with pytest.raises(StoreIncomplete) as incomplete:
            await store.find("tag")
        assert [entry.key for entry in incomplete.value.entries] == ["2", "1", "0"]
        assert set(incomplete.value.missing) == set(SILENT)

    asyncio.run(run())


class MovingStore:
    """An index and two buckets: the one entry moves to the new bucket while somebody lists."""

    def __init__(self, moves_at: int) -> None:
        self.asked = 0
        self._moves_at = moves_at

    @property
    def has_moved(self) -> bool:
        return self.asked >= self._moves_at

    def __getitem__(self, name: str) -> Callable[[object], Awaitable[object]]:
        async def where(_tags: object) -> object:
            old, new = OTHERS[:2]
            self.asked += 1
            if self.asked > self._moves_at:
                return {"buckets": [old, new], "arriving": [], "number": 2}
            return {"buckets": [old], "arriving": [], "number": 1}

        return where

    async def bucket(self, _store: Store, id: Principal) -> dict[str, Callable[[object], Awaitable[object]]]:
        async def find(_wanted: object) -> object:
            self.asked += 1
            here = self.has_moved == (id == OTHERS[1])
            entry = entry_of("a", id, 1)
            return {"entries": [entry] if here else [], "next": None, "on_its_way": False}

        return {"find": find}


@pytest.mark.parametrize("moves_at", range(1, 8))
def test_an_entry_that_moves_while_it_is_listed_is_listed(
    monkeypatch: pytest.MonkeyPatch, moves_at: int
) -> None:
    moving = MovingStore(moves_at)
    monkeypatch.setattr(Store, "_bucket", lambda store, id: moving.bucket(store, id))
    store = Store(None, moving, 60)  # type: ignore[arg-type]  # stand-ins
    assert [entry.key for entry in asyncio.run(store.find("tag"))] == ["a"]


def test_what_never_stops_moving_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    moving = MovingStore(0)
    numbers = iter(range(1_000_000))

    class Index:
        def __getitem__(self, name: str) -> Callable[[object], Awaitable[object]]:
            async def where(_tags: object) -> object:
                return {"buckets": [OTHERS[1]], "arriving": [], "number": next(numbers)}

            return where

    monkeypatch.setattr(Store, "_bucket", lambda store, id: moving.bucket(store, id))
    store = Store(None, Index(), 0)  # type: ignore[arg-type]  # stand-ins
    with pytest.raises(StoreIncomplete, match="moving") as incomplete:
        asyncio.run(store.find("tag"))
    assert [entry.key for entry in incomplete.value.entries] == ["a"]
