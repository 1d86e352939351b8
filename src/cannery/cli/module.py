"""`cannery module`: the modules that a node holds, each stored once under its hash."""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import columns, emit, format_size, format_time

module = typer.Typer(
    name="module",
    short_help="Modules that the node holds.",
    help="Modules: code that canisters run. Operators bring it; any controller installs it by its hash.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(module)


@module.command(epilog="Examples: cannery module add guestbook.py; cannery module add build/guestbook.wasm")
def add(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="A canister's source (.py, .py:Class) or a built .wasm.")
    ],
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Bring a module to the node and print its hash."""
    from cannery.cli.building import read_module
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    data = read_module(file)
    with open_session(node, operator_identity(identity), "adding the module") as session:
        digest = Management(session.agent).module_add(data)
    emit({"hash": digest, "size": len(data)}, as_json, [digest.hex()])


@module.command(name="list", epilog="Example: cannery module list")
def list_modules(
    identity: OperatorOption = None, node: NodeOption = DEFAULT_URL, as_json: JsonOption = False
) -> None:
    """List the modules: hash, name, size, canisters on it, when it was added."""
    from cannery.cli.management import Management
    from cannery.cli.session import caller_identity, open_session

    with open_session(node, caller_identity(identity), "listing modules") as session:
        found = Management(session.agent).modules()
    rows = [
        (
            info.hash.hex(),
            info.name,
            format_size(info.size),
            f"{info.canisters} canister{'' if info.canisters == 1 else 's'}",
            format_time(info.added_ns),
        )
        for info in found
    ]
    emit(found, as_json, columns(rows))
