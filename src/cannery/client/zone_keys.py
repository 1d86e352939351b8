"""The keys of an encrypted zone, as one member has them: learn them, make new ones, give them to others.

What the zone says is checked against signatures and hashes (`zone_key_log`). New keys go to those who hold
the newest one, as their boxes prove, and to whom an admin names.
"""

from __future__ import annotations

import time
from collections.abc import Collection

from cannery.client.errors import ClientError, Unverified
from cannery.client.zone_anchors import Anchor, Anchors
from cannery.client.zone_cover import CoverFault
from cannery.client.zone_door import ZoneDoor
from cannery.client.zone_invitation import Invitation
from cannery.client.zone_key_log import (
    NO_RECORD,
    KeyRecord,
    RecordBody,
    check_next,
    make_card,
    make_record,
    read_card,
    read_record,
)
from cannery.client.zone_seal import (
    LINK,
    Exchange,
    ZoneKey,
    exchange_of,
    is_vouched,
    make_box,
    new_zone_key,
    open_box,
    seal,
    unseal,
)
from cannery.client.zone_values import Fields, ZoneRefused
from cannery.limits import ZONE_KEY_AGE_S_MAX
from cannery.protocol.principal import Principal

_PAGE_COUNT = 100
_ROTATE_COUNT_MAX = 5
_OVERTAKEN = "the zone's newest key has version"
_ADMINS = ("admin", "owner")


class ZoneLocked(ClientError):
    """One lacks the key that is needed; the text says who can help."""


class ZoneKeys:
    """A member's view of a zone's keys."""

    def __init__(self, door: ZoneDoor, anchors: Anchors) -> None:
        self._door = door
        self._anchors = anchors
        self._identity = door.agent.identity
        self._me = door.agent.principal
        self._records: list[KeyRecord] = []
        self._ring: dict[int, ZoneKey] = {}
        self._exchange: Exchange | None = None
        self._loaded_s = -ZONE_KEY_AGE_S_MAX

    @property
    def is_encrypted(self) -> bool:
        """Whether the zone has a key."""
        return bool(self._records)

    @property
    def version(self) -> int:
        """The version of the zone's newest key; 0 without one."""
        return len(self._records)

    def is_signer(self, who: Principal) -> bool:
        """Say whether somebody may make the next key."""
        return bool(self._records) and who.raw in self._records[-1].body.signers

    # having keys

    def newest(self) -> ZoneKey:
        """Give the newest key. Raises `ZoneLocked`."""
        if not self._records:
            raise ZoneLocked("the zone is not encrypted: it has no key")
        found = self._ring.get(self.version)
        if found is None:
            raise ZoneLocked(
                f"you do not have the zone's key {self.version}: ask an admin to run 'cannery zone members "
                f"ZONE --grant {self._me}'"
            )
        return found

    def any(self) -> ZoneKey:
        """Give one of the keys: the secret of topics is the same in all. Raises `ZoneLocked`."""
        return self._ring[max(self._ring)] if self._ring else self.newest()

    def key_of(self, version: int) -> ZoneKey:
        """Give the key of a version. Raises `CoverFault`."""
        found = self._ring.get(version)
        if found is None:
            raise CoverFault(f"it needs key {version} of the zone, which you do not have", lacks_key=True)
        return found

    def is_stale(self, age_s: float = ZONE_KEY_AGE_S_MAX) -> bool:
        """Say whether a newer key may have been made since one last looked."""
        return time.monotonic() - self._loaded_s >= age_s

    def check_identity(self) -> None:
        """See that one's identity can hold keys. Raises `ZoneLocked`."""
        if self._identity.public_key_der is None:
            raise ZoneLocked("the anonymous identity can hold no keys of an encrypted zone")
        if self._identity.delegations:
            raise ZoneLocked(
                f"an encrypted zone cannot be opened by delegation: its keys are sealed to the own key of "
                f"{self._me}, which a session does not have. Open it with that identity itself, or make the "
                "session's identity a member of its own"
            )

    def _own_exchange(self) -> Exchange:
        if self._exchange is None:
            self._exchange = exchange_of(self._identity, self._door.id)
        return self._exchange

    async def load(self) -> None:
        """Learn the keys that there are and that are for oneself. Raises `Unverified`."""
        anchor = self._anchors.find(self._door.id, self._me)
        await self._load_records(anchor)
        self._loaded_s = time.monotonic()
        if not self._records:
            return
        self.check_identity()
        own = await self._door.ask("key_own")
        for each in own["boxes"]:
            if each["version"] not in self._ring:
                self._open_box(each["version"], each["box"])
        self._follow_links()
        self._anchors.set(self._door.id, self._me, Anchor(self.version, self._records[-1].hash))
        if own["card"] is None:
            await self._door.tell("key_publish", self._card())

    async def _load_records(self, anchor: Anchor | None) -> None:
        newest = self.version + 1
        while self.version < newest:
            page = await self._door.ask("key_records", self.version + 1, _PAGE_COUNT)
            newest = page["newest"]
            for data in page["records"]:
                record = read_record(self._door.id, data)
                check_next(self._records[-1] if self._records else None, record)
                self._records.append(record)
            if not page["records"]:
                break
        if newest < self.version or (anchor is not None and not self._has(anchor)):
            raise Unverified(
                f"the zone {self._door.id} shows other keys than before, older ones, or none: do not use it; "
                "if it was made anew on purpose, delete its line in zones.json beside your identities"
            )

    def _has(self, anchor: Anchor) -> bool:
        return anchor.version <= self.version and self._records[anchor.version - 1].hash == anchor.hash

    def _open_box(self, version: int, box: bytes) -> None:
        try:
            self._keep(open_box(version, self._own_exchange(), box))
        except CoverFault:
            return

    def _keep(self, key: ZoneKey) -> bool:
        """Keep a key, if it is the one of its record."""
        if not 1 <= key.version <= self.version:
            return False
        if self._records[key.version - 1].body.commitment != key.commitment(self._door.id):
            return False
        self._ring[key.version] = key
        return True

    def _follow_links(self) -> None:
        """Open each key that lies in the record of the one after it."""
        for version in range(self.version, 1, -1):
            key, link = self._ring.get(version), self._records[version - 1].body.link
            if key is None or link is None or version - 1 in self._ring:
                continue
            try:
                earlier = unseal(LINK, key, self._door.id, b"", link)
            except CoverFault:
                continue
            self._keep(ZoneKey(version - 1, earlier, key.topics))

    def _card(self) -> bytes:
        return make_card(self._identity, self._door.id, self._own_exchange().public)

    # giving keys

    async def start(self) -> None:
        """Make the zone's first key; whoever else is to have it gets it from an admin."""
        self.check_identity()
        await self.load()
        if self._records:
            raise ZoneRefused(
                f"the zone is encrypted already: its newest key has version {self.version}", None
            )
        await self._add(new_zone_key(1), None, {self._me: self._own_exchange().public})

    async def rotate(self, *, without: Collection[Principal] = (), is_linked: bool = True) -> int:
        """Make a new key for all who hold the newest one, but `without` some; return its version.

        Linked: whoever gets it gets the earlier ones with it; else new members cannot read what was before.
        Where another admin makes one at the same time, this one comes after theirs.
        """
        for _ in range(_ROTATE_COUNT_MAX - 1):
            try:
                return await self._rotate(without, is_linked)
            except ZoneRefused as refused:
                if _OVERTAKEN not in refused.reason:
                    raise
        return await self._rotate(without, is_linked)

    async def _rotate(self, without: Collection[Principal], is_linked: bool) -> int:
        await self.load()
        key = self.newest()
        if not self.is_signer(self._me):
            names = ", ".join(str(Principal(raw)) for raw in self._records[-1].body.signers)
            raise ZoneLocked(f"you may not make the zone's next key; these may: {names}")
        holders = {who: public for who, public in (await self._holders()).items() if who not in without}
        await self._add(new_zone_key(self.version + 1, key.topics), key if is_linked else None, holders)
        return self.version

    async def grant(self, who: Principal) -> None:
        """Give somebody the newest key; their own key is the one that they have signed."""
        await self.load()
        key = self.newest()
        card = (await self._cards()).get(who)
        if card is None:
            raise ZoneRefused(f"{who} has not opened the zone yet, which publishes their key", None)
        public = read_card(self._door.id, who, card["card"])
        box = make_box(key, self._door.id, who, public)
        await self._door.tell("key_grant", key.version, [{"member": who, "box": box}])

    async def holders(self) -> set[Principal]:
        """Give the members who hold the newest key, as far as one can tell who has it oneself."""
        return set(await self._holders()) if self.version in self._ring else set()

    async def _holders(self) -> dict[Principal, bytes]:
        """Give those who hold the newest key, as their boxes prove, with the keys that their cards name."""
        key, found = self.newest(), {self._me: self._own_exchange().public}
        for who, each in (await self._cards()).items():
            try:
                public = read_card(self._door.id, who, each["card"])
            except Unverified:
                continue
            if each["box"] is not None and is_vouched(key, self._door.id, who, public, each["box"]):
                found[who] = public
        return found

    async def _cards(self) -> dict[Principal, Fields]:
        found: dict[Principal, Fields] = {}
        after: Principal | None = None
        while True:
            page = await self._door.ask("key_cards", after, 1_000)
            found |= {each["member"]: each for each in page["cards"]}
            after = page["next"]
            if after is None:
                return found

    async def _add(self, key: ZoneKey, linked: ZoneKey | None, holders: dict[Principal, bytes]) -> None:
        zone, before = self._door.id, self._records[-1] if self._records else None
        link = None if linked is None else seal(LINK, key, zone, b"", linked.key)
        signers = [who.raw for who in sorted(await self._admins()) if who in holders]
        previous = NO_RECORD if before is None else before.hash
        body = RecordBody(key.version, previous, key.commitment(zone), link, signers)
        boxes = [
            {"member": who, "box": make_box(key, zone, who, public)}
            for who, public in sorted(holders.items())
        ]
        record = make_record(self._identity, zone, body)
        await self._door.tell("key_add", key.version, record, boxes, link is not None)
        await self.load()

    async def _admins(self) -> set[Principal]:
        found: set[Principal] = {self._me}
        after: Principal | None = None
        while True:
            page = await self._door.ask("members_page", after, 1_000)
            found |= {e["principal"] for e in page["members"] if e["member"]["role"].tag in _ADMINS}
            after = page["next"]
            if after is None:
                return found

    # invitations

    def invitation(self, code: bytes) -> Invitation:
        """Put the newest key to an invitation's code."""
        key = self.newest()
        return Invitation(code, key, self._records[-1].hash)

    async def accept(self, invitation: Invitation) -> None:
        """Take the zone's keys as an invitation tells them, and put the newest into a box for oneself."""
        key, digest = invitation.key, invitation.record_hash
        if key is None or digest is None:
            await self.load()
            return
        if self._anchors.find(self._door.id, self._me) is None:
            self._anchors.set(self._door.id, self._me, Anchor(key.version, digest))
        await self.load()
        if not self._has(Anchor(key.version, digest)) or not self._keep(key):
            raise Unverified("the zone's keys are not those of the invitation: do not use this zone")
        self._follow_links()
        box = make_box(key, self._door.id, self._me, self._own_exchange().public)
        await self._door.tell("key_grant", key.version, [{"member": self._me, "box": box}])
