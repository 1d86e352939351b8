"""What a zone keeps of its members' encryption: bytes that clients make, and that tell it nothing."""

from __future__ import annotations

from cannery import Principal, StableMap, nat32
from cannery.cdk.component import Component


class KeyShelf(Component, prefix="keyshelf"):
    """Records of zone keys by version; members' cards; boxes, in each of which a key lies for one member."""

    records = StableMap(nat32, bytes, counted=True)
    cards = StableMap(Principal, bytes, counted=True)
    boxes = StableMap(tuple[Principal, nat32], bytes, counted=True)

    def forget(self, member: Principal) -> None:
        """Drop what is kept for somebody who is no member any more."""
        self.cards.delete(member)
        for version in self.versions_of(member):
            self.boxes.delete((member, version))

    def versions_of(self, member: Principal) -> list[int]:
        """List the versions whose key lies in a box for a member."""
        return [version for _, version in self.boxes.keys(prefix=(member,))]
