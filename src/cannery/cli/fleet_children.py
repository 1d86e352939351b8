"""`cannery fleet list`, `show`, `pool`, `recycle`, `delete`, `replace`, `adopt`, `logs`: the children of an
index.
"""

from __future__ import annotations

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
from cannery.cli.output import emit, note

if TYPE_CHECKING:
    from cannery.cli.fleet_index import FleetSession

CanisterArgument = Annotated[
    str, typer.Argument(metavar="CANISTER", help="Canister id, or a name that the node knows.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Do it: what the canister holds is gone for good.")]


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.command(
        name="list",
        epilog="Examples: cannery fleet list --kind user --version 1; cannery fleet list --active-since 7d",
    )(list_children)
    fleet.command(
        epilog="Examples: cannery fleet show 5s2ji-faaaa-aaaaa-qaaaq-cai; "
        "cannery fleet show --kind user --owner ann"
    )(show)
    fleet.command(epilog="Examples: cannery fleet pool; cannery fleet pool --target 20 --cycles 1000000")(
        pool
    )
    fleet.command(epilog="Example: cannery fleet recycle 5s2ji-faaaa-aaaaa-qaaaq-cai --yes")(recycle)
    fleet.command(epilog="Example: cannery fleet delete 5s2ji-faaaa-aaaaa-qaaaq-cai --yes")(delete)
    fleet.command(epilog="Example: cannery fleet replace 5s2ji-faaaa-aaaaa-qaaaq-cai")(replace)
    fleet.command(epilog="Example: cannery fleet adopt 5s2ji-faaaa-aaaaa-qaaaq-cai --owner ann")(adopt)
    fleet.command(
        epilog="Examples: cannery fleet logs 5s2ji-faaaa-aaaaa-qaaaq-cai --since 10m; "
        "cannery fleet logs user_index --follow"
    )(logs)


def list_children(
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only children of this kind.")
    ] = None,
    version: Annotated[
        int | None, typer.Option("--version", metavar="N", min=0, help="Only those on this version.")
    ] = None,
    state: Annotated[
        str | None,
        typer.Option("--state", metavar="STATE", help="active, leaving, in_custody or replaced."),
    ] = None,
    created_since: Annotated[
        str | None,
        typer.Option(
            "--created-since", metavar="WHEN", help="Made since 90s, 10m, 2h, 3d ago or a UTC time."
        ),
    ] = None,
    active_since: Annotated[
        str | None,
        typer.Option("--active-since", metavar="WHEN", help="Active since then, as of the last census."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 100,
    after: Annotated[
        int | None, typer.Option("--after", metavar="N", min=0, help="Go on behind child number N.")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List children in the order of their creation, all or those that fit."""
    from cannery.cli.fleet_child import child_filter, child_rows
    from cannery.cli.fleet_index import open_fleet

    wanted = child_filter(kind, version, state, created_since, active_since)
    found, go_on = [], after
    with open_fleet(node, identity, index, "listing children") as opened:
        for page in opened.index.pages(wanted, after, limit):
            found += page.items
            go_on = page.next
            opened.session.line.say(f"{len(found):,} found")
    emit({"children": found, "next": go_on}, as_json, child_rows(found) if found else ["no such child"])
    if go_on is not None and not as_json:
        note(f"later children: --after {go_on}")


def show(
    canister: Annotated[
        str | None, typer.Argument(metavar="CANISTER", help="Canister id, or a name that the node knows.")
    ] = None,
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="With --owner: the child of this kind.")
    ] = None,
    owner: Annotated[
        str | None,
        typer.Option("--owner", metavar="WHO", help="Whose child: a principal, or one of your identities."),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show one child: owner, version, state, and what it has and did."""
    from cannery.cli.fleet_child import find_child, read_child
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "asking for the child") as opened:
        found = read_child(opened, find_child(opened, canister, kind, owner))
    emit(found, as_json, found.lines())


def pool(
    target: Annotated[
        int | None, typer.Option("--target", metavar="N", min=0, help="Keep so many canisters ready.")
    ] = None,
    cycles: Annotated[
        int | None, typer.Option("--cycles", metavar="N", min=0, help="Cycles for each prepared canister.")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show the pool of prepared canisters, changed as the options say."""
    from cannery.cli.fleet_child import wait_for_pool
    from cannery.cli.fleet_index import open_fleet
    from cannery.fleet.directory_types import PoolRule

    with open_fleet(node, identity, index, "asking for the pool") as opened:
        rule = opened.index.pool_rule()
        if target is not None or cycles is not None:
            rule = PoolRule(
                rule.target if target is None else target, rule.cycles if cycles is None else cycles
            )
            opened.index.pool_set(rule)
        ready = wait_for_pool(opened, rule)
    emit(
        {"ready": ready, "target": rule.target, "cycles": rule.cycles},
        as_json,
        [f"{ready} of {rule.target} ready, with {rule.cycles:,} cycles each"],
    )


def recycle(
    canister: CanisterArgument,
    yes: YesOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Empty a child and put its canister into the pool; its owner may have another child at once."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "emptying the child") as opened:
        _end(opened, canister, "recycled", yes=yes, as_json=as_json)


def delete(
    canister: CanisterArgument,
    yes: YesOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Delete a child with all it holds; its cycles come back to the index."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "deleting the child") as opened:
        _end(opened, canister, "deleted", yes=yes, as_json=as_json)


def replace(
    canister: CanisterArgument,
    version: Annotated[
        int | None,
        typer.Option("--version", metavar="N", min=1, help="To this release; without it the current one."),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Move a child with all it holds to a new canister; the old id names the new one to whoever calls it."""
    from cannery.cli.fleet_child import find_child
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.problem import Problem

    with open_fleet(node, identity, index, "replacing the child") as opened:
        child = find_child(opened, canister, None, None)
        result = opened.index.replace(child.canister, version)
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)
    successor = result.ok.canister
    emit(
        {"canister_id": child.canister, "replaced_by": successor},
        as_json,
        [f"{child.canister} was replaced by {successor}"],
    )


def adopt(
    canister: CanisterArgument,
    owner: Annotated[
        str,
        typer.Option("--owner", metavar="WHO", help="Whose it is: a principal, or one of your identities."),
    ],
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List a canister of the fleet that its index has lost sight of as the child of its owner."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.problem import Problem
    from cannery.cli.session import read_principal

    with open_fleet(node, identity, index, "listing the canister") as opened:
        result = opened.index.adopt(opened.session.canister(canister), read_principal(owner))
    if result.tag != "ok":
        raise Problem(result.err, exit_code=1)
    child = result.ok
    emit(child, as_json, [f"{child.canister} is listed as the {child.kind} of {child.owner}"])


def _end(opened: FleetSession, canister: str, done: str, *, yes: bool, as_json: bool) -> None:
    """Send a child on its way out and wait for a while until it is gone."""
    from cannery.cli.fleet_child import end_child, find_child

    child = find_child(opened, canister, None, None)
    is_gone = end_child(opened, child, recycle=done == "recycled", is_sure=yes)
    word = done if is_gone else "leaving"
    tail = "" if is_gone else f" still; see: cannery fleet show {child.canister}"
    emit({"canister_id": child.canister, "status": word}, as_json, [f"{child.canister} {word}{tail}"])


def logs(
    canister: CanisterArgument,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="No older lines: 90s, 10m, 2h, 3d ago, or a UTC time."),
    ] = None,
    traps: Annotated[
        bool, typer.Option("--traps", help="Only the failures: messages that trapped or were stopped.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new lines until Ctrl-C; --json: one document a line.")
    ] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print the log of a child, or of the index itself, with its traps, oldest first."""
    import time

    from cannery.cli.canister_watch import print_log
    from cannery.cli.fleet_child import find_child
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.log_lines import Wanted, read_since

    since_ns = 0 if since is None else read_since(since, time.time_ns())
    with open_fleet(node, identity, index, "reading the log") as opened:
        target = opened.session.canister(canister)
        if target != opened.index.id:
            target = find_child(opened, canister, None, None).canister
        print_log(opened.session, target, Wanted(since_ns, 0, traps), follow=follow, as_json=as_json)
