"""The JavaScript client of examples/store-js, as it stands there, against a running node."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

from cannery.cdk.management import FleetConfigureArgs, FleetValue
from cannery.cli.app_install import build_app, install_app
from cannery.cli.typed_calls import TypedCanister
from tests.clients.conftest import JS_HOME, RunScript, _node_js
from tests.node_under_test import ROOT, NodeUnderTest
from tests.waiting import NEVER_S

EXAMPLE = ROOT / "examples" / "store-js" / "store.mjs"
LINES_MAX = 60


def test_the_example_asks_once_and_writes_and_reads_in_parallel(
    running_node: NodeUnderTest, run_script: RunScript, tmp_path: Path
) -> None:
    assert EXAMPLE.read_text().count("\n") <= LINES_MAX
    assert run_script is not None, "it installs the npm packages"
    with running_node.agent(running_node.operator) as agent:
        index_id = install_app(agent, build_app("store")).index_id
        small = FleetConfigureArgs([], [], [FleetValue("bucket_slots", "20")])
        TypedCanister(agent, index_id).call_for_effect("fleet_config_set", (small,))
    shutil.copy(EXAMPLE, tmp_path)
    (tmp_path / "node_modules").symlink_to(JS_HOME / "node_modules")
    arguments = [running_node.url, running_node.root_key.hex(), str(index_id), "60"]
    done = subprocess.run(
        [_node_js(), str(tmp_path / "store.mjs"), *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=NEVER_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    assert (told["put"], told["read"]) == (60, 60)
    assert told["buckets"] >= 2
