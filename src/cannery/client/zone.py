"""A zone from the outside: join it, post, read, follow what is new, keep files.

`async with AsyncAgent(url, identity) as agent: zone = await open_zone(agent, zone_id)`. What may be asked is
in docs/zones.md; whatever the zone refuses is a `ZoneRefused` with the reason and when to come back.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

from cannery.candid.values import Variant
from cannery.client.agent import AsyncAgent
from cannery.client.exchange import WaitReport
from cannery.client.zone_anchors import Anchors, MemoryAnchors
from cannery.client.zone_cover import Cover, CoverFault, Opened, PlainCover
from cannery.client.zone_door import ZoneDoor
from cannery.client.zone_files import ZoneFiles
from cannery.client.zone_history import LAST_ID, Fetch, HistoryPlan
from cannery.client.zone_invitation import Invitation
from cannery.client.zone_keys import ZoneKeys
from cannery.client.zone_live import Live
from cannery.client.zone_sealed_cover import SealedCover
from cannery.client.zone_values import (
    KEY_SIZE_BYTES,
    BadTopic,
    Fields,
    InvitationInfo,
    Limits,
    MemberInfo,
    Message,
    Missing,
    Retention,
    Topic,
    TopicInfo,
    Usage,
    ZoneRefused,
    is_text,
    limits_of,
    usage_of,
)
from cannery.protocol.principal import Principal

_LIST_COUNT = 1_000
_LOOK_AGAIN_S = 2.0
_OWNER = 500


class Zone:
    """A zone, as one identity sees it; make it with `open_zone` or `join_zone`."""

    def __init__(self, door: ZoneDoor, keys: ZoneKeys) -> None:
        self.keys = keys
        self.files = ZoneFiles(door, lambda: self._cover, self.prepare)
        self._door = door
        self._plain = PlainCover()
        identity = door.agent.identity
        self._sealed = SealedCover(door.id, identity, keys.newest, keys.any, keys.key_of)

    @property
    def id(self) -> Principal:
        """The zone's canister."""
        return self._door.id

    @property
    def is_encrypted(self) -> bool:
        """Whether what is written is sealed with a key that the zone does not have."""
        return self.keys.is_encrypted

    @property
    def _cover(self) -> Cover:
        return self._sealed if self.keys.is_encrypted else self._plain

    async def prepare(self) -> None:
        """See whether there is a newer key, unless one has looked just now."""
        if self.keys.is_stale():
            await self.keys.load()

    # members

    async def role(self) -> int:
        """Return one's own role as Diode numbers it; 0 for strangers."""
        number: int = await self._door.ask("my_role")
        return number

    async def members(self) -> list[MemberInfo]:
        """List the members that the zone itself keeps; of an encrypted zone also who holds its newest key."""
        listed = await self._listed()
        if not self.is_encrypted:
            return listed
        holders = await self.keys.holders()
        return [replace(each, can_read=each.principal in holders) for each in listed]

    async def _listed(self) -> list[MemberInfo]:
        found: list[MemberInfo] = []
        after: Principal | None = None
        while True:
            page = await self._door.ask("members_page", after, _LIST_COUNT)
            for entry in page["members"]:
                member = entry["member"]
                found.append(
                    MemberInfo(
                        entry["principal"],
                        member["role"].tag,
                        member["since_ns"],
                        member["by"],
                        entry["unread_from"],
                    )
                )
            after = page["next"]
            if after is None:
                return found

    async def set_member(self, who: Principal, role: str) -> None:
        """Make somebody a member, or change their role: reader, member, moderator, admin, owner.

        In an encrypted zone, a change of who is an admin makes a new key, whose record names the admins.
        """
        await self._door.tell("member_set", who, Variant(role))
        is_admin = role in ("admin", "owner")
        if self.is_encrypted and is_admin != self.keys.is_signer(who):
            if is_admin and who not in await self.keys.holders():
                return
            await self.keys.rotate()

    async def remove_member(self, who: Principal) -> bool:
        """Remove a member, or leave; say whether they were one. They read nothing from here on: an encrypted
        zone gets a new key first, without them.
        """
        if self.is_encrypted and who != self._door.agent.principal and await self._may_remove(who):
            await self.keys.rotate(without=(who,))
        removed: bool = await self._door.tell("member_remove", who)
        return removed

    async def _may_remove(self, who: Principal) -> bool:
        """Say whether the zone would remove somebody: no key is made without them where they stay."""
        roles = {each.principal: each.role for each in await self._listed()}
        if who not in roles:
            # Their role is from elsewhere, and the key is all that can be withheld from them.
            return who in await self.keys.holders()
        if await self.role() >= _OWNER:
            return roles[who] != "owner" or list(roles.values()).count("owner") > 1
        return roles[who] not in ("admin", "owner")

    async def invite(
        self, role: str = "member", uses: int = 1, seconds: int = 7 * 86_400, *, with_past: bool = True
    ) -> Invitation:
        """Return an invitation that makes up to `uses` people members within so many seconds.

        That to an encrypted zone holds its key, until a new one is made. Not `with_past`: a new one is made
        now, so that who is invited cannot read what was before.
        """
        if not self.is_encrypted and not with_past:
            raise ZoneRefused("the zone is not encrypted: who joins it reads all that it keeps", None)
        if not with_past:
            await self.keys.rotate(is_linked=False)
        code: bytes = await self._door.tell("invite", Variant(role), uses, seconds)
        return self.keys.invitation(code) if self.is_encrypted else Invitation(code)

    async def invitations(self) -> list[InvitationInfo]:
        """List the open invitations, for admins: whoever has the code of one can join, again too."""
        return [
            InvitationInfo(each["id"], each["role"].tag, each["uses_left"], each["expires_ns"], each["by"])
            for each in await self._door.ask("invitations")
        ]

    async def revoke(self, id: bytes) -> bool:
        """End an invitation; say whether it was open."""
        revoked: bool = await self._door.tell("invitation_revoke", id)
        return revoked

    async def encrypt(self) -> None:
        """Make the zone an encrypted one: what is written from here on is sealed with its key."""
        await self.keys.start()

    async def grant(self, who: Principal) -> None:
        """Give a member the zone's key who came without one. It goes to the key that they have signed."""
        await self.keys.grant(who)
        admins = {each.principal for each in await self._listed() if each.role in ("admin", "owner")}
        if who in admins and not self.keys.is_signer(who):
            await self.keys.rotate()

    # messages

    async def post(self, topic: Topic, body: bytes) -> int:
        """Add a message to a topic; return its id once it is durable."""
        return (await self.post_many([(topic, body)]))[0]

    async def post_many(self, items: Sequence[tuple[Topic, bytes]]) -> list[int]:
        """Add messages, all or none; return their ids in order."""
        await self.prepare()
        sealed = [self._put_under(topic, body) for topic, body in items]
        ids: list[int] = await self._door.tell("add_messages", sealed)
        return ids

    def _put_under(self, topic: Topic, body: bytes) -> tuple[bytes, bytes]:
        key = self.key_of(topic)
        name = topic if isinstance(topic, str) else ""
        return key, self._cover.seal_message(key, name, body)

    def key_of(self, topic: Topic) -> bytes:
        """Give the key of 41 bytes under which the zone keeps a topic's messages."""
        if isinstance(topic, str):
            if not is_text(topic):
                raise BadTopic(f"{topic!r} is no topic: its name is text in UTF-8")
            return self._cover.topic_key(topic)
        if len(topic) != KEY_SIZE_BYTES:
            raise BadTopic(f"a topic's key has {KEY_SIZE_BYTES} bytes, not {len(topic)}")
        return topic

    def history(
        self,
        topics: Sequence[Topic] | None = None,
        *,
        first_id: int = 1,
        last_id: int = LAST_ID,
        times_ns: tuple[int, int] | None = None,
        newest_first: bool = False,
        merged: bool = True,
        bodies: bool = True,
        per_topic: int | None = None,
        limit: int | None = None,
    ) -> Fetch:
        """Fetch messages: of some topics, by ids or times of arrival (bounds included), in either order; of
        all topics by id, oldest first. See `Fetch`; at most `limit` in all, and `per_topic` of each topic.
        More than 250 topics come group by group, as named, each group in its own order.
        """
        if topics is None and (times_ns is not None or newest_first or per_topic is not None):
            raise BadTopic(
                "all topics are read by id, oldest first; name topics to read by time, newest first, or so "
                "many of each"
            )
        if topics is not None and not topics:
            raise BadTopic("name at least one topic, or none at all for every topic")
        plan = HistoryPlan(
            topics,
            first_id=first_id,
            last_id=last_id,
            times_ns=times_ns,
            newest_first=newest_first,
            merged=merged and per_topic is None,
            bodies=bodies,
            per_topic=per_topic,
            limit=limit,
        )
        return Fetch(self._door, plan, self)

    async def live(
        self, topics: Sequence[Topic] | None = None, *, after: int | None = None
    ) -> AsyncGenerator[Message | Missing]:
        """Give each new message once, in the order of ids, for as long as you iterate: of some topics or all,
        from after an id (0: everything) or from now on. Reconnects and restarts of the node are bridged; what
        the zone has dropped meanwhile comes as `Missing`. Raises `ZoneRefused` once membership is lost.
        """
        await self.prepare()
        keys = None if topics is None else [self.key_of(topic) for topic in topics]
        following = (await self.usage()).next_id if after is None else after + 1
        live = Live(self._door, keys, following, self)
        messages = live.messages()
        try:
            async for item in messages:
                yield item
        finally:
            await messages.aclose()

    def name_of(self, key: bytes) -> str:
        """Give the name of a topic by its key, in hex where it is not known."""
        return self._cover.topic_name(key)

    async def open(self, key: bytes, fields: Fields) -> Message:
        """Read a message as the zone gives it."""
        id, at_ns, size, payload = fields["id"], fields["at_ns"], fields["size"], fields["payload"]
        name = self._cover.topic_name(key)
        if not payload:
            fault = "left out" if size else "erased"
            return Message(id, name, key, at_ns, None, size, fault=fault)
        try:
            opened = await self._opened(key, payload)
        except CoverFault as fault:
            return Message(id, name, key, at_ns, None, size, fault=str(fault))
        return Message(id, opened.topic or name, key, at_ns, opened.body, size, opened.sender)

    async def _opened(self, key: bytes, payload: bytes) -> Opened:
        try:
            return self._cover.open_message(key, payload)
        except CoverFault as fault:
            if not fault.lacks_key or not self.keys.is_stale(_LOOK_AGAIN_S):
                raise
        await self.keys.load()
        return self._cover.open_message(key, payload)

    async def topics(self) -> list[TopicInfo]:
        """List the topics that have messages."""
        await self.prepare()
        found: list[Fields] = []
        after: bytes | None = None
        while True:
            page = await self._door.ask("topics_page", after, _LIST_COUNT)
            found += page["topics"]
            after = page["next"]
            if after is None:
                break
        if self.is_encrypted:
            # Each topic's newest message names it.
            unnamed = [each["topic"] for each in found if self.name_of(each["topic"]) == each["topic"].hex()]
            if unnamed:
                await self.history(unnamed, newest_first=True, per_topic=1).all()
        return [_topic_info(self.name_of(each["topic"]), each) for each in found]

    async def acknowledge(self, through: int) -> int:
        """Say that one has everything up to an id; return the first id not acknowledged."""
        first: int = await self._door.tell("acknowledge", through)
        return first

    # figures and limits

    async def usage(self) -> Usage:
        """Return what the zone holds."""
        return usage_of(await self._door.ask("usage"))

    async def retention(self) -> Retention:
        """Return how much the zone keeps."""
        rules = await self._door.ask("get_retention")
        return Retention(*(limits_of(rules[kind]) for kind in ("messages", "attachments", "files")))

    async def set_retention(self, retention: Retention) -> None:
        """Set how much the zone keeps; what is beyond goes."""
        kinds = ("messages", "attachments", "files")
        await self._door.tell("set_retention", {kind: _rule(getattr(retention, kind)) for kind in kinds})


def _topic_info(name: str, fields: Fields) -> TopicInfo:
    figures = (fields[field] for field in ("first", "last", "count", "size_bytes"))
    return TopicInfo(name, fields["topic"], *figures)


def _rule(limits: Limits) -> Fields:
    return {
        "count_max": limits.count_max,
        "bytes_max": limits.bytes_max,
        "age_ns_max": limits.age_ns_max,
        "when_full": Variant(limits.when_full),
    }


async def open_zone(
    agent: AsyncAgent,
    zone_id: Principal,
    *,
    anchors: Anchors | None = None,
    patience_s: float = 60.0,
    on_wait: WaitReport | None = None,
) -> Zone:
    """Open a zone; where it says when to come back, it is asked again for up to `patience_s`.

    `anchors` (`ZoneAnchors()`: a file of one's own) hold what is known of an encrypted zone's keys from one
    program to the next; without them the keys that the zone shows first are believed.
    """
    door = await ZoneDoor.open(agent, zone_id, patience_s, on_wait or _ignore)
    zone = Zone(door, ZoneKeys(door, anchors or MemoryAnchors()))
    try:
        await zone.prepare()
    except ZoneRefused:
        # A stranger has no keys to learn; what they ask for is refused when they ask.
        return zone
    return zone


async def join_zone(
    agent: AsyncAgent,
    zone_id: Principal,
    invitation: Invitation | str,
    *,
    anchors: Anchors | None = None,
    patience_s: float = 60.0,
    on_wait: WaitReport | None = None,
) -> Zone:
    """Become a member by an invitation, and open the zone. Raises `BadInvitation`, `ZoneRefused` and
    `ZoneLocked`.
    """
    wanted = Invitation.parse(invitation) if isinstance(invitation, str) else invitation
    door = await ZoneDoor.open(agent, zone_id, patience_s, on_wait or _ignore)
    zone = Zone(door, ZoneKeys(door, anchors or MemoryAnchors()))
    if wanted.key is not None:
        zone.keys.check_identity()
    try:
        await door.tell("join", wanted.code)
    except ZoneRefused:
        # Whoever broke off after they had joined comes back for the key: the code may be used up, by them.
        if wanted.key is None or not await zone.role():
            raise
    await zone.keys.accept(wanted)
    return zone


def _ignore(reason: str) -> None:
    """Tell nobody why the client waits."""
