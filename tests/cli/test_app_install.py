"""The apps that come with Cannery: a new version of theirs reaches the users that are there."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from cannery.apps.users.types import Profile, Who
from cannery.cli.app_install import APPS_FOLDER, build_app, install_app
from cannery.cli.building import build_source
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.member import MemberVersion
from cannery.fleet.rollout_types import RolloutInfo
from cannery.node.source_files import read_source
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

NEW_METHOD = '''
    @query
    def motto(self, ctx: Context) -> str:
        """Return a line that only the next version knows."""
        return "nothing is lost"
'''


def test_a_new_version_of_the_users_app_is_rolled_out_to_the_users(
    cli: Cli, start_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    node = start_node()
    cli("identity", "new", "ann")
    assert cli("register", "ann", "--identity", "ann", node=node).code == 0
    folder = tmp_path / "users"
    shutil.copytree(APPS_FOLDER / "users", folder)
    source = (folder / "user.py").read_text()
    marker = "    def _sweep(self"
    (folder / "user.py").write_text(source.replace(marker, NEW_METHOD.lstrip("\n") + "\n" + marker, 1))
    app = replace(build_app("users"), child=build_source(read_source(str(folder / "user.py"))))
    with node.agent(node.operator) as agent:
        installed = install_app(agent, app)
        index_id = installed.index_id
        assert installed.action == "unchanged"
        index = TypedCanister(agent, index_id)
        ann = index.query_option("lookup", Profile, (Who.username("ann"),))
        assert ann is not None
        (rollout,) = index.query("fleet_rollouts", list[RolloutInfo])
        while rollout.ended_ns is None:
            index.call_for_effect("fleet_census_take")
            (rollout,) = index.query("fleet_rollouts", list[RolloutInfo])
        assert (rollout.state.tag, rollout.counts.forward) == ("done", 1)
        mailbox = TypedCanister(agent, ann.canister)
        assert mailbox.query("motto", str) == "nothing is lost"
        told = mailbox.query("get_version", MemberVersion)
        assert (told.kind, told.version, told.fleet) == ("user", 2, index_id)
        install_app(agent, app)
        assert len(index.query("fleet_rollouts", list[RolloutInfo])) == 1
