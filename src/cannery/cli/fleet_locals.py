"""`cannery fleet local`: the local indexes of a fleet that is spread, and the map of its root."""

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

local = typer.Typer(
    name="local",
    short_help="Local indexes of a fleet that is spread.",
    help="Local indexes: each makes and looks after a part of the children, on a subnet of its own.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
CanisterArgument = Annotated[
    str, typer.Argument(metavar="CANISTER", help="The local index: canister id, or a name.")
]


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.add_typer(local)


@local.command(name="list", epilog="Example: cannery fleet local list --index library")
def list_locals(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the local indexes, how full they are, where the map is, and rollouts on their way."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor, status_lines

    with open_fleet(node, identity, index, "asking for local indexes") as opened:
        found = LocalsDoor(opened).status()
    emit(found, as_json, status_lines(found))


@local.command(epilog="Examples: cannery fleet local add; cannery fleet local add --subnet 1")
def add(
    subnet: Annotated[
        str | None,
        typer.Option(
            "--subnet",
            metavar="SUBNET",
            help="Number or principal of a subnet, or any: the one with the fewest canisters.",
        ),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Add a local index, and wait until it serves."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor

    with open_fleet(node, identity, index, "adding a local index") as opened:
        door = LocalsDoor(opened)
        found = door.wait(door.add(subnet))
    emit(found, as_json, [f"local index {found.number}: {found.canister}, {found.step or found.state.tag}"])


@local.command(epilog="Example: cannery fleet local rest 53zcu-tiaaa-aaaaa-qaaba-cai")
def rest(
    canister: CanisterArgument,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a local index out of rotation: it keeps its children and gets no more."""
    _order("rest", "rests", canister, index, identity, node, as_json)


@local.command(epilog="Example: cannery fleet local serve 53zcu-tiaaa-aaaaa-qaaba-cai")
def serve(
    canister: CanisterArgument,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Put a local index into rotation again."""
    _order("serve", "serves", canister, index, identity, node, as_json)


@local.command(epilog="Example: cannery fleet local dismiss 53zcu-tiaaa-aaaaa-qaaba-cai --yes")
def dismiss(
    canister: CanisterArgument,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Trust a local index no more: what it makes belongs to no fleet, and its word counts for nothing."""
    from cannery.cli.problem import Problem

    if not yes:
        raise Problem(f"{canister} would be trusted no more; its children stay as they are: say --yes")
    _order("dismiss", "is dismissed", canister, index, identity, node, as_json)


@local.command(epilog="Example: cannery fleet local reinstate 53zcu-tiaaa-aaaaa-qaaba-cai")
def reinstate(
    canister: CanisterArgument,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a local index back that was dismissed."""
    _order("reinstate", "is taken back", canister, index, identity, node, as_json)


@local.command(name="go-on", epilog="Example: cannery fleet local go-on shelf")
def go_on(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Whose rollout has halted.")],
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Order a rollout again at the local index where it halted."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor

    with open_fleet(node, identity, index, "ordering the rollout again") as opened:
        LocalsDoor(opened).go_on(kind)
    emit({"kind": kind}, as_json, [f"the rollout of {kind} goes on"])


@local.command(epilog="Example: cannery fleet local find ann --kind shelf")
def find(
    owner: Annotated[str, typer.Argument(metavar="WHO", help="A principal, or one of your identities.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Which kind of child.")],
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Find somebody's child through the root's map, and the local index that looks after it."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor
    from cannery.cli.problem import Problem
    from cannery.cli.session import read_principal

    with open_fleet(node, identity, index, "asking the map") as opened:
        found = LocalsDoor(opened).find(kind, read_principal(owner))
    if found is None:
        raise Problem(f"{owner} has no {kind}", exit_code=1)
    emit(found, as_json, [f"{found.canister}, made by local index {found.index}"])


@local.command(
    name="hand-over",
    epilog="Example: cannery fleet local hand-over ann --kind shelf --to 53zcu-tiaaa-aaaaa-qaaba-cai",
)
def hand_over(
    owner: Annotated[str, typer.Argument(metavar="WHO", help="A principal, or one of your identities.")],
    kind: Annotated[str, typer.Option("--kind", metavar="KIND", help="Which kind of child.")],
    to: Annotated[str, typer.Option("--to", metavar="CANISTER", help="The local index that is to have it.")],
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Let a local index look after somebody's child whose own one is gone or dismissed."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor
    from cannery.cli.session import read_principal

    with open_fleet(node, identity, index, "handing the child over") as opened:
        number = LocalsDoor(opened).hand_over(kind, read_principal(owner), to)
    emit({"number": number}, as_json, [f"local index {number} looks after the {kind} of {owner}"])


@local.command(epilog="Example: cannery fleet local look")
def look(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Let the root do what is due now, and not at its next look; list what there is then."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor, status_lines

    with open_fleet(node, identity, index, "looking after local indexes") as opened:
        door = LocalsDoor(opened)
        door.look()
        found = door.status()
    emit(found, as_json, status_lines(found))


@local.command(epilog="Example: cannery fleet local census")
def census(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Add up the last censuses of the root and all its local indexes."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor, census_lines

    with open_fleet(node, identity, index, "adding up censuses") as opened:
        found = LocalsDoor(opened).census()
    emit(found, as_json, census_lines(found))


def _order(
    order: str, done: str, canister: str, index: str, identity: str | None, node: str, as_json: bool
) -> None:
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_locals_door import LocalsDoor
    from cannery.fleet.shards_types import LocalOrder

    with open_fleet(node, identity, index, "telling the root") as opened:
        number = LocalsDoor(opened).order(canister, LocalOrder(order))
    emit({"number": number, "is": order}, as_json, [f"local index {number} {done}"])
