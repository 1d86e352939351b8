"""A zone of a test's own on a running node, and its peers as the Python client sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

from cannery.apps.zones.diode_types import ZoneInit
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.build import BuiltModule
from cannery.cli.app_install import APPS, APPS_FOLDER
from cannery.cli.building import build_source
from cannery.cli.management import Management
from cannery.client.agent import AsyncAgent
from cannery.client.zone import Zone, join_zone, open_zone
from cannery.node.source_files import read_source
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.protocol.principal import Principal
from tests.node_under_test import NodeUnderTest

ANN, BOB, CAROL, EVE = (Ed25519Identity(bytes(31) + bytes([n])) for n in (1, 2, 3, 4))


@cache
def zone_module() -> BuiltModule:
    """Build the zone's module, once."""
    return build_source(read_source(str(APPS_FOLDER / APPS["zones"].child_file)))


def zone_argument(owner: Principal) -> bytes:
    """Give the install argument of a zone."""
    about = ZoneInit("town", "", "", Principal.management(), None, owner)
    return encoder((type_of(ZoneInit),))((about,))


class Town:
    """A node with a zone that Ann owns."""

    def __init__(self, node: NodeUnderTest) -> None:
        self.node = node
        module = zone_module()
        with node.agent(node.operator) as agent:
            management = Management(agent)
            management.module_bring(module.module, module.hash)
            self.id = management.create(None, None)
            management.install(self.id, "install", module.hash, zone_argument(ANN.principal))

    def agent(self, who: Identity, patience_s: float = 60) -> AsyncAgent:
        return AsyncAgent(self.node.url, who, root_key=self.node.root_key, patience_s=patience_s)

    @asynccontextmanager
    async def as_(self, who: Identity) -> AsyncIterator[Zone]:
        """Open the zone as somebody."""
        async with self.agent(who) as agent:
            yield await open_zone(agent, self.id)

    @asynccontextmanager
    async def joined(self, who: Identity, role: str = "member") -> AsyncIterator[Zone]:
        """Let somebody join by an invitation of Ann's."""
        async with self.as_(ANN) as ann:
            code = await ann.invite(role)
        async with self.agent(who) as agent:
            yield await join_zone(agent, self.id, code)
