"""`cannery backup`: save a node, a fleet or canisters; list, check and prune what was saved.

These commands read the node's data directory and the repository; the node may run or not. What they do
stands in `node.backup`; docs/backup.md explains it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.backup_options import BackupOption, PlaceArgument
from cannery.cli.options import DEFAULT_DATA, JsonOption
from cannery.cli.output import columns, emit, format_size, format_time, note, progress

if TYPE_CHECKING:
    from cannery.node.backup.format.manifest import BackupHead
    from cannery.node.backup.verify import Checked, Drilled

backup = typer.Typer(
    name="backup",
    short_help="Save a node, a fleet or canisters, and put them back.",
    help=(
        "Backups: made while the node serves, each storing only what changed. PLACE is a folder, or the URL "
        "of an object store such as s3://bucket/path."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)
_KEYS_NOTE = (
    "this backup holds the node's secret keys: whoever reads it can speak for the node. Keep it as you keep "
    "those, or back up with --without-keys"
)


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    from cannery.cli import backup_restore

    backup_restore.add_to(backup)
    app.add_typer(backup)


@backup.command(
    epilog="Examples: cannery backup create /srv/backups; cannery backup create s3://b/node --fleet users"
)
def create(
    place: PlaceArgument,
    data: Annotated[
        Path, typer.Option("--data", metavar="DIR", envvar="CANNERY_DATA", help="The node's data directory.")
    ] = Path(DEFAULT_DATA),
    fleet: Annotated[
        str | None,
        typer.Option("--fleet", metavar="INDEX", help="Only this fleet: its index, by id or name."),
    ] = None,
    canister: Annotated[
        list[str] | None,
        typer.Option("--canister", metavar="ID", help="Only this canister, by id or name; may be repeated."),
    ] = None,
    without_keys: Annotated[
        bool, typer.Option("--without-keys", help="Leave the node's secret keys out.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Back up a node, or a part of it; whether it runs or not."""
    from cannery.cli.problem import Problem
    from cannery.node.backup.create import Order, create_backup
    from cannery.node.backup.shelf import open_shelf

    if fleet is not None and canister:
        raise Problem("say --fleet or --canister, not both")
    order = Order(data, fleet, tuple(canister or ()), not without_keys)
    with progress("backing up") as line:
        made = create_backup(open_shelf(place), order, holder(), line.say)
    head = made.head
    if head.has_keys:
        note(_KEYS_NOTE)
    emit(
        {**head_json(head), "written_bytes": made.written_bytes, "was_running": made.was_running},
        as_json,
        [
            f"backup {head.number}: {describe_scope(head)} at block {head.block.number:,}, "
            f"{counted(head.canister_count, 'canister')}, {format_size(head.size_bytes)}; "
            f"{made.changed_count:,} of {made.unit_count:,} units changed, "
            f"{format_size(made.written_bytes)} written"
        ],
    )


@backup.command(name="list", epilog="Example: cannery backup list /srv/backups")
def list_backups(place: PlaceArgument, as_json: JsonOption = False) -> None:
    """List the backups, and the points in time that they reach."""
    from cannery.node.backup.format.time_plan import plan_spans
    from cannery.node.backup.repository import open_repository
    from cannery.node.backup.shelf import open_shelf

    with progress("reading"):
        heads = [found.head for found in open_repository(open_shelf(place)).backups()]
    spans = plan_spans(heads)
    rows = [
        (
            str(head.number),
            format_time(head.made_ns),
            describe_scope(head),
            f"block {head.block.number:,}",
            counted(head.canister_count, "canister"),
            format_size(head.size_bytes),
            f"{format_size(head.written_bytes)} new",
            "with keys" if head.has_keys else "",
        )
        for head in heads
    ]
    reaches = [
        f"points in time: block {span.first.block.number:,} ({format_time(span.first.block.time_ns)}) to "
        f"block {span.last.block.number:,} ({format_time(span.last.block.time_ns)})"
        for span in spans
    ]
    shown = {
        "backups": [head_json(head) for head in heads],
        "points_in_time": [
            {
                "first_block": span.first.block.number,
                "first_ns": span.first.block.time_ns,
                "last_block": span.last.block.number,
                "last_ns": span.last.block.time_ns,
            }
            for span in spans
        ],
    }
    emit(shown, as_json, [*columns(rows), *reaches] or ["there are no backups here yet"])


@backup.command(
    epilog="Examples: cannery backup verify /srv/backups; cannery backup verify s3://b/node --drill"
)
def verify(
    place: PlaceArgument,
    drill: Annotated[
        bool,
        typer.Option(
            "--drill",
            help="Also restore a node's backup into a temporary directory and compare states and roots.",
        ),
    ] = False,
    number: BackupOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read everything and check every hash; with --drill, restore as well. Exit code 1: all is not well."""
    from cannery.node.backup import verify as checks
    from cannery.node.backup.shelf import open_shelf

    shelf = open_shelf(place)
    with progress("checking") as line:
        checked = checks.verify_repository(shelf, line.say)
        drilled = checks.drill(shelf, number, line.say) if drill and not checked.problems else None
    shown = {
        "backups": len(checked.backups),
        "packs": checked.pack_count,
        "chunks": checked.chunk_count,
        "stored_bytes": checked.stored_bytes,
        "problems": list(checked.problems),
        "drill": None if drilled is None else _drill_json(drilled),
    }
    emit(shown, as_json, [*_check_lines(checked), *([] if drilled is None else _drill_lines(drilled))])
    if checked.problems:
        raise typer.Exit(1)


def _check_lines(checked: Checked) -> list[str]:
    if checked.problems:
        return [f"wrong: {problem}" for problem in checked.problems]
    return [
        f"{counted(len(checked.backups), 'backup')}, {counted(checked.pack_count, 'pack')}, "
        f"{counted(checked.chunk_count, 'chunk')}, "
        f"{format_size(checked.stored_bytes)}: every hash is right"
    ]


def _drill_lines(drilled: Drilled) -> list[str]:
    head = drilled.head
    lines = [
        f"drill: backup {head.number} restored to block {head.block.number:,}: the state's hash is "
        f"{head.state_hash.hex()}, as it was"
    ]
    if drilled.replayed is not None:
        lines.append(
            f"drill: {counted(drilled.replayed.replayed_count, 'block')} replayed from backup "
            f"{drilled.replayed_from}: the root of the round is {head.block.root.hex()}, as it was"
        )
    return lines


def _drill_json(drilled: Drilled) -> dict[str, object]:
    return {
        "backup": drilled.head.number,
        "block": drilled.head.block.number,
        "state_hash": drilled.head.state_hash.hex(),
        "round_root": drilled.head.block.root.hex(),
        "replayed_from": drilled.replayed_from,
        "replayed_blocks": 0 if drilled.replayed is None else drilled.replayed.replayed_count,
    }


@backup.command(
    epilog="Example: cannery backup prune /srv/backups --keep-last 3 --keep-daily 7 --keep-weekly 8"
)
def prune(
    place: PlaceArgument,
    keep_last: Annotated[
        int, typer.Option("--keep-last", metavar="N", min=0, help="Keep the last N of each series.")
    ] = 0,
    keep_daily: Annotated[
        int, typer.Option("--keep-daily", metavar="N", min=0, help="Keep one a day for N days that have one.")
    ] = 0,
    keep_weekly: Annotated[
        int,
        typer.Option("--keep-weekly", metavar="N", min=0, help="Keep one a week for N weeks that have one."),
    ] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let old backups go, with what only they needed."""
    from cannery.node.backup.format.prune_plan import KeepRule
    from cannery.node.backup.prune import prune_repository
    from cannery.node.backup.shelf import open_shelf

    rule = KeepRule(keep_last, keep_daily, keep_weekly)
    with progress("pruning") as line:
        done = prune_repository(open_shelf(place), rule, holder(), line.say, dry_run=dry_run)
    would = "would be " if dry_run else ""
    freed = "" if dry_run else f"; {format_size(max(0, done.bytes_before - done.bytes_after))} freed"
    emit(
        {
            "kept": done.kept,
            "dropped": done.dropped,
            "deleted_packs": done.deleted_pack_count,
            "rewritten_packs": done.rewritten_pack_count,
            "bytes_before": done.bytes_before,
            "bytes_after": done.bytes_after,
        },
        as_json,
        [
            f"{counted(len(done.dropped), 'backup')} {would}dropped, {len(done.kept):,} kept; "
            f"{counted(done.deleted_pack_count, 'pack')} {would}deleted, "
            f"{done.rewritten_pack_count:,} {would}written anew{freed}"
        ],
    )


# --- shown -------------------------------------------------------------------------------------------------


def counted(count: int, what: str) -> str:
    """Write a number of things."""
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def holder() -> str:
    """Name this process for whoever finds the repository locked."""
    import os
    import socket

    return f"process {os.getpid()} on {socket.gethostname()}"


def describe_scope(head: BackupHead) -> str:
    """Say what a backup is of."""
    from cannery.node.backup.format.manifest import CanisterScope, FleetScope
    from cannery.replica.view import show

    if isinstance(head.scope, FleetScope):
        return f"fleet {show(head.scope.fleet)}"
    if isinstance(head.scope, CanisterScope):
        ids = head.scope.canisters
        return f"canister {show(ids[0])}" if len(ids) == 1 else f"{len(ids)} canisters"
    return "node"


def head_json(head: BackupHead) -> dict[str, object]:
    """Give what programs want to know of a backup."""
    return {
        "backup": head.number,
        "made_ns": head.made_ns,
        "scope": describe_scope(head),
        "block": head.block.number,
        "block_time_ns": head.block.time_ns,
        "state_hash": head.state_hash.hex(),
        "round_root": head.block.root.hex(),
        "canisters": head.canister_count,
        "size_bytes": head.size_bytes,
        "has_keys": head.has_keys,
        "follows": list(head.follows),
    }
