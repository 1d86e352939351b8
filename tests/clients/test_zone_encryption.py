"""Encrypted zones on a running node: peers read each other, the node reads nothing, who leaves reads no more,
and a zone that lies about keys is not believed.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from pathlib import Path

import pytest

from cannery.candid.values import Variant
from cannery.cli.management import Management
from cannery.client.actor import open_async_actor
from cannery.client.errors import Unverified
from cannery.client.zone import Zone, join_zone, open_zone
from cannery.client.zone_anchors import ZoneAnchors
from cannery.client.zone_files import Uncovered
from cannery.client.zone_key_log import RecordBody, make_card, make_record
from cannery.client.zone_keys import ZoneLocked
from cannery.client.zone_seal import exchange_of
from cannery.client.zone_values import ZoneRefused
from cannery.protocol.identity import delegated
from tests.clients.zone_town import ANN, BOB, CAROL, EVE, Town, zone_argument, zone_module
from tests.node_under_test import NodeUnderTest


@pytest.fixture
def town(running_node: NodeUnderTest) -> Town:
    return Town(running_node)


async def bodies(zone: Zone) -> list[bytes | None]:
    return [message.body for message in await zone.history().all()]


def test_peers_read_each_other_and_the_node_reads_nothing(town: Town) -> None:
    marker = secrets.token_hex(16)

    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            invitation = str(await ann.invite())
            async with town.agent(BOB) as agent:
                bob = await join_zone(agent, town.id, invitation)
                assert await ann.post(f"topic {marker}", f"from ann {marker}".encode()) == 1
                assert await bob.post(f"topic {marker}", f"from bob {marker}".encode()) == 2
                (mine, yours) = await ann.history([f"topic {marker}"]).all()
                assert (yours.body, yours.sender) == (f"from bob {marker}".encode(), BOB.principal)
                assert (mine.topic, mine.sender) == (f"topic {marker}", ANN.principal)
                path = f"/dir {marker}/file {marker}"
                await bob.files.put(path, marker.encode() * 10_000)
                assert await ann.files.read(path) == marker.encode() * 10_000
                digest = await ann.files.put_attachment(marker.encode() * 100)
                assert await bob.files.read_attachment(digest) == marker.encode() * 100
                assert [m.can_read for m in await bob.members()] == [True, True]
            async with town.agent(BOB) as agent:
                again = await open_zone(agent, town.id)
                assert [t.topic for t in await again.topics()] == [f"topic {marker}"]
                assert [e.path for e in await again.files.entries()] == [f"/dir {marker}"]
                raw = await open_async_actor(agent, town.id)
                everything = await raw.get_messages_by_range(0, 99)
                assert len(everything) == 2
                shown = repr(
                    [everything, await raw.get_child_directories(bytes(32)), await raw.get_attachment(digest)]
                )
                assert marker not in shown

    asyncio.run(go())
    assert not is_on_disk(town.node, marker.encode())


def test_what_is_not_encrypted_is_on_the_nodes_disk(town: Town) -> None:
    """The look at the disk can find something."""
    marker = secrets.token_hex(16)

    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.post("a", marker.encode())

    asyncio.run(go())
    assert is_on_disk(town.node, marker.encode())


def is_on_disk(node: NodeUnderTest, marker: bytes) -> bool:
    return any(marker in path.read_bytes() for path in node.data.rglob("*") if path.is_file())


def test_who_broke_off_while_they_joined_comes_back_for_the_key(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            await ann.post("a", b"before")
            invitation = await ann.invite(uses=1)
            async with town.agent(BOB) as agent, town.agent(EVE) as stranger:
                raw = await open_async_actor(agent, town.id)
                await raw.join(invitation.code)
                assert await bodies(await open_zone(agent, town.id)) == [None], "a member without the key"
                bob = await join_zone(agent, town.id, invitation)
                assert await bodies(bob) == [b"before"]
                with pytest.raises(ZoneRefused, match="unknown, used up"):
                    await join_zone(stranger, town.id, invitation)

    asyncio.run(go())


class BrokenOffError(Exception):
    """Somebody ends an upload."""


def test_what_is_too_large_when_it_is_sealed_is_told_with_both_sizes(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cannery.client.zone_files.CONTENT_SIZE_BYTES_MAX", 1_000)

    async def go() -> None:
        async with town.as_(ANN) as ann:
            with pytest.raises(ZoneRefused, match=r"contents of up to 1000 bytes: this one has 1001$"):
                await ann.files.put("plain.bin", bytes(1_001))
            await ann.encrypt()
            with pytest.raises(ZoneRefused, match=r"up to 1000 bytes: this one has 1000, sealed 1\d\d\d$"):
                await ann.files.put("sealed.bin", bytes(1_000))

    asyncio.run(go())


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_uploads_that_break_off_are_found_again_or_give_their_room_back(
    town: Town, is_encrypted: bool
) -> None:
    """What is sealed anew for each try would fill the zone with what nobody can finish."""
    data = bytes(3_000_000)

    def break_off(done: int, in_all: int) -> None:
        if 0 < done < in_all:
            raise BrokenOffError

    async def go() -> None:
        async with town.as_(ANN) as ann:
            if is_encrypted:
                await ann.encrypt()
            for _ in range(3):
                with pytest.raises(BrokenOffError):
                    await ann.files.put("large.bin", data, on_progress=break_off)
                with pytest.raises(BrokenOffError):
                    await ann.files.put_attachment(data, on_progress=break_off)
            usage, left = await ann.usage(), 0 if is_encrypted else 1
            assert (usage.files.count, usage.attachments.count) == (left, left)
            await ann.files.put("large.bin", data)
            assert await ann.files.read_attachment(await ann.files.put_attachment(data)) == data
            assert (await ann.usage()).files.count == 1

    asyncio.run(go())


def test_a_removal_that_the_zone_refuses_makes_no_key_without_them(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            async with town.agent(BOB) as agent:
                bob = await join_zone(agent, town.id, await ann.invite("admin"))
                await ann.keys.rotate()
                assert ann.keys.is_signer(BOB.principal)
                with pytest.raises(ZoneRefused, match="an admin changes members below admin"):
                    await bob.remove_member(ANN.principal)
                assert not await bob.remove_member(EVE.principal), "she is none"
                await bob.keys.load()
                assert bob.keys.version == 2
                await bob.post("a", b"for all")
                assert await bodies(ann) == [b"for all"]

    asyncio.run(go())


def test_who_is_removed_reads_nothing_new_and_those_who_stay_read_all(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            texts = [str(await ann.invite(uses=1)) for _ in range(2)]
            async with town.agent(BOB) as bob_agent, town.agent(CAROL) as carol_agent:
                bob = await join_zone(bob_agent, town.id, texts[0])
                await join_zone(carol_agent, town.id, texts[1])
                await bob.post("a", b"before")
                assert await ann.remove_member(BOB.principal)
                await ann.post("a", b"after")
                await ann.keys.rotate()
                await ann.post("a", b"later")
                assert ann.keys.version == 3
                with pytest.raises(ZoneRefused, match="Not a member"):
                    await bodies(bob)
                # What somebody who copies the node's disk might show him.
                stored = await (await open_async_actor(ann._door.agent, town.id)).get_messages_by_range(0, 9)
                opened = [
                    await bob.open(
                        m["key_id"], {"id": m["id"], "at_ns": 0, "size": 1, "payload": m["ciphertext"]}
                    )
                    if m["id"] == 1
                    else None
                    for m in stored
                ]
                assert opened[0] is not None
                assert opened[0].body == b"before"
                for message in stored[1:]:
                    with pytest.raises(Exception, match="which you do not have"):
                        bob._cover.open_message(message["key_id"], message["ciphertext"])
            # Carol was away meanwhile.
            async with town.agent(CAROL) as agent:
                carol = await open_zone(agent, town.id)
                assert await bodies(carol) == [b"before", b"after", b"later"]
                await carol.post("a", b"I am back")
            assert await bodies(ann) == [b"before", b"after", b"later", b"I am back"]
            # An old invitation makes a member, but its key is not the newest.
            stale = await ann.invite(uses=1)
            await ann.keys.rotate()
            async with town.agent(EVE) as agent:
                eve = await join_zone(agent, town.id, stale)
                with pytest.raises(ZoneLocked, match=f"members ZONE --grant {EVE.principal}"):
                    await eve.post("a", b"hi")

    asyncio.run(go())


def test_a_new_member_gets_what_the_admin_grants(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            await ann.post("a", b"old")
            await ann.files.put("old.txt", b"old")
            invitation = await ann.invite(with_past=False)
            await ann.post("a", b"new")
            async with town.agent(BOB) as agent:
                bob = await join_zone(agent, town.id, invitation)
                found = await bob.history(["a"]).all()
                assert [m.body for m in found] == [None, b"new"]
                assert found[0].fault == "it needs key 1 of the zone, which you do not have"
                assert [e.path[:2] for e in await bob.files.entries()] == ["/?"]
            # Carol comes without an invitation.
            async with town.agent(CAROL) as agent:
                with pytest.raises(ZoneRefused, match="Not a member"):
                    await (await open_zone(agent, town.id)).post("a", b"x")
                await ann.set_member(CAROL.principal, "admin")
                with pytest.raises(ZoneRefused, match="has not opened the zone yet"):
                    await ann.grant(CAROL.principal)
                carol = await open_zone(agent, town.id)
                with pytest.raises(ZoneLocked, match="ask an admin"):
                    await carol.post("a", b"x")
                await ann.grant(CAROL.principal)
                carol = await open_zone(agent, town.id)
                assert await bodies(carol) == [None, b"new"], "a key that is not linked opens nothing older"
                assert CAROL.principal in await ann.keys.holders()
                # She is an admin with the key: the record names her, so that she may rotate.
                await carol.remove_member(BOB.principal)
                await ann.post("a", b"newest")
                assert (await bodies(carol))[-1] == b"newest"
                await ann.set_member(CAROL.principal, "member")
                with pytest.raises(ZoneLocked, match="you may not make the zone's next key"):
                    await carol.keys.rotate()

    asyncio.run(go())


def test_keys_by_whom_no_record_names_are_not_believed(town: Town) -> None:
    """Eve is made an admin by the zone's list (as a lying node may do): her key convinces nobody."""

    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            async with town.agent(EVE) as agent, town.agent(BOB) as bob_agent:
                bob = await join_zone(bob_agent, town.id, await ann.invite())
                await ann._door.tell("member_set", EVE.principal, Variant("admin"))
                eve = await open_zone(agent, town.id)
                before = eve.keys._records[-1]
                body = RecordBody(2, before.hash, bytes(32), None, [EVE.principal.raw])
                await eve._door.tell("key_add", 2, make_record(EVE, town.id, body), [], False)
                for peer in (ann, bob):
                    with pytest.raises(Unverified, match="who was no admin of it"):
                        await peer.keys.load()

    asyncio.run(go())


def test_a_card_that_its_member_did_not_sign_gets_no_key(town: Town) -> None:
    """A node that puts its own key into a member's card learns nothing."""

    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            async with town.agent(BOB) as agent:
                bob = await join_zone(agent, town.id, await ann.invite())
                forged = make_card(EVE, town.id, exchange_of(EVE, town.id).public)
                await bob._door.tell("key_publish", forged)
            with pytest.raises(Unverified, match=f"the card of {BOB.principal} is signed by {EVE.principal}"):
                await ann.grant(BOB.principal)
            assert await ann.keys.holders() == {ANN.principal}
            # A member whom the zone lists, with a card of their own, but without the key: no next key either.
            await ann.set_member(EVE.principal, "member")
            async with town.agent(EVE) as agent:
                await open_zone(agent, town.id)
                await ann.keys.rotate()
                with pytest.raises(ZoneLocked):
                    await (await open_zone(agent, town.id)).post("a", b"x")

    asyncio.run(go())


def test_a_session_by_delegation_is_told_why_it_cannot_open_the_zone_and_uses_no_invitation_up(
    town: Town,
) -> None:
    """In a zone without encryption it takes part as whoever it acts for."""

    async def go() -> None:
        session = delegated(BOB, EVE, time.time_ns() + 600 * 10**9)
        async with town.as_(ANN) as ann, town.agent(session) as agent:
            plain = await join_zone(agent, town.id, await ann.invite())
            await plain.post("a", b"as Bob")
            assert await bodies(ann) == [b"as Bob"]
            await ann.remove_member(BOB.principal)
            await ann.set_member(EVE.principal, "admin")
            async with town.agent(delegated(EVE, CAROL, time.time_ns() + 600 * 10**9)) as for_eve:
                with pytest.raises(ZoneLocked, match="cannot be opened by delegation"):
                    await (await open_zone(for_eve, town.id)).encrypt()
            assert not (await open_zone(ann._door.agent, town.id)).is_encrypted
            await ann.encrypt()
            invitation = await ann.invite(uses=1)
            with pytest.raises(ZoneLocked, match=f"the own key of {BOB.principal}, which a session"):
                await join_zone(agent, town.id, invitation)
            assert BOB.principal not in {m.principal for m in await ann.members()}
            async with town.agent(BOB) as own:
                assert await bodies(await join_zone(own, town.id, invitation)) == [None]
            with pytest.raises(ZoneLocked, match="make the session's identity a member"):
                await open_zone(agent, town.id)

    asyncio.run(go())


def test_a_zone_that_begins_anew_or_goes_back_is_noticed(town: Town, tmp_path: Path) -> None:
    anchors = ZoneAnchors(tmp_path)

    async def opened() -> None:
        async with town.agent(ANN) as agent:
            zone = await open_zone(agent, town.id, anchors=anchors)
            if not zone.is_encrypted:
                await zone.encrypt()
                await zone.post("a", b"x")

    asyncio.run(opened())
    asyncio.run(opened())
    with town.node.agent(town.node.operator) as agent:
        Management(agent).install(town.id, "reinstall", zone_module().hash, zone_argument(ANN.principal))
    with pytest.raises(Unverified, match="shows other keys than before, older ones, or none"):
        asyncio.run(opened())


def test_contents_that_were_swapped_or_changed_are_refused(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.files.put("plain.txt", b"written before the zone had a key")
            await ann.encrypt()
            assert [e.path[:2] for e in await ann.files.entries()] == ["/?"]
            digest = await ann.files.put_attachment(b"x" * 200_000)
            plain = ann._plain
            stored = await ann._door.ask("get_attachment", digest)
            # Somebody without the key puts a changed copy there, whose hash is right.
            sealed, ann._sealed = ann._sealed, plain  # type: ignore[assignment]
            cut = await ann.files.put_attachment(stored[:-10])
            swapped = await ann.files.put_attachment(stored[:70_000] + b"?" + stored[70_001:])
            never = await ann.files.put_attachment(b"never encrypted, and long enough for a head of its own")
            ann._sealed = sealed
            for name, text in ((cut, "changed|missing"), (swapped, "changed"), (never, "not encrypted")):
                with pytest.raises(Uncovered, match=text):
                    await ann.files.read_attachment(name)

    asyncio.run(go())
