"""What the commands of zones take: arguments and options, read once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

if TYPE_CHECKING:
    from cannery.protocol.principal import Principal

ZoneArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="ZONE", help="The name that it was made with, or a canister id.")
]
TopicsOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--topic",
        metavar="TOPIC",
        help="Only this topic; may be repeated. A name, or a key in hex (82 digits).",
    ),
]
_KEY_DIGITS = 82


def read_topic(text: str) -> str | bytes:
    """Read a topic: a key of 41 bytes in hex, else a name."""
    if len(text) == _KEY_DIGITS:
        try:
            return bytes.fromhex(text)
        except ValueError:
            return text
    return text


def read_topics(texts: list[str] | None) -> list[str | bytes] | None:
    """Read topics; None where none is named."""
    return [read_topic(text) for text in texts] if texts else None


def checked_role(text: str) -> str:
    """Give a role's name. Raises `Problem`."""
    from cannery.cli.problem import Problem
    from cannery.client.zone_values import ROLES

    if text not in ROLES:
        raise Problem(f"{text!r} is no role: say one of {', '.join(ROLES)}")
    return text


def read_change(text: str) -> tuple[Principal, str]:
    """Read `WHO=ROLE`."""
    from cannery.cli.problem import Problem
    from cannery.cli.session import read_principal

    who, sign, role = text.rpartition("=")
    if not sign:
        raise Problem(f"{text!r} says no role: write WHO=ROLE, as in bob=admin")
    return read_principal(who), checked_role(role)
