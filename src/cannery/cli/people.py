"""`cannery register`, `send` and `inbox`: the users app from the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import DEFAULT_URL, IdentityOption, JsonOption, NodeOption
from cannery.cli.output import emit, note


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    app.command(
        short_help="Take a username and get a mailbox.", epilog="Example: cannery register ann --identity ann"
    )(register)
    app.command(
        short_help="Send a message.",
        epilog="Examples: cannery send bob 'see you at eight' --identity ann; "
        "date | cannery send bob - --identity ann",
    )(send)
    app.command(short_help="Read your mailbox.", epilog="Example: cannery inbox --identity bob --since 12")(
        inbox
    )


def register(
    username: Annotated[str, typer.Argument(metavar="USERNAME", help="3 to 20 letters, digits and _.")],
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a username and get a mailbox; asking again changes nothing."""
    from cannery.cli.mailbox import register_user
    from cannery.cli.session import open_session, user_identity

    with open_session(node, user_identity(identity), "registering") as session:
        profile = register_user(session, username)
    emit(profile, as_json, [f"registered as {profile.username}, mailbox {profile.canister}"])
    if profile.username.lower() != username.lower():
        note(f"you had registered before; {username!r} was not taken")


def send(
    username: Annotated[str, typer.Argument(metavar="USERNAME", help="Who gets it.")],
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What you write; '-' reads standard input.")],
    identity: IdentityOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Send a message; it is safe once this command returns, whether the receiver is there or not."""
    from cannery.cli.mailbox import read_body, send_text
    from cannery.cli.session import open_session, user_identity

    body = read_body(text)
    with open_session(node, user_identity(identity), "sending") as session:
        sent = send_text(session, username, body)
    emit(sent, as_json, [f"{sent.state.tag}: message {sent.message_id.hex()} to {sent.to_username}"])


def inbox(
    identity: IdentityOption = None,
    since: Annotated[
        int | None,
        typer.Option("--since", metavar="N", min=0, help="Begin with message N; without it the oldest."),
    ] = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Read your mailbox, oldest first: number, time, sender, text."""
    from cannery.cli.mailbox import message_lines, read_inbox
    from cannery.cli.session import open_session, user_identity

    with open_session(node, user_identity(identity), "reading the mailbox") as session:
        found = read_inbox(session, since)
    emit(found, as_json, message_lines(found))
    if found.messages and not as_json:
        note(f"later messages: cannery inbox --since {found.messages[-1].id + 1}")
