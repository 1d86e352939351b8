"""Keys of an encrypted zone, as its members exchange them: records, cards and boxes (docs/zones.md).

The zone gives out versions in order and sees to who may write what; what the bytes say, and whether it is
true, only clients can tell: records are signed by admins and chained by hash, cards are signed by their
members, boxes are sealed.
"""

from __future__ import annotations

from cannery import Context, Principal, nat32, query, record, update
from cannery.cdk.component import Component, Uses

from . import bounds
from .key_shelf import KeyShelf
from .members import Members
from .refusal import refuse
from .roles import ADMIN


@record
class KeyBox:
    """A zone key, sealed for one member."""

    member: Principal
    box: bytes


@record
class OwnBox:
    """A zone key of a version, sealed for the caller."""

    version: nat32
    box: bytes


@record
class OwnKeys:
    """What the zone keeps for the caller."""

    card: bytes | None
    boxes: list[OwnBox]


@record
class KeyRecords:
    """Records of zone keys in the order of their versions; `newest` is the last version there is."""

    records: list[bytes]
    newest: nat32


@record
class KeyCard:
    """What a member says of their own key, and the box with the newest zone key for them."""

    member: Principal
    card: bytes
    box: bytes | None


@record
class KeyCards:
    """Cards in the order of their members; `next` goes into `after` for the page that follows."""

    cards: list[KeyCard]
    next: Principal | None


class Keys(Component, prefix="keys"):
    """Methods about the keys of an encrypted zone."""

    members = Uses(Members)
    shelf = Uses(KeyShelf)

    @query
    def key_records(self, ctx: Context, first: nat32, limit: nat32) -> KeyRecords:
        """Return records of zone keys from a version on; a zone without any is not encrypted."""
        self.members.require(ctx)
        newest, most = len(self.shelf.records), max(1, min(limit, bounds.KEY_RECORD_PAGE_COUNT_MAX))
        versions = range(max(1, first), min(newest + 1, max(1, first) + most))
        return KeyRecords([self.shelf.records[version] for version in versions], newest)

    @query
    def key_own(self, ctx: Context) -> OwnKeys:
        """Return the caller's card, and the boxes that are for them."""
        self.members.require(ctx)
        versions = self.shelf.versions_of(ctx.caller)
        boxes = [OwnBox(version, self.shelf.boxes[ctx.caller, version]) for version in versions]
        return OwnKeys(self.shelf.cards.get(ctx.caller), boxes)

    @query
    def key_cards(self, ctx: Context, after: Principal | None, limit: nat32) -> KeyCards:
        """List the cards of those who are members, or were when the provider of their role last told."""
        self.members.require(ctx)
        newest = len(self.shelf.records)
        page = self.shelf.cards.page(after=after, limit=max(1, min(limit, bounds.LIST_COUNT_MAX)))
        cards = [
            KeyCard(member, card, self.shelf.boxes.get((member, newest)))
            for member, card in page.items
            if self.members.is_expected(ctx, member)
        ]
        return KeyCards(cards, page.next)

    @update
    def key_publish(self, ctx: Context, card: bytes) -> None:
        """Put up one's own card."""
        self.members.require(ctx)
        _check_size(ctx, "card", card, bounds.KEY_CARD_SIZE_BYTES_MAX)
        if ctx.caller not in self.shelf.cards and len(self.shelf.cards) >= bounds.MEMBER_COUNT_MAX:
            refuse(ctx, f"the zone keeps {bounds.MEMBER_COUNT_MAX} cards, the most that there can be")
        self.shelf.cards.put(ctx.caller, card)

    @update
    def key_add(
        self, ctx: Context, version: nat32, key_record: bytes, boxes: list[KeyBox], is_linked: bool
    ) -> None:
        """Add the next zone key. Where its record holds the key before (`is_linked`), whoever gets the new
        one needs no older boxes: they go.
        """
        self.members.require(ctx, ADMIN)
        newest = len(self.shelf.records)
        if version != newest + 1:
            refuse(
                ctx, f"the zone's newest key has version {newest}, the next is {newest + 1}: read it first"
            )
        if newest >= bounds.KEY_VERSION_COUNT_MAX:
            refuse(ctx, f"a zone has at most {bounds.KEY_VERSION_COUNT_MAX} keys")
        _check_size(ctx, "record", key_record, bounds.KEY_RECORD_SIZE_BYTES_MAX)
        self._check_boxes(ctx, boxes)
        self.shelf.records.put(version, key_record)
        for each in boxes:
            for older in self.shelf.versions_of(each.member) if is_linked else []:
                self.shelf.boxes.delete((each.member, older))
            self.shelf.boxes.put((each.member, version), each.box)

    @update
    def key_grant(self, ctx: Context, version: nat32, boxes: list[KeyBox]) -> None:
        """Put up boxes with a zone key that is there: admins for everybody, members for themselves."""
        is_own = all(each.member == ctx.caller for each in boxes)
        self.members.require(ctx, *([] if is_own else [ADMIN]))
        if version not in self.shelf.records:
            refuse(ctx, f"the zone has no key of version {version}")
        self._check_boxes(ctx, boxes)
        for each in boxes:
            self.shelf.boxes.put((each.member, version), each.box)

    def _check_boxes(self, ctx: Context, boxes: list[KeyBox]) -> None:
        if len(boxes) > bounds.MEMBER_COUNT_MAX:
            refuse(ctx, f"at most {bounds.MEMBER_COUNT_MAX} boxes are put up at a time, not {len(boxes)}")
        for each in boxes:
            _check_size(ctx, "box", each.box, bounds.KEY_BOX_SIZE_BYTES_MAX)
            if not self.members.is_expected(ctx, each.member):
                refuse(ctx, f"{each.member} is no member: boxes are for members")
        if len(self.shelf.boxes) + len(boxes) > bounds.KEY_BOX_COUNT_MAX:
            refuse(
                ctx, f"the zone keeps {bounds.KEY_BOX_COUNT_MAX} boxes: link the next key to the one before"
            )


def _check_size(ctx: Context, what: str, data: bytes, most: int) -> None:
    if not 0 < len(data) <= most:
        refuse(ctx, f"a {what} has 1 to {most} bytes, not {len(data)}")
