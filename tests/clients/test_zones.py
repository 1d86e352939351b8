"""A zone on a running node through real clients: Diode's methods from JavaScript, its own from Python."""

from __future__ import annotations

from cannery.apps.zones import zone as zone_module
from cannery.candid.codec import encoder
from cannery.candid.did import parse_did
from cannery.candid.values import Variant
from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.client import Agent, open_actor
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.clients.conftest import RunScript
from tests.node_under_test import NodeUnderTest

SEED = bytes(range(32))


def deploy_zone(node: NodeUnderTest) -> tuple[Principal, Ed25519Identity]:
    """Install a zone that belongs to the identity of a seed."""
    owner = Ed25519Identity(SEED)
    built = build_file(str(zone_module.__file__))
    argument = encoder(parse_did(built.did).init_args)(
        [
            {
                "zone_id": "0xabc",
                "rpc_host": "",
                "rpc_path": "",
                "cycles_requester_id": Principal.management(),
                "call_token": None,
                "owner": owner.principal,
            }
        ]
    )
    with node.agent(node.operator) as agent:
        management = Management(agent)
        management.module_bring(built.module, built.hash)
        zone = management.create(None, None)
        management.install(zone, "install", built.hash, argument)
    return zone, owner


def test_a_zone_through_javascript_and_python(run_script: RunScript, running_node: NodeUnderTest) -> None:
    zone, owner = deploy_zone(running_node)
    arguments = (running_node.url, running_node.root_key.hex(), str(zone), SEED.hex())
    run_script("zones.mjs", *arguments).demand(4)
    with running_node.agent(owner) as agent:
        read_as_python(agent, zone)


def read_as_python(agent: Agent, zone_id: Principal) -> None:
    """Read what JavaScript wrote, by a history request over both keys, in two pages."""
    zone = open_actor(agent, zone_id)
    ask = {
        "topics": [name.ljust(41, b".") for name in (b"a", b"b")],
        "range": Variant("all"),
        "order": Variant("oldest_first"),
        "merged": True,
        "bodies": True,
        "limit": 2,
        "bytes_max": None,
        "per_topic": None,
        "cursor": None,
    }
    first = zone.history(ask)
    rest = zone.history({**ask, "cursor": first["state"].value})
    runs = [*first["runs"], *rest["runs"]]
    assert [(run["topic"], m["payload"]) for run in runs for m in run["messages"]] == [
        (0, b"one"),
        (1, b"two"),
        (0, b"three"),
    ]
    assert (first["state"].tag, rest["state"].tag) == ("more", "complete")
    assert zone.acknowledge(rest["newest"]) == rest["newest"] + 1
