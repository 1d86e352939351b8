"""What the documents show is what happens: transcripts, programs, links, limits and settings."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import msgspec.structs
import pytest

from cannery import limits
from cannery.cdk.build import build_module
from cannery.node.config import LimitsSection, ModulesSection, NodeSection, OutcallsSection
from cannery.node.gateway.settings import GatewaySettings
from cannery.node.watching.settings import WatchSettings
from cannery.replica.prices import FREE, IC
from tests.cdk.test_module_file import load
from tests.clients.conftest import JS_HOME, RunScript, icp_tool, run_script
from tests.docs.transcript import DOCUMENTED_URL, Normaliser, Step, blocks_of, run_steps, steps_of
from tests.node_under_test import ROOT, NodeUnderTest

__all__ = ["icp_tool", "run_script"]

DOCUMENTS = [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS = [
    pytest.param(document, block, id=f"{document.stem}-{number}")
    for document in DOCUMENTS
    for number, block in enumerate(blocks_of(document.read_text(), "python"))
]
LINK = re.compile(r"\]\(([^)\s]+)\)")
LIMIT = re.compile(r"`([A-Z][A-Z0-9_]+_(?:MAX|MIN|NS|BYTES|COUNT))`")
SETTINGS = (
    ("node", NodeSection()),
    ("limits", LimitsSection()),
    ("modules", ModulesSection()),
    ("outcalls", OutcallsSection()),
    ("gateway", GatewaySettings()),
    ("watch", WatchSettings()),
)

StartNode = Callable[..., NodeUnderTest]


def play(document: Path, node: NodeUnderTest, tmp_path: Path, programs: str = "") -> None:
    """Run a document's transcripts in order; fail with the first command that prints something else."""
    shown = steps_of(document.read_text())
    assert shown, f"{document.name} has no transcript"
    folder = tmp_path / "session"
    folder.mkdir()
    names_shown, names_seen = Normaliser(), Normaliser()
    for wanted, got in zip(shown, run_steps(shown, node, folder, programs), strict=True):
        assert Step(got.command, names_seen(got.output)) == Step(wanted.command, names_shown(wanted.output))


@pytest.mark.parametrize(
    "name",
    [
        "docs/backup.md",
        "docs/canisters.md",
        "docs/fleet.md",
        "docs/ownership.md",
        "docs/scaling.md",
        "docs/users.md",
    ],
)
def test_transcripts(name: str, start_node: StartNode, tmp_path: Path) -> None:
    play(ROOT / name, start_node(), tmp_path)


def test_transcripts_of_local_indexes(start_node: StartNode, tmp_path: Path) -> None:
    play(ROOT / "docs" / "shards.md", start_node(settings="[node]\nsubnet_count = 2\n"), tmp_path)


def test_transcripts_of_the_icp_tool(start_node: StartNode, tmp_path: Path, icp_tool: Path) -> None:
    for setting in (("telemetry", "false"), ("update-check", "disabled")):
        command = [str(icp_tool), "settings", *setting]
        subprocess.run(command, env={"HOME": str(tmp_path)}, check=True, capture_output=True)
    play(ROOT / "docs" / "icp-tool.md", start_node(), tmp_path, str(icp_tool.parent))


def test_the_readme(
    start_node: StartNode, tmp_path: Path, run_script: RunScript, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "README.md").read_text()
    node = start_node()
    play(ROOT / "README.md", node, tmp_path)
    run_javascript(text, node, tmp_path, run_script)
    (program,) = [block for block in blocks_of(text, "python") if "cannery.client" in block]
    run_program(program.replace(DOCUMENTED_URL, node.url))
    assert int(capsys.readouterr().out) == 2, "the third entry in the book"


def test_the_javascript_client_of_the_users_guide(
    running_node: NodeUnderTest, tmp_path: Path, run_script: RunScript
) -> None:
    run_javascript((ROOT / "docs" / "users.md").read_text(), running_node, tmp_path, run_script)


def run_javascript(text: str, node: NodeUnderTest, tmp_path: Path, run_script: RunScript) -> None:
    (program,) = blocks_of(text, "js")
    assert DOCUMENTED_URL in program
    (tmp_path / "node_modules").symlink_to(JS_HOME / "node_modules")
    path = tmp_path / "documented.mjs"
    path.write_text(program.replace(DOCUMENTED_URL, node.url))
    done = run_script(str(path))
    assert done.code == 0, done.errors


def run_program(program: str) -> None:
    exec(compile(program, "<document>", "exec"), {"__name__": "__document__"})


@pytest.mark.parametrize(("document", "block"), PROGRAMS)
def test_programs(document: Path, block: str, monkeypatch: pytest.MonkeyPatch) -> None:
    compile(block, str(document), "exec")
    canisters = re.findall(r"^class (\w+)\(Canister\)", block, re.MULTILINE)
    if "from cannery.testing" in block:
        monkeypatch.chdir(ROOT)
        run_program(block)
    elif canisters:
        name = f"document_{document.stem.lower()}"
        built = build_module({f"{name}.py": block.encode()}, f"{name}:{canisters[-1]}", load)
        assert "service : " in built.did


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in LINK.findall(document.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        assert path.exists(), f"{document.name} links to {target}, which is not there"
        if anchor:
            assert anchor in anchors_of(path), f"{document.name} links to {target}, which has no such heading"


def anchors_of(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_limits_exist(document: Path) -> None:
    missing = [name for name in LIMIT.findall(document.read_text()) if not hasattr(limits, name)]
    assert not missing, f"{document.name} names limits that are not there: {missing}"


def test_the_guide_gives_the_limits_as_they_are() -> None:
    text = (ROOT / "docs" / "canisters.md").read_text().partition("\n## Limits\n")[2]
    rows = [line.split("|") for line in text.splitlines() if LIMIT.search(line)]
    assert len(rows) > 10
    for _, what, shown, names, _ in rows:
        for name in LIMIT.findall(names):
            spellings = spellings_of(getattr(limits, name))
            assert any(spelling in shown for spelling in spellings), f"{what}: {name} is {spellings}"


def spellings_of(value: int) -> list[str]:
    """Write a limit as a number, as bytes and as a time."""
    return [f"{value:,}", f"{value / 2**20:g} MiB", f"{value / 10**9:g} s", f"{value / 10**6:g} ms"]


def test_settings_and_their_defaults() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for section, values in SETTINGS:
        _, _, rest = text.partition(f"## `[{section}]`")
        rows = re.findall(r"^\| `(\w+)` \| `([^`]*)` \|", rest.partition("\n## ")[0], re.MULTILINE)
        assert rows, f"configuration.md has no table for [{section}]"
        for name, shown in rows:
            assert spelled(getattr(values, name)) == shown, f"default of {section}.{name}"
    _, _, rest = text.partition("## `[prices]`")
    prices = re.findall(r"^\| `(\w+)` \| (\d+) \| (\d+) \|", rest.partition("\n## ")[0], re.MULTILINE)
    for schedule, place in ((FREE, 1), (IC, 2)):
        assert {row[0]: int(row[place]) for row in prices} == msgspec.structs.asdict(schedule)


def test_every_setting_of_the_gateway_is_known() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    assert [field.name for field in fields(GatewaySettings) if f"`{field.name}`" not in text] == []


def spelled(value: object) -> str:
    """Write a default as TOML does."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    if isinstance(value, tuple | list | frozenset):
        return f"[{', '.join(spelled(each) for each in value)}]"
    return str(value)
