"""Who may do what in a zone, and the numbers that Diode gives to roles.

Diode's numbers (its contracts' RoleType): none 0, backup bot 100, reader 200, member 300, admin 400, owner
500. A zone knows moderators beside them, 350. A number in between counts as the role below it; whoever has
one above 0 reads.
"""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat64, record, variant

NONE = 0
READER = 200
MEMBER = 300
MODERATOR = 350
ADMIN = 400
OWNER = 500
LOWEST = 1

_NUMBERS = (
    ("reader", READER),
    ("member", MEMBER),
    ("moderator", MODERATOR),
    ("admin", ADMIN),
    ("owner", OWNER),
)


@variant
class Role(Variant):
    """What a member of a zone may do: each role may do what those before it may.

    Readers read and acknowledge; members post, and write attachments and files; moderators erase messages;
    admins invite, set metadata and limits, and change members below them; owners change everybody and the
    role provider.
    """

    reader: Case[None]
    member: Case[None]
    moderator: Case[None]
    admin: Case[None]
    owner: Case[None]


@record
class Member:
    """A member that the zone itself keeps."""

    role: Role
    since_ns: nat64
    by: Principal


def number_of(role: Role) -> int:
    """Return a role's number."""
    return dict(_NUMBERS)[role.tag]


def role_of_number(number: int) -> Role:
    """Return the role of a number above 0."""
    cases = (Role.reader, Role.member, Role.moderator, Role.admin, Role.owner)
    place = sum(1 for _, least in _NUMBERS if number >= least)
    return cases[max(0, place - 1)]()


def name_of(least: int) -> str:
    """Name the role that a number stands for, for texts."""
    return role_of_number(least).tag if least > LOWEST else "member of any role"
