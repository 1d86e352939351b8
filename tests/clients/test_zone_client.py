"""A zone on a running node through the Python client: topics, history, live messages, files, refusals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cannery.apps.zones.contract import address_of
from cannery.candid.values import Variant
from cannery.client.zone import open_zone
from cannery.client.zone_blocking import blocking_zone
from cannery.client.zone_files import NotThere
from cannery.client.zone_history import FetchState
from cannery.client.zone_values import BadTopic, Message, Missing, NoZone, ZoneRefused
from cannery.protocol.identity import Secp256k1Identity
from cannery.protocol.principal import Principal
from tests.apps.zones.evm_world import chain
from tests.clients.zone_town import ANN, BOB, EVE, Town
from tests.docs.transcript import blocks_of
from tests.node_under_test import ROOT, NodeUnderTest
from tests.waiting import NEVER_S


@pytest.fixture
def town(running_node: NodeUnderTest) -> Town:
    return Town(running_node)


def texts(messages: list[Message]) -> list[tuple[int, str, str]]:
    return [(m.id, m.topic, (m.body or b"").decode()) for m in messages]


async def take(items: AsyncIterator[Message | Missing], count: int) -> list[Message | Missing]:
    async with asyncio.timeout(NEVER_S):
        return [await anext(items) for _ in range(count)]


def test_peers_write_and_catch_up_on_many_topics(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann, town.joined(BOB) as bob:
            assert await ann.post("lunch", b"at noon?") == 1
            more = [("lunch", b"yes"), ("plans/2026", b"draft"), (b"k" * 41, b"raw")]
            assert await bob.post_many(more) == [2, 3, 4]
            fetch = ann.history()
            found = texts(await fetch.all())
            key = "k" * 41
            assert found == [
                (1, "lunch", "at noon?"),
                (2, "lunch", "yes"),
                (3, "plans/2026", "draft"),
                (4, key, "raw"),
            ]
            assert (fetch.state, fetch.newest) == (FetchState.DONE, 4)
            fetch = bob.history(["lunch", "plans/2026"], newest_first=True, limit=2)
            assert texts(await fetch.all()) == [(3, "plans/2026", "draft"), (2, "lunch", "yes")]
            assert texts(await bob.history(["plans/2026", "lunch"], per_topic=1).all()) == [
                (3, "plans/2026", "draft"),
                (1, "lunch", "at noon?"),
            ]
            without = await bob.history(["lunch"], bodies=False).all()
            assert [(m.body, m.fault, m.size) for m in without] == [
                (None, "left out", 8),
                (None, "left out", 3),
            ]
            since = without[1].at_ns
            assert [m.id for m in await bob.history(["lunch"], times_ns=(since, 2**64 - 1)).all()] == [2]
            assert [(t.topic, t.count) for t in await bob.topics()] == [
                (key, 1),
                ("lunch", 2),
                ("plans/2026", 1),
            ]
            assert await bob.acknowledge(3) == 4
            roles = {m.principal: (m.role, m.unread_from) for m in await ann.members()}
            assert roles == {ANN.principal: ("owner", 1), BOB.principal: ("member", 4)}
            assert (await bob.usage()).next_id == 5

    asyncio.run(go())


def test_a_fetch_ends_in_done_gap_or_refused(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann, town.as_(EVE) as eve:
            rules = await ann.retention()
            await ann.set_retention(replace(rules, messages=replace(rules.messages, count_max=2)))
            for i in range(5):
                await ann.post("a", b"%d" % i)
            for fetch in (ann.history(), ann.history(["a"]), ann.history(["a"], newest_first=True)):
                assert fetch.state == FetchState.FETCHING
                assert sorted(m.id for m in await fetch.all()) == [4, 5]
                assert fetch.state == FetchState.GAP
                assert [(gap.first, gap.last) for gap in fetch.gaps] == [(1, 3)]
            fetch = eve.history()
            with pytest.raises(ZoneRefused, match="Not a member of the zone") as refused:
                await fetch.all()
            assert refused.value.retry_after_s is None
            assert (fetch.state, fetch.reason) == (FetchState.REFUSED, str(refused.value))
            messages = ann.history().messages()
            await anext(messages)
            await messages.aclose()
            fetch = ann.history(["a"] * 3)
            broken = fetch.messages()
            await anext(broken)
            await broken.aclose()
            assert (fetch.state, fetch.reason) == (FetchState.REFUSED, "the fetch was broken off")

    asyncio.run(go())


def test_what_is_gone_is_told_as_far_as_one_asked(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            rules = await ann.retention()
            await ann.set_retention(replace(rules, messages=replace(rules.messages, count_max=2)))
            await ann.post_many([("a", b"%d" % i) for i in range(2)])
            for i in range(8):
                await ann.post("a", b"more %d" % i)
            for fetch in (ann.history(first_id=2, last_id=5), ann.history(["a"], first_id=2, last_id=5)):
                assert await fetch.all() == []
                assert [(gap.first, gap.last) for gap in fetch.gaps] == [(2, 5)]

    asyncio.run(go())


def test_live_messages_of_more_topics_than_one_request_takes_come_in_order(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            names = [f"t{n}" for n in range(300)]
            await ann.post_many([("other", b"x"), *((name, b"x") for name in reversed(names))])
            async with aclosing(ann.live(names, after=0)) as live:
                found = await take(live, 300)
            assert [m.id for m in found] == list(range(2, 302))  # type: ignore[union-attr]
            assert {m.topic for m in found} == set(names)

    asyncio.run(go())


def test_more_topics_than_one_request_takes_are_asked_for_in_groups(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            names = [f"t{n}" for n in range(1_100)]
            for start in (0, 550):
                await ann.post_many([(name, name.encode()) for name in names[start : start + 550]])
            fetch = ann.history(names)
            assert [m.topic for m in await fetch.all()] == names
            assert fetch.state == FetchState.DONE
            assert len(await ann.topics()) == 1_100

    asyncio.run(go())


def test_live_brings_what_was_there_and_what_comes_each_once(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann, town.joined(BOB) as bob:
            await ann.post_many([("a", b"1"), ("b", b"2")])
            everything, only_b = bob.live(after=0), bob.live(["b"], after=0)
            assert [m.id for m in await take(everything, 2)] == [1, 2]  # type: ignore[union-attr]
            await ann.post("a", bytes(20_000))
            await ann.post("b", b"4")
            found = await take(everything, 2)
            assert [(m.id, len(m.body)) for m in found] == [(3, 20_000), (4, 1)]  # type: ignore[union-attr,arg-type]
            assert [m.id for m in await take(only_b, 2)] == [2, 4]  # type: ignore[union-attr]
            await ann.remove_member(BOB.principal)
            with pytest.raises(ZoneRefused, match="Not a member of the zone"):
                await take(everything, 1)
            await only_b.aclose()

    asyncio.run(go())


def test_files_and_attachments_go_in_chunks_and_come_back_whole(town: Town, tmp_path: Path) -> None:
    async def go() -> None:
        large = bytes(range(256)) * 10_000
        steps: list[tuple[int, int]] = []
        async with town.as_(ANN) as ann, town.joined(BOB) as bob:
            info = await ann.files.put(
                "/plans/2026/large.bin", large, on_progress=lambda *at: steps.append(at)
            )
            assert (info.path, info.size) == ("/plans/2026/large.bin", len(large))
            assert steps[0] == (0, len(large))
            assert steps[-1] == (len(large), len(large))
            await bob.files.put("notes.txt", b"first")
            await bob.files.put("notes.txt", b"second")
            assert [(e.path, e.is_directory) for e in await bob.files.entries()] == [
                ("/plans", True),
                ("/notes.txt", False),
            ]
            assert [e.path for e in await bob.files.entries("plans/2026/")] == ["/plans/2026/large.bin"]
            assert await bob.files.read("/notes.txt") == b"second"
            longest = tmp_path / ("l" * 255)
            await bob.files.get("plans/2026/large.bin", longest, on_progress=lambda *at: None)
            assert longest.read_bytes() == large
            digest = await bob.files.put_attachment(large)
            assert await ann.files.put_attachment(large) == digest
            assert await ann.files.read_attachment(digest) == large
            assert (await ann.usage()).attachments.count == 1
            await ann.files.delete("/notes.txt")
            for missing in ("/notes.txt", "/plans/2025/x", "/plans", "/"):
                with pytest.raises(NotThere):
                    await ann.files.read(missing)
            with pytest.raises(NotThere, match=r"^/plans/2026 is a directory: name a file in it$"):
                await ann.files.put("/plans/2026", b"1")
            with pytest.raises(NotThere, match=r"^/plans/2026/large.bin is a file, and no directory$"):
                await ann.files.put("/plans/2026/large.bin/x", b"1")
            with pytest.raises(NotThere, match="goes down from the root"):
                await ann.files.put("../x", b"1")
            with pytest.raises(ZoneRefused, match="no empty contents"):
                await ann.files.put("empty", b"")

    asyncio.run(go())


def test_who_is_removed_in_mid_download_gets_no_more_and_leaves_no_half_file(
    town: Town, tmp_path: Path
) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann, town.joined(BOB) as bob:
            await ann.files.put("large.bin", bytes(12_000_000))
            removing: list[asyncio.Future[bool]] = []

            def on_progress(done: int, in_all: int) -> None:
                if done and not removing:
                    removing.append(asyncio.ensure_future(ann.remove_member(BOB.principal)))

            with pytest.raises(ZoneRefused, match="Not a member of the zone"):
                await bob.files.get("large.bin", tmp_path / "large.bin", on_progress=on_progress)
            assert await removing[0]
            assert list(tmp_path.iterdir()) == []

    asyncio.run(go())


def test_strangers_are_refused_everywhere(town: Town) -> None:
    async def go() -> None:
        async with town.as_(EVE) as eve:
            assert await eve.role() == 0
            for act in (
                lambda: eve.post("a", b"x"),
                lambda: eve.usage(),
                lambda: eve.members(),
                lambda: eve.invite(),
                lambda: eve.acknowledge(1),
                lambda: eve.files.entries(),
                lambda: eve.files.put("x", b"y"),
                lambda: take(eve.live(after=0), 1),
                lambda: eve.remove_member(ANN.principal),
            ):
                with pytest.raises(ZoneRefused, match="Not a member of the zone"):
                    await act()  # type: ignore[no-untyped-call]

    asyncio.run(go())


def test_a_canister_that_is_no_zone_is_told(town: Town) -> None:
    other = Principal.parse("5v3p4-iyaaa-aaaaa-qaaaa-cai")

    async def go() -> None:
        async with town.agent(ANN) as agent:
            with pytest.raises(NoZone, match=f"canister {other} is no zone: it has no method"):
                await open_zone(agent, other)

    asyncio.run(go())


def test_bad_input_is_told_before_it_is_sent(town: Town) -> None:
    async def go() -> None:
        async with town.as_(ANN) as ann:
            for topic in ("", "x" * 42, "a\x00b", b"short"):
                with pytest.raises(BadTopic, match="bytes"):
                    await ann.post(topic, b"x")
            with pytest.raises(BadTopic, match="its name is text in UTF-8"):
                await ann.post("\udcff", b"x")
            with pytest.raises(NotThere, match="its names are text in UTF-8"):
                await ann.files.put("\udcff", b"x")
            with pytest.raises(BadTopic, match="at least one topic"):
                ann.history([])
            with pytest.raises(BadTopic, match="all topics are read by id"):
                ann.history(newest_first=True)
            with pytest.raises(ZoneRefused, match="below your own"):
                await ann.invite("owner")
            await ann.post("a", b"x")
            fetch = ann.history(["a"], first_id=9, last_id=3)
            with pytest.raises(ZoneRefused, match="reversed"):
                await fetch.all()
            assert fetch.state == FetchState.REFUSED

    asyncio.run(go())


def test_the_example_of_the_guide(town: Town, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = [b for b in blocks_of((ROOT / "docs" / "client.md").read_text(), "python") if "join_zone" in b]
    names: dict[str, Any] = {}
    exec(block, names)
    monkeypatch.setenv("CANNERY_HOME", str(tmp_path))

    async def go() -> None:
        async with town.as_(ANN) as ann:
            await ann.encrypt()
            invitation = str(await ann.invite())
            following = asyncio.ensure_future(names["follow"](town.node.url, BOB, town.id, invitation))
            async with asyncio.timeout(NEVER_S), aclosing(ann.live(after=0)) as news:
                assert (await anext(news)).body == b"at noon?"  # type: ignore[union-attr]
                await ann.post("plans", b"draft")
                while {m.principal: m.unread_from for m in await ann.members()}[BOB.principal] != 3:
                    await asyncio.sleep(0)
            following.cancel()

    asyncio.run(go())
    assert (tmp_path / "zones.json").stat().st_mode & 0o777 == 0o600


def test_the_blocking_door(town: Town) -> None:
    node = town.node
    with blocking_zone(node.url, ANN, town.id, root_key=node.root_key) as door:
        assert door.run(lambda zone: zone.post_many([("a", b"1"), ("b", b"2")])) == [1, 2]
        assert texts(door.run(lambda zone: zone.history(["b"]).all())) == [(2, "b", "2")]
        assert [m.id for m in door.each(lambda zone: zone.history().messages())] == [1, 2]
        news = door.each(lambda zone: zone.live(after=1))
        assert next(news).id == 2  # type: ignore[union-attr]
        news.close()  # type: ignore[attr-defined]
        with pytest.raises(ZoneRefused, match="below your own"):
            door.run(lambda zone: zone.invite("owner"))


def test_whoever_a_contract_names_needs_no_invitation(start_node: Callable[..., NodeUnderTest]) -> None:
    """A key of the chain's kind goes with the question: the contract knows addresses alone."""
    peer, other = Secp256k1Identity(bytes([7]) * 32), Secp256k1Identity(bytes([8]) * 32)
    with chain() as evm:
        town = Town(start_node(settings=f"[outcalls]\nallow = ['http://127.0.0.1:{evm.port}']\n"))
        evm.set_role(address_of(peer.public_key_der[-65:]), 300)
        contract = {"url": f"http://127.0.0.1:{evm.port}", "contract": bytes.fromhex(evm.contract[2:])}
        times = {"member_ttl_ns": 10**12, "stranger_ttl_ns": 10**12, "outage_retry_ns": 10**9}

        async def go() -> None:
            async with town.as_(ANN) as ann, town.agent(peer) as agent, town.agent(other) as stranger:
                provider = {"kind": Variant("evm", contract), **times, "stale_ns_max": None, "role_max": 400}
                await ann._door.tell("set_provider", provider)
                zone = await open_zone(agent, town.id)
                assert await zone.post("a", b"from the chain") == 1
                with pytest.raises(ZoneRefused, match="Not a member of the zone"):
                    await (await open_zone(stranger, town.id)).usage()

        asyncio.run(go())
