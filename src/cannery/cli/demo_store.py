"""The store in the demo: buckets of 20 entries, so that one sees more of them appear while one writes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from cannery.apps.store.store_index import KIND
from cannery.candid.python import nat
from cannery.cdk.management import FleetConfigureArgs, FleetValue
from cannery.cli.app_install import build_app, install_app
from cannery.cli.management import Management
from cannery.cli.node_run import RunningNode
from cannery.cli.typed_calls import TypedCanister
from cannery.client.agent import Agent, AsyncAgent
from cannery.client.store import Note, Store
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal

BUCKET_SLOTS = 20
NOTE_COUNT = 60
TOPICS = ("garden", "kitchen", "workshop")


def fill_store(
    node: RunningNode, operator: Agent, writer: Identity, battery: int, born_with: int
) -> Iterator[str]:
    """Install a store of small buckets, fund it, and write notes until it has several; yield what to tell."""
    index_id = install_app(operator, build_app("store")).index_id
    index = TypedCanister(operator, index_id)
    Management(operator).top_up(index_id, battery)
    index.call_for_effect("fleet_birth_set", (KIND, born_with), (str, nat))
    small = FleetConfigureArgs([], [], [FleetValue("bucket_slots", str(BUCKET_SLOTS))])
    index.call_for_effect("fleet_config_set", (small,))
    index.call_for_effect("place_look")
    count = asyncio.run(_write(node, writer, index_id))
    yield f"{'store':<12}{NOTE_COUNT} notes in {count} buckets of {BUCKET_SLOTS}, which appeared meanwhile"


async def _write(node: RunningNode, writer: Identity, index_id: Principal) -> int:
    """Write notes; return how many buckets there are then."""
    async with AsyncAgent(node.url, writer, root_key=node.root_key) as agent:
        store = await Store.open(agent, index_id)
        await store.put_many(
            [
                Note(f"note/{number}", f"Note {number}.".encode(), ("demo", TOPICS[number % len(TOPICS)]))
                for number in range(NOTE_COUNT)
            ]
        )
        return len((await store.stats())["buckets"])


def store_hints() -> Iterator[str]:
    """Say what to try."""
    yield "a store whose buckets appear while you write:"
    yield "  cannery store find demo garden --limit 5 --identity ann"
    yield '  for n in $(seq 40); do cannery store put --note "more $n" --tag more --identity ann; done'
    yield "  cannery store stats"
