"""`cannery zone`: zones from the command line. Making and joining them, members, figures and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli import zone_files, zone_limits, zone_messages
from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit, note
from cannery.cli.zone_options import ZoneArgument

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from cannery.cli.output import Progress
    from cannery.client.agent import AsyncAgent
    from cannery.client.zone import Zone
    from cannery.client.zone_values import MemberInfo
    from cannery.protocol.principal import Principal

group = typer.Typer(
    name="zone",
    short_help="Zones: messages and files for peers who are away.",
    help="Zones: a group's messages and files, kept for members who are away. "
    "ZONE is the name that a zone was made with, or a canister id.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.add_typer(group)
    zone_messages.add_to(group)
    zone_files.add_to(group)
    zone_limits.add_to(group)


@group.command(epilog="Example: cannery zone create team --identity ann")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The zone's id, free to whoever asks first.")],
    encrypted: Annotated[
        bool, typer.Option("--encrypted", help="Its members alone can read it, and not the node.")
    ] = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Make a zone that you own, and print its canister id; one that you made before stays as it is."""
    from cannery.cli.problem import Problem
    from cannery.cli.session import open_session, user_identity
    from cannery.cli.zone_create import EXIT_FAILED, create_zone
    from cannery.cli.zone_session import run_zone

    with open_session(node, user_identity(identity), f"making the zone {name}") as session:
        made = create_zone(session, name)

    async def act(zone: Zone, line: Progress) -> None:  # noqa: ARG001
        if zone.is_encrypted:
            return
        # A command that broke off before may have left it without a key.
        if (await zone.usage()).has_been_used:
            raise Problem(
                f"the zone {name} is not encrypted, and holds what was written in the clear: make another",
                EXIT_FAILED,
            )
        await zone.encrypt()

    if encrypted:
        run_zone(node, identity, str(made.canister_id), "making its key", act)
    emit(made, as_json, [str(made.canister_id)])
    if made.was_there:
        note("you had made it before; it is as it was")


@group.command(
    epilog="Examples: cannery zone invite team --uses 5 --days 2 --identity ann; "
    "cannery zone invite team --revoke --identity ann"
)
def invite(
    zone: ZoneArgument,
    role: Annotated[
        str, typer.Option("--role", metavar="ROLE", help="reader, member, moderator or admin.")
    ] = "member",
    uses: Annotated[
        int, typer.Option("--uses", metavar="N", min=1, max=10_000, help="How many may join by it.")
    ] = 1,
    days: Annotated[
        float, typer.Option("--days", metavar="N", min=0.001, max=365, help="How long it is good for.")
    ] = 7.0,
    without_past: Annotated[
        bool,
        typer.Option("--without-past", help="Of an encrypted zone: they cannot read what was before."),
    ] = False,
    revoke: Annotated[
        bool, typer.Option("--revoke", help="Make none; end all that are open instead.")
    ] = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print an invitation; whoever has it can join, so send it where nobody else reads."""
    from cannery.cli.zone_options import checked_role
    from cannery.cli.zone_session import run_zone

    wanted = checked_role(role)

    async def end(zone: Zone, line: Progress) -> int:  # noqa: ARG001
        return sum([await zone.revoke(each.id) for each in await zone.invitations()])

    if revoke:
        ended = run_zone(node, identity, zone, "ending invitations", end)
        emit({"revoked": ended}, as_json, [f"{ended} invitations ended"])
        return

    async def act(zone: Zone, line: Progress) -> str:  # noqa: ARG001
        return str(await zone.invite(wanted, uses, int(days * 86_400), with_past=not without_past))

    invitation = run_zone(node, identity, zone, "inviting", act)
    emit({"invitation": invitation, "role": wanted, "uses": uses}, as_json, [invitation])


@group.command(epilog="Example: cannery zone join team 4f0c... --identity bob")
def join(
    zone: ZoneArgument,
    invitation: Annotated[
        str, typer.Argument(metavar="INVITATION", help="What 'cannery zone invite' printed; '-' reads it.")
    ],
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Become a member by an invitation."""
    import sys

    from cannery.cli.zone_session import open_zone_session, read_invitation
    from cannery.client.zone import join_zone
    from cannery.client.zone_anchors import ZoneAnchors

    wanted = read_invitation(sys.stdin.read(4_096) if invitation == "-" else invitation)
    with open_zone_session(node, identity, zone, "joining") as session:

        async def act(zone: Zone, line: Progress) -> int:  # noqa: ARG001
            return await zone.role()

        def enter(agent: AsyncAgent, zone_id: Principal, line: Progress) -> Coroutine[None, None, Zone]:
            return join_zone(agent, zone_id, wanted, anchors=ZoneAnchors(), on_wait=line.say)

        role = session.run_with(enter, act)
        found = {"zone": session.zone_id, "role": role}
    emit(found, as_json, [f"joined {found['zone']}"])


@group.command(
    epilog="Examples: cannery zone members team; cannery zone members team --set bob=admin; "
    "cannery zone members team --remove bob"
)
def members(
    zone: ZoneArgument,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="WHO=ROLE", help="Make somebody a member, or change their role."),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option("--remove", metavar="WHO", help="Remove a member, or leave."),
    ] = None,
    grant: Annotated[
        list[str] | None,
        typer.Option("--grant", metavar="WHO", help="Give the key of an encrypted zone to who came without."),
    ] = None,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="Make a new key for an encrypted zone, for all who have it.")
    ] = False,
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the members with their roles and what they have yet to acknowledge, after changing some."""
    from cannery.cli.session import read_principal
    from cannery.cli.zone_lines import member_lines
    from cannery.cli.zone_options import read_change
    from cannery.cli.zone_session import open_zone_session

    changes = [read_change(text) for text in change or []]
    with open_zone_session(node, identity, zone, "reading the members") as session:
        leaving = [read_principal(text) for text in remove or []]
        getting = [read_principal(text) for text in grant or []]

        async def act(zone: Zone, line: Progress) -> tuple[list[MemberInfo], int]:  # noqa: ARG001
            for who, role in changes:
                await zone.set_member(who, role)
            for who in getting:
                await zone.grant(who)
            for who in leaving:
                if not await zone.remove_member(who):
                    note(f"{who} was no member of the zone's own list")
            if rotate:
                await zone.keys.rotate()
            if me in leaving:
                return [], 0
            return await zone.members(), len(await zone.invitations()) if leaving else 0

        me = session.session.agent.principal
        found, open_count = session.run(act)
    emit(found, as_json, member_lines(found, me))
    if open_count:
        note(
            f"{open_count} invitations are open, by which whoever has one can join again; end them: "
            "cannery zone invite ZONE --revoke"
        )
