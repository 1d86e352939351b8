"""A zone on an in-process node: members by name, and what the tests ask for again and again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from typing import Any

from cannery import Principal, WhenFull
from cannery.apps.zones.diode_types import ZoneInit
from cannery.apps.zones.history import HistoryAsk, HistoryOrder, HistoryPage, HistoryRange
from cannery.apps.zones.retention import RetentionRules
from cannery.apps.zones.roles import Role
from cannery.apps.zones.zone import Zone
from cannery.cdk.message_log import LogRule
from cannery.ports import Store
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, CanisterListArgs, VersionedCanisterId
from cannery.testing import Actor, Node

_MODULES: dict[str, bytes] = {}
ROOMY = LogRule(10**6, 10**9, None, WhenFull.prune_oldest())


def module_of(node: Node) -> bytes:
    """Give the zone's module, built once."""
    if "zone" not in _MODULES:
        _MODULES["zone"] = node.build(Zone)
    return _MODULES["zone"]


def key_of(name: str) -> bytes:
    """Give a key of 41 bytes."""
    return name.encode().ljust(41, b".")


class ZoneWorld:
    """A node with one zone that Ann owns. `as_("bob")` is the zone as Bob calls it."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        cycles: int | None = None,
        config: ReplicaConfig | None = None,
        node: Node | None = None,
    ) -> None:
        self.node = node or Node(store, config=config)
        self.zone = self.new_zone(cycles=cycles)

    def new_zone(
        self, owner: str = "ann", *, cycles: int | None = None, battery: Principal | None = None
    ) -> Actor:
        about = {
            "zone_id": "0xcd0afb71",
            "rpc_host": "prenet.diode.io:8443",
            "rpc_path": "/",
            "cycles_requester_id": battery or Principal.management(),
            "call_token": None,
            "owner": self.node.principal(owner),
        }
        installed = self.node.install(module_of(self.node), about, cycles=cycles)
        return self.node.actor(installed.id, Zone)

    def as_(self, who: object) -> Any:  # an actor's methods are known at run time only
        return self.zone.as_(who)

    def join(self, name: str, role: Role | None = None) -> Any:
        """Make somebody a member; give the zone as they call it."""
        self.as_("ann").member_set(self.node.principal(name), role or Role.member())
        return self.as_(name)

    def retain(self, **rules: LogRule) -> None:
        """Set the limits of `messages`, `attachments` or `files`; the others keep much."""
        kinds = ("messages", "attachments", "files")
        self.as_("ann").set_retention(RetentionRules(*(rules.get(kind, ROOMY) for kind in kinds)))

    def post(self, key: str, *texts: str, who: str = "ann") -> list[int]:
        result = self.as_(who).add_messages([(key_of(key), text.encode()) for text in texts])
        assert result.tag == "ok", result
        return list(result.ok)

    def upgrade(self) -> None:
        self.node.upgrade(self.zone, module_of(self.node))


def canisters_of(node: Node) -> set[Principal]:
    listed: Any = node.manage("cannery_canister_list", CanisterListArgs(None, 1_000))
    return {item.canister_id for item in listed.canisters}


@contextmanager
def taking_away(node: Node) -> Iterator[None]:
    """Delete the canisters that are made meanwhile, with their timers, whoever controls them."""
    before = canisters_of(node)
    yield
    for canister in sorted(canisters_of(node) - before, key=lambda each: each.raw, reverse=True):
        node.manage("uninstall_code", VersionedCanisterId(canister))
        node.manage("stop_canister", CanisterIdRecord(canister))
        node.manage("delete_canister", CanisterIdRecord(canister))


def ask_for(*topics: str, **changes: Any) -> HistoryAsk:
    """Make a history request; whatever is not named asks for everything."""
    fields: dict[str, Any] = {
        "topics": [key_of(topic) for topic in topics],
        "range": HistoryRange.all(),
        "order": HistoryOrder.oldest_first(),
        "merged": False,
        "bodies": True,
        "limit": 1_000,
        "bytes_max": None,
        "per_topic": None,
        "cursor": None,
    }
    return HistoryAsk(**{**fields, **changes})


def ids_of(page: HistoryPage) -> list[int]:
    return [message.id for run in page.runs for message in run.messages]


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


__all__ = ["ZoneInit", "ZoneWorld", "ask_for", "digest", "ids_of", "key_of", "module_of", "taking_away"]
