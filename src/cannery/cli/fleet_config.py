"""`cannery fleet config`: roles and values of a fleet, which every member reads at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from cannery.cdk.management import FleetConfigureArgs, FleetConfigureResult, FleetInfo

config = typer.Typer(
    name="config",
    short_help="Roles and values that all members read.",
    help="The configuration of a fleet: who has which role, and named values, for every member at once.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
RoleArgument = Annotated[str, typer.Argument(metavar="ROLE", help="The role's name.")]
WhoArgument = Annotated[
    list[str],
    typer.Argument(metavar="WHO...", help="Principals, canister ids, or names of your identities."),
]


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.add_typer(config)


@config.command(epilog="Example: cannery fleet config show")
def show(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show roles, values, and the version of both."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "asking for the configuration") as opened:
        found = opened.index.info()
    emit(found, as_json, _info_lines(found))


@config.command(
    name="set",
    epilog="Examples: cannery fleet config set greeting=hello max_size=100; "
    "cannery fleet config set greeting --remove",
)
def set_values(
    values: Annotated[
        list[str], typer.Argument(metavar="NAME=VALUE...", help="Values to set, or names with --remove.")
    ],
    remove: Annotated[bool, typer.Option("--remove", help="Remove the values of these names.")] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Set named values, or remove them."""
    from cannery.cdk.management import FleetConfigureArgs, FleetValue

    pairs = [_pair(text, remove=remove) for text in values]
    change = FleetConfigureArgs([], [], [FleetValue(name, value) for name, value in pairs])
    _configure(change, index, identity, node, as_json)


@config.command(epilog="Example: cannery fleet config grant moderator ann bob")
def grant(
    role: RoleArgument,
    who: WhoArgument,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Give principals a role."""
    from cannery.cdk.management import FleetConfigureArgs, FleetRole
    from cannery.cli.session import read_principal

    change = FleetConfigureArgs([FleetRole(role, [read_principal(each) for each in who])], [], [])
    _configure(change, index, identity, node, as_json)


@config.command(epilog="Example: cannery fleet config revoke moderator bob")
def revoke(
    role: RoleArgument,
    who: WhoArgument,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a role away; once this is done, every member in reach refuses it."""
    from cannery.cdk.management import FleetConfigureArgs, FleetRole
    from cannery.cli.session import read_principal

    change = FleetConfigureArgs([], [FleetRole(role, [read_principal(each) for each in who])], [])
    _configure(change, index, identity, node, as_json)


def _pair(text: str, *, remove: bool) -> tuple[str, str | None]:
    """Read `NAME=VALUE`, or a name that is to go."""
    from cannery.cli.problem import Problem

    name, is_set, value = text.partition("=")
    if not name or bool(is_set) == remove:
        wanted = "names alone with --remove" if remove else "NAME=VALUE, or NAME with --remove"
        raise Problem(f"{text!r} does not fit: give {wanted}")
    return name, value if is_set else None


def _configure(
    change: FleetConfigureArgs, index: str, identity: str | None, node: str, as_json: bool
) -> None:
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "configuring the fleet") as opened:
        done = opened.index.configure(change)
    emit(done, as_json, _done_lines(done))


def _done_lines(done: FleetConfigureResult) -> Iterator[str]:
    """Say who has the change, and name who has not."""
    if not done.waiting:
        yield f"version {done.version}: all members have it"
        return
    yield f"version {done.version}: all members have it but {len(done.waiting)}, which refuse until they do:"
    yield from (str(member) for member in done.waiting)


def _info_lines(found: FleetInfo) -> Iterator[str]:
    from cannery.cli.fleet_lines import format_when, labelled

    yield from labelled("version", [f"{found.config_version}, changed {format_when(found.config_at_ns)}"])
    yield from labelled("members", [f"{found.members:,}"])
    for role in found.roles:
        yield from labelled("role", [f"{role.role}: {' '.join(str(who) for who in role.principals)}"])
    for value in found.values:
        yield from labelled("value", [f"{value.name}={value.value}"])
