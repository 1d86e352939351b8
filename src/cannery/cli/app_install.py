"""The apps that come with Cannery: brought to the node and kept up to its version.

Through the public interface, as the operator: modules are added, an app's index is created, named and told
which module its children get. A second time finds them there; another version upgrades the index, and its
children in waves. Nothing here is known to the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cannery.candid.python import nat64
from cannery.cdk.build import BuiltModule
from cannery.cdk.interface import KIT_VERSION
from cannery.cli.building import build_source
from cannery.cli.mailbox import INDEX_NAME
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.cli.zone_create import FACTORY_NAME
from cannery.client.agent import Agent
from cannery.errors import CanneryError
from cannery.fleet.directory import NO_VERSION
from cannery.fleet.directory_types import FleetStatus
from cannery.fleet.registry import ReleaseEntry, ReleaseResult
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, StartResult
from cannery.node.source_files import read_source
from cannery.protocol.principal import Principal

STORE_NAME = "store_index"
APPS_FOLDER = Path(__file__).resolve().parent.parent / "apps"
WAVE_COUNT = 100
EMPTY_ARGUMENT = b"DIDL\x00\x00"


@dataclass(frozen=True, slots=True)
class AppSource:
    """An app's index and what its children run: the name of the index on the node, their kind, the files; and
    the method by which the index begins, if it has one.
    """

    index_name: str
    kind: str
    index_file: str
    child_file: str
    begin: str = ""


APPS = {
    "users": AppSource(INDEX_NAME, "user", "users/user_index.py", "users/user.py"),
    "zones": AppSource(FACTORY_NAME, "zone", "zones/zone_factory.py", "zones/zone.py"),
    "store": AppSource(STORE_NAME, "bucket", "store/store_index.py", "store/bucket.py", "place_look"),
}
ALWAYS = "users"
"""What each node has; the others are there once somebody has installed them."""


@dataclass(frozen=True, slots=True)
class App:
    """The two modules of an app."""

    source: AppSource
    index: BuiltModule
    child: BuiltModule


@dataclass(frozen=True, slots=True)
class InstalledApp:
    """An app's index on the node, and whether it was `installed`, `upgraded` or `unchanged`."""

    index_id: Principal
    action: str


def build_app(name: str) -> App:
    """Build an app's modules out of the sources that were installed with this version."""
    source = APPS[name]
    index, child = (
        build_source(read_source(str(APPS_FOLDER / file))) for file in (source.index_file, source.child_file)
    )
    return App(source, index, child)


def install_apps(agent: Agent) -> None:
    """See that what each node has is there, and that what was installed besides runs this version."""
    names = Management(agent).names()
    for name, source in APPS.items():
        if name == ALWAYS or source.index_name in names:
            install_app(agent, build_app(name))


def install_app(agent: Agent, app: App) -> InstalledApp:
    """See that an app's index runs this version and gives new children this version's module."""
    management, name = Management(agent), app.source.index_name
    for built in (app.index, app.child):
        management.module_bring(built.module, built.hash)
    index_id = management.names().get(name)
    if index_id is None:
        index_id = management.create(None, None)
        management.name_set(name, index_id)
    present = agent.module_hash(index_id)
    action = "unchanged"
    if present != app.index.hash:
        mode, action = ("install", "installed") if present is None else ("upgrade", "upgraded")
        management.install(index_id, mode, app.index.hash, EMPTY_ARGUMENT)
    index = TypedCanister(agent, index_id)
    _release(index, app.source.kind, app.child.hash)
    if app.source.begin:
        index.call_for_effect(app.source.begin)
    return InstalledApp(index_id, action)


def _release(index: TypedCanister, kind: str, module_hash: bytes) -> None:
    """See that the index has this version's module as a release, and that its children get it."""
    known = index.query("fleet_releases", list[ReleaseEntry], (kind,), (str | None,))
    version = next((entry.version for entry in known if entry.module_hash == module_hash), 0)
    if not version:
        version = max((entry.version for entry in known), default=0) + 1
        text = f"comes with Cannery {KIT_VERSION}"
        args, hints = (kind, version, module_hash, text), (str, nat64, bytes, str)
        added = index.call("fleet_release_add", ReleaseResult, args, hints)
        if added.tag == "err":
            raise CanneryError(f"release {version} of {kind} was not added: {added.err}")
    # Releases that an operator added since stay: a start of the node takes nobody back.
    is_newest = version >= max((entry.version for entry in known), default=0)
    if is_newest and _is_wanted(index, kind, version):
        _roll_out(index, kind, version)


def _is_wanted(index: TypedCanister, kind: str, version: int) -> bool:
    """Say whether children are on other releases and were never offered this one; version 0 stands for those
    of a time before there were fleets.
    """
    behind = {
        count.version
        for count in index.query("fleet_status", FleetStatus).counts
        if count.kind == kind and count.state == "active" and count.version != version
    }
    rollouts = index.query("fleet_rollouts", list[RolloutInfo])
    offered = any(target.version == version for rollout in rollouts for target in rollout.targets)
    return bool(behind) and (not offered or NO_VERSION in behind)


def _roll_out(index: TypedCanister, kind: str, version: int) -> None:
    """Bring the children that are there to a release, in waves, while the node serves them."""
    started = index.call(
        "fleet_rollout_start", StartResult, (RolloutArgs([KindVersion(kind, version)], WAVE_COUNT),)
    )
    if started.tag == "err":
        raise CanneryError(
            f"release {version} of {kind} is not rolled out: {started.err}; "
            "its children stay on the release that they have"
        )
