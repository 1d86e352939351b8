"""`cannery fleet funding`, `birth`, `rule`, `quota`, `top-up`: the cycles of a fleet."""

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

Cycles = int | None
KindOption = Annotated[
    str | None, typer.Option("--kind", metavar="KIND", help="For each child of this kind.")
]
ChildOption = Annotated[
    str | None, typer.Option("--child", metavar="CANISTER", help="For this child; a canister id or name.")
]
RemoveOption = Annotated[bool, typer.Option("--remove", help="Take it away.")]


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.command(epilog="Examples: cannery fleet funding; cannery fleet funding --alarm 5000000000")(funding)
    fleet.command(epilog="Examples: cannery fleet birth; cannery fleet birth user 1000000000000")(birth)
    fleet.command(
        epilog="Examples: cannery fleet rule user --below-days 7 --to 3000000000; "
        "cannery fleet rule user --below 1000000 --add 500000"
    )(rule)
    fleet.command(
        epilog="Examples: cannery fleet quota --rate 9000000000 --per 86400; "
        "cannery fleet quota --kind user --max 5000000000"
    )(quota)
    fleet.command(
        name="top-up", epilog="Example: cannery fleet top-up 5s2ji-faaaa-aaaaa-qaaaq-cai 1000000000"
    )(top_up)


def funding(
    reserve: Annotated[
        Cycles, typer.Option("--reserve", metavar="CYCLES", min=0, help="What the index keeps for itself.")
    ] = None,
    least: Annotated[
        Cycles, typer.Option("--least", metavar="CYCLES", min=0, help="Send no less than this at a time.")
    ] = None,
    alarm: Annotated[
        Cycles,
        typer.Option("--alarm", metavar="CYCLES", min=0, help="Raise battery_low when the index has less."),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show battery, rules, quotas and what was given; the options change what holds for all."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_money import change_policy, funding_lines, read_burn

    with open_fleet(node, identity, index, "asking for the funding") as opened:
        change_policy(opened.index, reserve, least, alarm)
        found, burned = opened.index.funding(), read_burn(opened.index)
    emit(found, as_json, funding_lines(found, burned))


def birth(
    kind: Annotated[str | None, typer.Argument(metavar="[KIND]", help="Which children.")] = None,
    cycles: Annotated[
        Cycles, typer.Argument(metavar="[CYCLES]", min=0, help="What each new one gets; 0: nothing.")
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Set what new children of a kind are born with, out of the battery: creation fee and first balance."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.problem import Problem

    if (kind is None) != (cycles is None):
        raise Problem("name a kind and its cycles, or neither to see what is set", exit_code=2)
    with open_fleet(node, identity, index, "asking what children are born with") as opened:
        if kind is not None and cycles is not None:
            opened.index.birth_set(kind, cycles)
            _note_unknown(opened, kind)
        found = opened.index.births()
    lines = [f"each new {name} is born with {amount:,} cycles" for name, amount in found]
    emit(dict(found), as_json, lines or ["new children are born with nothing"])


def rule(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="Which children.")],
    below: Annotated[
        Cycles, typer.Option("--below", metavar="CYCLES", min=1, help="Top up a child that has less.")
    ] = None,
    below_days: Annotated[
        int | None,
        typer.Option("--below-days", metavar="DAYS", min=1, help="Or one that lasts less, at its burn."),
    ] = None,
    to: Annotated[
        Cycles, typer.Option("--to", metavar="CYCLES", min=1, help="Top up to this balance.")
    ] = None,
    add: Annotated[Cycles, typer.Option("--add", metavar="CYCLES", min=1, help="Or by this amount.")] = None,
    remove: RemoveOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Set when and how far children of a kind are topped up; every child is looked at then."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_money import kind_line, read_kind, read_rule, require_taken

    wanted = read_rule(below, below_days, to, add, remove=remove)
    with open_fleet(node, identity, index, "setting the rule") as opened:
        require_taken(opened.index.rule_set(kind, wanted))
        _note_unknown(opened, None if remove else kind)
        found = read_kind(opened.index, kind)
    emit(found, as_json, [kind_line(found)])


def quota(
    kind: KindOption = None,
    child: ChildOption = None,
    fixed: Annotated[
        Cycles, typer.Option("--fixed", metavar="CYCLES", min=0, help="So much at a time.")
    ] = None,
    most: Annotated[Cycles, typer.Option("--max", metavar="CYCLES", min=0, help="So much in all.")] = None,
    rate: Annotated[
        Cycles, typer.Option("--rate", metavar="CYCLES", min=0, help="So much in any stretch of --per.")
    ] = None,
    per: Annotated[
        int | None, typer.Option("--per", metavar="SECONDS", min=1, help="The stretch of --rate.")
    ] = None,
    remove: RemoveOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Set what may be given: to the fleet in all, to each child of a kind, or to one child."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_money import quota_lines, read_bounds, read_quota, read_scope, require_taken

    wanted = read_quota(fixed, most, rate, per, remove=remove)
    with open_fleet(node, identity, index, "setting the quota") as opened:
        scope = read_scope(opened, kind, child)
        require_taken(opened.index.quota_set(scope, wanted))
        _note_unknown(opened, None if remove else kind)
        found = read_bounds(opened.index, scope)
    emit(found, as_json, quota_lines(found))


def top_up(
    canister: Annotated[str, typer.Argument(metavar="CANISTER", help="A child: canister id or name.")],
    cycles: Annotated[
        Cycles,
        typer.Argument(
            metavar="CYCLES", min=1, help="How many; without it what the kind's rule refills now."
        ),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Top a child up out of the index's battery, as far as the quotas allow."""
    from cannery.cli.fleet_child import find_child
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_money import given

    with open_fleet(node, identity, index, "topping up") as opened:
        child = find_child(opened, canister, None, None)
        arrived = given(opened.index.top_up(child.canister, cycles))
    emit(
        {"canister_id": child.canister, "cycles": arrived},
        as_json,
        [f"{child.canister} got {arrived:,}{_less(arrived, cycles)} cycles"],
    )


def _less(arrived: int, asked: int | None) -> str:
    """Say that a quota or the battery allowed less than was asked."""
    return "" if asked is None or arrived >= asked else f" of the {asked:,}"


def _note_unknown(opened: FleetSession, kind: str | None) -> None:
    """Tell whoever names a kind that has no release: it may be a slip."""
    if kind is not None and not opened.index.releases(kind):
        note(f"there is no release of {kind!r} yet; see: cannery fleet release list")
