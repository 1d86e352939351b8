"""`cannery zone usage` and `retention`: what a zone holds, and how much it keeps."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit
from cannery.cli.zone_options import ZoneArgument

if TYPE_CHECKING:
    from cannery.cli.output import Progress
    from cannery.client.zone import Zone
    from cannery.client.zone_values import Limits, Retention, Usage

DAY_NS = 86_400 * 10**9
DAYS_MIN = 0.001
MOST = 2**63 - 1


class Kind(StrEnum):
    """What a zone keeps."""

    MESSAGES = "messages"
    ATTACHMENTS = "attachments"
    FILES = "files"


class WhenFull(StrEnum):
    """What a full zone does."""

    PRUNE_OLDEST = "prune_oldest"
    PRUNE_ACKNOWLEDGED = "prune_acknowledged"
    REFUSE = "refuse"


def add_to(group: typer.Typer) -> None:
    """Hang these commands into `cannery zone`."""
    group.command(epilog="Example: cannery zone usage team")(usage)
    group.command(
        epilog="Examples: cannery zone retention team; "
        "cannery zone retention team messages --count 100000 --days 30"
    )(retention)


def usage(
    zone: ZoneArgument,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show what the zone holds: how many, how large, which ids."""
    from cannery.cli.zone_lines import usage_lines
    from cannery.cli.zone_session import run_zone

    async def act(zone: Zone, line: Progress) -> Usage:  # noqa: ARG001
        return await zone.usage()

    found = run_zone(node, identity, zone, "asking", act)
    emit(found, as_json, usage_lines(found))


def retention(
    zone: ZoneArgument,
    kind: Annotated[
        Kind | None, typer.Argument(metavar="KIND", help="Change messages, attachments or files.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", metavar="N", min=1, max=MOST, help="At most so many.")
    ] = None,
    size: Annotated[
        int | None,
        typer.Option("--bytes", metavar="N", min=1_000, max=MOST, help="At most so many bytes in all."),
    ] = None,
    days: Annotated[
        float | None,
        typer.Option("--days", metavar="N", min=0, max=36_500, help="None older; 0 for any age."),
    ] = None,
    when_full: Annotated[
        WhenFull | None,
        typer.Option(
            "--when-full",
            metavar="RULE",
            help="prune_oldest, refuse, or (messages) prune_acknowledged.",
        ),
    ] = None,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show how much the zone keeps of each kind, after changing one."""
    from cannery.cli.problem import Problem
    from cannery.cli.zone_lines import retention_lines
    from cannery.cli.zone_session import run_zone

    changes: dict[str, object] = {"count_max": count, "bytes_max": size}
    changes["when_full"] = None if when_full is None else when_full.value
    wanted = {name: value for name, value in changes.items() if value is not None}
    if days is not None and 0 < days < DAYS_MIN:
        raise Problem(f"--days {days:g}: {DAYS_MIN:g} (a minute and a half) is the least, or 0 for any age")
    if days is not None:
        wanted["age_ns_max"] = int(days * DAY_NS) or None
    if wanted and kind is None:
        raise Problem("say what to change: messages, attachments or files")

    async def act(zone: Zone, line: Progress) -> Retention:  # noqa: ARG001
        rules = await zone.retention()
        if kind is None or not wanted:
            return rules
        before: Limits = getattr(rules, kind.value)
        changed = replace(before, **wanted)  # type: ignore[arg-type]  # fields of Limits, by name
        await zone.set_retention(replace(rules, **{kind.value: changed}))
        return await zone.retention()

    found = run_zone(node, identity, zone, "asking", act)
    emit(found, as_json, retention_lines(found))
