"""`cannery operator`: who runs the node, and so may bring modules, create canisters and mint cycles."""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit

operator = typer.Typer(
    name="operator",
    short_help="Operators of the node.",
    help="Operators: those who may bring modules, create canisters and mint cycles.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
WhoArgument = Annotated[
    str, typer.Argument(metavar="WHO", help="A principal, or the name of one of your identities.")
]


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(operator)


@operator.command(epilog="Example: cannery operator add ann")
def add(
    who: WhoArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Make somebody an operator."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity, read_principal

    principal = read_principal(who)
    with open_session(node, operator_identity(identity), "adding an operator") as session:
        Management(session.agent).operator_add(principal)
    emit({"operator": principal}, as_json, [f"{principal} is an operator"])


@operator.command(epilog="Example: cannery operator remove ann")
def remove(
    who: WhoArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Make somebody no operator any more; the last one stays."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity, read_principal

    principal = read_principal(who)
    with open_session(node, operator_identity(identity), "removing an operator") as session:
        Management(session.agent).operator_remove(principal)
    emit({"removed": principal}, as_json, [f"{principal} is no operator any more"])


@operator.command(name="list", epilog="Example: cannery operator list --json")
def list_operators(
    identity: OperatorOption = None, node: NodeOption = DEFAULT_URL, as_json: JsonOption = False
) -> None:
    """List the operators."""
    from cannery.cli.management import Management
    from cannery.cli.session import caller_identity, open_session

    with open_session(node, caller_identity(identity), "listing operators") as session:
        found = Management(session.agent).operators()
    emit(found, as_json, [str(principal) for principal in found])
