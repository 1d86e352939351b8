"""What a zone says and keeps of its members, of invitations, and of questions to a role provider."""

from __future__ import annotations

from cannery import Principal, nat32, nat64, record

from .roles import Member, Role


@record
class Invitation:
    """An invitation as admins see it; `id` is the SHA-256 of its code, which only the invited know."""

    id: bytes
    role: Role
    uses_left: nat32
    expires_ns: nat64
    by: Principal


@record
class MemberEntry:
    """A member in a list; `unread_from` is the first id that they have not acknowledged."""

    principal: Principal
    member: Member
    unread_from: nat64 | None


@record
class MemberPage:
    """Members in the order of their principals; `next` goes into `after` for the page that follows."""

    members: list[MemberEntry]
    next: Principal | None


@record
class AskCount:
    """How many questions went to the provider in a minute, which is counted since 1970."""

    minute: nat64
    count: nat32


@record
class Asked:
    """A question under way: whom it is about, and the number of the provider asked (0 unless said)."""

    about: Principal
    provider: nat64 | None = None


@record
class AskedContract:
    """A question to a contract under way: whom it is about, their address on its chain, and the number of the
    provider (0 unless said).
    """

    about: Principal
    address: bytes
    provider: nat64 | None = None
