"""`cannery canister snapshot`: save a canister's state on the node, and go back to it.

The canister need not be stopped: docs/snapshots.md says what a snapshot holds, and what going back does to
calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import columns, emit, format_size, format_time

if TYPE_CHECKING:
    from cannery.cli.management import Management
    from cannery.protocol.principal import Principal

IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Canister id or name.")]
SnapshotArgument = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="Id of a snapshot, as listed.")]

snapshot = typer.Typer(
    name="snapshot",
    short_help="Save a canister's state, and go back to it.",
    help="Snapshots of a canister: take, list, restore, delete. Controllers only.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(canister: typer.Typer) -> None:
    """Hang these commands into the group."""
    canister.add_typer(snapshot)


@snapshot.command(epilog="Example: cannery canister snapshot create book")
def create(
    canister_id: IdArgument,
    replace: Annotated[
        str | None, typer.Option("--replace", metavar="SNAPSHOT", help="A snapshot to remove for it.")
    ] = None,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a snapshot of a canister and print its id."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    replaced = None if replace is None else _snapshot_id(replace)
    with open_session(node, operator_identity(identity), "taking a snapshot") as session:
        target = session.canister(canister_id)
        taken = Management(session.agent).snapshot_take(target, replaced)
    shown = {"canister_id": target, "snapshot_id": taken.id.hex(), "size": taken.total_size}
    emit({**shown, "taken_ns": taken.taken_at_timestamp}, as_json, [taken.id.hex()])


@snapshot.command(name="list", epilog="Example: cannery canister snapshot list book")
def list_snapshots(
    canister_id: IdArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the snapshots of a canister, oldest first."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    with open_session(node, operator_identity(identity), "listing snapshots") as session:
        found = Management(session.agent).snapshots(session.canister(canister_id))
    rows = [(s.id.hex(), f"{format_time(s.taken_at_timestamp)}  {format_size(s.total_size)}") for s in found]
    listed = [
        {"snapshot_id": s.id.hex(), "taken_ns": s.taken_at_timestamp, "size": s.total_size} for s in found
    ]
    emit(listed, as_json, columns(rows))


@snapshot.command(epilog="Example: cannery canister snapshot restore book SNAPSHOT")
def restore(
    canister_id: IdArgument,
    snapshot_id: SnapshotArgument,
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it although the canister has run messages since.")
    ] = False,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Put a canister's state back to a snapshot; what it did since is undone, open calls are rejected."""
    from cannery.cli.management import Management
    from cannery.cli.problem import Problem
    from cannery.cli.session import open_session, operator_identity

    wanted = _snapshot_id(snapshot_id)
    with open_session(node, operator_identity(identity), "restoring a snapshot") as session:
        target, management = session.canister(canister_id), Management(session.agent)
        undone = "" if yes else _undone(management, target, wanted)
        if undone:
            raise Problem(f"{undone}, and going back undoes what it did: say --yes", 1)
        management.snapshot_load(target, wanted)
    shown = {"canister_id": target, "snapshot_id": wanted.hex(), "status": "restored"}
    emit(shown, as_json, [f"{target} is back at {wanted.hex()}"])


@snapshot.command(epilog="Example: cannery canister snapshot delete book SNAPSHOT")
def delete(
    canister_id: IdArgument,
    snapshot_id: SnapshotArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Delete a snapshot of a canister."""
    from cannery.cli.management import Management
    from cannery.cli.session import open_session, operator_identity

    wanted = _snapshot_id(snapshot_id)
    with open_session(node, operator_identity(identity), "deleting a snapshot") as session:
        target = session.canister(canister_id)
        Management(session.agent).snapshot_delete(target, wanted)
    shown = {"canister_id": target, "snapshot_id": wanted.hex(), "status": "deleted"}
    emit(shown, as_json, [f"{wanted.hex()} deleted"])


def _undone(management: Management, target: Principal, wanted: bytes) -> str:
    """Say what going back to a snapshot would undo; nothing where nothing ran since."""
    taken = next((each for each in management.snapshots(target) if each.id == wanted), None)
    active_ns = management.canister_metrics(target).active_ns
    if taken is None or active_ns < taken.taken_at_timestamp:
        return ""
    since, last = format_time(taken.taken_at_timestamp), format_time(active_ns)
    return f"{target} has run messages since {since}, the last one at {last}"


def _snapshot_id(text: str) -> bytes:
    from cannery.cli.problem import Problem

    try:
        return bytes.fromhex(text)
    except ValueError:
        raise Problem(
            f"{text!r} is not the id of a snapshot: `cannery canister snapshot list ID` shows them",
            exit_code=2,
        ) from None
