"""What users, their index and their clients say to each other. Times are nanoseconds since 1970."""

from __future__ import annotations

from cannery import Case, Principal, Variant, nat32, nat64, record, variant

USERNAME_LENGTH_MIN = 3
USERNAME_LENGTH_MAX = 20
TEXT_LENGTH_MAX = 10_000
OPAQUE_SIZE_BYTES_MAX = 64 * 1024
MESSAGE_ID_SIZE_BYTES_MAX = 32
PAGE_COUNT_MAX = 500
PAGE_SIZE_BYTES_MAX = 1_000_000
SELF_CUSTODY_ROLE = "self_custody"


@record
class Profile:
    """A registered user: who owns which canister under which name."""

    owner: Principal
    canister: Principal
    username: str
    registered_ns: nat64
    self_custody: bool


@record
class IndexSettings:
    """What the operator decides for all users."""

    registrations_per_minute: nat32


@variant
class RegisterResult(Variant):
    """The answer to a registration; `ok` again for whoever is registered already."""

    ok: Case[Profile]
    username_taken: Case[str]
    username_invalid: Case[str]
    in_progress: Case[str]
    rate_limited: Case[str]
    failed: Case[str]


@variant
class Who(Variant):
    """A user by name, by their own principal, or by their canister's."""

    username: Case[str]
    owner: Case[Principal]
    canister: Case[Principal]


@record
class ProfilePage:
    """Users in the order of their names; `next` is given as `after` for the page that follows."""

    profiles: list[Profile]
    next: str | None


@record
class UserInit:
    """What an index tells a new user canister."""

    owner: Principal
    index: Principal
    username: str


@variant
class Body(Variant):
    """A message's body: text, or bytes that the clients encrypted."""

    text: Case[str]
    opaque: Case[bytes]


@record
class Envelope:
    """A message on its way between two user canisters.

    A canister's id may have another owner later, so it names whom it is from and to; None: sent by an older
    version.
    """

    message_id: bytes
    sent_ns: nat64
    body: Body
    sender: Principal | None = None
    to: Principal | None = None


@variant
class Receipt(Variant):
    """What became of one message at the receiver's mailbox."""

    stored: Case[nat64]
    blocked: Case[str]
    full: Case[str]
    refused: Case[str]


@record
class Message:
    """A message in a mailbox; `id` is dense and rises with arrival."""

    id: nat64
    sender: Principal
    sender_username: str
    message_id: bytes
    sent_ns: nat64
    received_ns: nat64
    body: Body


@record
class Gap:
    """Messages that are no longer there: from `start` up to, not including, `end`."""

    start: nat64
    end: nat64


@record
class InboxPage:
    """A part of a mailbox: messages in order, and the gaps between them.

    `next` is the cursor for the part that follows, None where this is all. Ids below `acknowledged` were
    acknowledged.
    """

    messages: list[Message]
    gaps: list[Gap]
    next: nat64 | None
    acknowledged: nat64
    newest: nat64 | None


@variant
class DeliveryState(Variant):
    """Where a message that one sent stands."""

    stored: Case[None]
    delivered: Case[nat64]
    refused: Case[str]


@record
class Sent:
    """A message that one sent, and where it stands."""

    message_id: bytes
    to: Principal
    to_username: str
    sent_ns: nat64
    state: DeliveryState


@record
class SentPage:
    """What one sent, newest first; `next` is the cursor for what follows, None where this is all."""

    messages: list[Sent]
    next: nat64 | None


@variant
class SendResult(Variant):
    """The answer to a send: `ok` where the message is safe, the rest where delivery is impossible."""

    ok: Case[Sent]
    unknown_user: Case[str]
    invalid: Case[str]
    full: Case[str]
    blocked: Case[str]
    refused: Case[str]


@record
class Usage:
    """What a mailbox holds."""

    count: nat64
    size_bytes: nat64
    first: nat64
    next: nat64
    acknowledged: nat64
    waiting: nat64
