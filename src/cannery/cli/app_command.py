"""`cannery app`: the apps that come with Cannery and are not on each node."""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit

app_commands = typer.Typer(
    name="app",
    short_help="Apps that come with Cannery.",
    help="Apps that come with Cannery. `cannery start` installs the users app by itself, and keeps the "
    "others up to its version once they are installed.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(app_commands)


@app_commands.command(epilog="Example: cannery app install zones")
def install(
    name: Annotated[str, typer.Argument(metavar="APP", help="users, zones or store.")],
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Install an app, or bring it up to this version; its canisters follow in waves."""
    from cannery.cli.app_install import APPS, build_app, install_app
    from cannery.cli.problem import Problem
    from cannery.cli.session import open_session, operator_identity

    if name not in APPS:
        raise Problem(f"there is no app {name!r}: the apps are {' and '.join(APPS)}")
    with open_session(node, operator_identity(identity), f"installing {name}") as session:
        session.line.say("building")
        done = install_app(session.agent, build_app(name))
    index_name = APPS[name].index_name
    emit(
        {"app": name, "name": index_name, "canister_id": done.index_id, "action": done.action},
        as_json,
        [f"{done.action}: {name}, {index_name} {done.index_id}"],
    )
