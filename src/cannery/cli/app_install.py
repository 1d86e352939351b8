"""The apps that come with Cannery: brought to the node and kept up to its version.

Through the public interface, as the operator: modules are added, the index of users is created, named and
told which module new users get. A second start finds them there; another version upgrades the index.
Nothing here is known to the node itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cannery.candid.python import nat64
from cannery.cdk.build import BuiltModule
from cannery.cdk.interface import KIT_VERSION
from cannery.cli.building import build_source
from cannery.cli.mailbox import INDEX_NAME
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.client.agent import Agent
from cannery.errors import CanneryError
from cannery.fleet.directory import NO_VERSION
from cannery.fleet.directory_types import FleetStatus
from cannery.fleet.registry import ReleaseEntry, ReleaseResult
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, StartResult
from cannery.node.source_files import read_source
from cannery.protocol.principal import Principal

APPS_FOLDER = Path(__file__).resolve().parent.parent / "apps"
USER_KIND = "user"
WAVE_COUNT = 100
EMPTY_ARGUMENT = b"DIDL\x00\x00"


@dataclass(frozen=True, slots=True)
class UsersApp:
    """The two modules of the users app."""

    index: BuiltModule
    user: BuiltModule


def build_users_app() -> UsersApp:
    """Build the modules out of the sources that were installed with this version."""
    return UsersApp(
        build_source(read_source(str(APPS_FOLDER / "users" / "user_index.py"))),
        build_source(read_source(str(APPS_FOLDER / "users" / "user.py"))),
    )


def sources_digest() -> str:
    """Give a hash over the sources of the apps: while it stays, nothing needs to be built."""
    digest = sha256()
    for path in sorted(APPS_FOLDER.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(APPS_FOLDER)}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def install_users_app(agent: Agent, app: UsersApp) -> Principal:
    """See that the index of users runs this version and gives new users the user module; return its id."""
    management = Management(agent)
    for built in (app.index, app.user):
        management.module_bring(built.module, built.hash)
    index_id = management.names().get(INDEX_NAME)
    if index_id is None:
        index_id = management.create(None, None)
        management.name_set(INDEX_NAME, index_id)
    present = agent.module_hash(index_id)
    if present != app.index.hash:
        mode = "install" if present is None else "upgrade"
        management.install(index_id, mode, app.index.hash, EMPTY_ARGUMENT)
    _release(TypedCanister(agent, index_id), app.user.hash)
    return index_id


def _release(index: TypedCanister, module_hash: bytes) -> None:
    """See that the index has this version's user module as a release, and that its users get it."""
    known = index.query("fleet_releases", list[ReleaseEntry], (USER_KIND,), (str | None,))
    version = next((entry.version for entry in known if entry.module_hash == module_hash), 0)
    if not version:
        version = max((entry.version for entry in known), default=0) + 1
        text = f"comes with Cannery {KIT_VERSION}"
        args, hints = (USER_KIND, version, module_hash, text), (str, nat64, bytes, str)
        added = index.call("fleet_release_add", ReleaseResult, args, hints)
        if added.tag == "err":
            raise CanneryError(f"the users app's release {version} was not added: {added.err}")
    if _is_wanted(index, version):
        _roll_out(index, version)


def _is_wanted(index: TypedCanister, version: int) -> bool:
    """Say whether users are on other releases and were never offered this one; version 0 stands for those of
    a time before there were fleets.
    """
    behind = {
        count.version
        for count in index.query("fleet_status", FleetStatus).counts
        if count.kind == USER_KIND and count.state == "active" and count.version != version
    }
    rollouts = index.query("fleet_rollouts", list[RolloutInfo])
    offered = any(target.version == version for rollout in rollouts for target in rollout.targets)
    return bool(behind) and (not offered or NO_VERSION in behind)


def _roll_out(index: TypedCanister, version: int) -> None:
    """Bring the users that are there to a release, in waves, while the node serves them."""
    started = index.call(
        "fleet_rollout_start", StartResult, (RolloutArgs([KindVersion(USER_KIND, version)], WAVE_COUNT),)
    )
    if started.tag == "err":
        raise CanneryError(
            f"the users app's release {version} is not rolled out: {started.err}; "
            "users stay on the release that they have"
        )
