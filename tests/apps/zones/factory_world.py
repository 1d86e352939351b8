"""A factory of zones on an in-process node: people by name, zones by id."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

from cannery import Principal
from cannery.apps.zones.factory_types import FactorySettings, ZoneInfo, ZoneOptions
from cannery.apps.zones.throttle import Rate, Rates
from cannery.apps.zones.zone import Zone
from cannery.apps.zones.zone_factory import ZoneFactory
from cannery.fleet.top_up_quota import UNLIMITED, Quota
from cannery.ports import Store
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Node
from tests.apps.zones.world import canisters_of, module_of

_MODULES: dict[str, bytes] = {}
OFTEN = Rates(Rate(10_000, 60), Rate(10_000, 60))


def factory_module(node: Node) -> bytes:
    """Give the factory's module, built once."""
    if "factory" not in _MODULES:
        _MODULES["factory"] = node.build(ZoneFactory)
    return _MODULES["factory"]


class FactoryWorld:
    """A node with a factory and its first release. `as_("ann")` is the factory as Ann calls it."""

    def __init__(
        self,
        store: Store | None = None,
        *,
        config: ReplicaConfig | None = None,
        cycles: int | None = None,
        node: Node | None = None,
        often: bool = True,
    ) -> None:
        self.node = node or Node(store, config=config)
        installed = self.node.install(factory_module(self.node), cycles=cycles)
        self.factory = self.node.actor(installed.id, ZoneFactory)
        self.id = installed.id
        self.operator = self.as_(self.node.operator)
        self.release(1, module_of(self.node))
        if often:
            self.rates()

    def as_(self, who: object) -> Any:  # an actor's methods are known at run time only
        return self.factory.as_(who)

    def rates(self, makes: Rates = OFTEN, asks: Rates = OFTEN, births: Quota = UNLIMITED) -> None:
        self.operator.factory_settings_set(FactorySettings(makes, asks, births))

    def release(self, version: int, module: bytes) -> None:
        module_hash = self.node.manage("cannery_module_add", module)
        assert module_hash == sha256(module).digest()
        added = self.operator.fleet_release_add("zone", version, module_hash, "new")
        assert added.tag == "ok", added

    def make(self, who: str, zone_id: str, **options: Any) -> ZoneInfo:
        wanted = ZoneOptions(**options) if options else None
        info = self.as_(who).create_zone(zone_id, wanted)
        assert isinstance(info, ZoneInfo)
        return info

    def zone(self, info: ZoneInfo, who: object) -> Any:
        return self.node.actor(info.canister, Zone).as_(who)

    def who(self, name: str) -> Principal:
        return self.node.principal(name)

    def status(self, canister: Principal) -> Any:
        return self.node.manage("canister_status", CanisterIdRecord(canister))

    def canisters(self) -> set[Principal]:
        return canisters_of(self.node)
