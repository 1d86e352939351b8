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


class Index:
    """Names all buckets, those first that do not answer."""

    def __getitem__(self, name: str) -> Callable[[object], Awaitable[object]]:
        async def where(_tags: object) -> object:
            return {"buckets": [*SILENT, *OTHERS], "arriving": []}

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
                entry: dict[str, object] = dict.fromkeys(
                    ("private", "created_ns", "updated_ns", "size"), 0
                ) | {"key": str(number), "owner": self._id, "tags": [], "readers": [], "revision": number}
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
