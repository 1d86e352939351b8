"""`cannery fleet release`: the code that a fleet's members may run, by kind and version."""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import (
    DEFAULT_INDEX,
    DEFAULT_URL,
    IndexOption,
    JsonOption,
    NodeOption,
    OperatorOption,
)
from cannery.cli.output import emit

release = typer.Typer(
    name="release",
    short_help="Code that members may run, by version.",
    help="Releases: code for a kind of children, under versions that rise. A rollout brings one to them.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.add_typer(release)


@release.command(
    epilog="Example: cannery fleet release add user.py --kind user --version 4 --note 'Finds mail faster'"
)
def add(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A canister's source (.py, .py:Class) or a built .wasm.")
    ],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Which children it is for.")],
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What is new, in one line.")],
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", min=1, help="Above all others; without it the next."),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Bring a module to the node, compare it with the current release, and add it to the registry."""
    from hashlib import sha256

    from cannery.cli.building import read_module
    from cannery.cli.fleet_compare import add_release, added_lines
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.management import Management

    data = read_module(file)
    module_hash = sha256(data).digest()
    with open_fleet(node, identity, index, "adding the release") as opened:
        opened.session.line.say("bringing the module")
        Management(opened.session.agent).module_bring(data, module_hash)
        opened.session.line.say("adding it to the registry")
        added = add_release(opened.index, kind, version, module_hash, note)
    emit(added, as_json, added_lines(added))


@release.command(name="list", epilog="Examples: cannery fleet release list; cannery fleet release list user")
def list_releases(
    kind: Annotated[
        str | None, typer.Argument(metavar="KIND", help="Of this kind; without it of all.")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List releases, newest first: version, how many children run it, when it was added, what is new."""
    from cannery.cli.fleet_compare import release_rows
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "listing releases") as opened:
        found = opened.index.releases(kind)
        counts = opened.index.status().counts
    emit(found, as_json, release_rows(found, counts))
