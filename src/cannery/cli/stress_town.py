"""What is set up for a stress run: zones with chats full of messages, clients who are their members.

A chat is a topic of one zone, or a zone of its own with one topic. There may be more chats than one client
has: each client has some of them, by chance, as people share groups. Everything is brought over the node's
public interface, and taken away afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from cannery.apps import zones
from cannery.apps.zones import bounds
from cannery.apps.zones.diode_types import ZoneInit
from cannery.apps.zones.mailbox import CONTENT_RULE, MESSAGE_RULE
from cannery.apps.zones.retention import RetentionRules, ZoneUsage
from cannery.apps.zones.roles import Role
from cannery.candid.codec import encoder
from cannery.candid.python import nat32, nat64, type_of
from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.cli.problem import Problem
from cannery.cli.session import Session
from cannery.cli.stress_load import Visit, run_load
from cannery.cli.stress_requests import Signer, encode_posts
from cannery.cli.typed_calls import TypedCanister
from cannery.protocol.identity import Ed25519Identity, Identity
from cannery.protocol.principal import Principal

POST_COUNT: Final = 500
POST_SIZE_BYTES: Final = 1_000_000
INVITATION_S: Final = 3_600
SETUP_CONNECTIONS: Final = 32
SETUP_TIMEOUT_S: Final = 60.0
# What a message takes in a zone beside its own bytes, and somewhat more.
OVERHEAD_SIZE_BYTES: Final = 200
EXIT_FAILED: Final = 1

_found = encoder((type_of(ZoneInit),))
_join = encoder((type_of(bytes),))


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat: its zone and its key there."""

    zone: Principal
    key: bytes


@dataclass(frozen=True, slots=True)
class Town:
    """Zones, chats, and the clients with the chats that each has."""

    zones: list[Principal]
    clients: list[Identity]
    chats_of: list[list[Chat]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a town is: `pool` chats in all, of which each client has `chats`."""

    clients: int
    chats: int
    messages: int
    message_size_bytes: int
    pool: int
    apart: bool
    """Whether each chat is a zone of its own."""


def build_town(
    session: Session, operator: Identity, signer: Signer, sizes: Sizes, made: list[Principal], seed: int = 0
) -> Town:
    """Make zones, let the clients join, and post all messages; `made` names each zone once it is there."""
    chance = random.Random(seed)
    clients: list[Identity] = [Ed25519Identity(chance.randbytes(32)) for _ in range(sizes.clients)]
    make_zones(session, sizes.pool if sizes.apart else 1, made)
    if not sizes.apart:
        _make_room(session, made[0], sizes)
    keys = [number.to_bytes(bounds.KEY_ID_SIZE_BYTES, "big") for number in range(sizes.pool)]
    chats = [Chat(made[place if sizes.apart else 0], key) for place, key in enumerate(keys)]
    chats_of = [chance.sample(chats, sizes.chats) for _ in clients]
    town = Town(made, clients, chats_of)
    session.line.say("clients join")
    join_all(session, signer, town)
    _post_all(session, operator, signer, chats, sizes, chance)
    _check(session, town, sizes)
    return town


def remove_town(session: Session, town_zones: Sequence[Principal]) -> None:
    """Take the zones away."""
    management = Management(session.agent)
    for number, zone in enumerate(town_zones):
        session.line.say(f"taking away zone {number + 1} of {len(town_zones)}")
        management.stop(zone, force=True)
        management.delete(zone)


def make_zones(session: Session, count: int, made: list[Principal]) -> None:
    """Make zones that the session's identity owns, and name each in `made` once it is there."""
    built = build_file(str(Path(next(iter(zones.__path__))) / "zone.py"))
    management = Management(session.agent)
    management.module_bring(built.module, built.hash)
    for number in range(count):
        session.line.say(f"making zone {number + 1} of {count}")
        about = ZoneInit(f"stress-{number}", "", "", Principal.management(), None, None)
        zone = management.create(None, None)
        made.append(zone)
        management.install(zone, "install", built.hash, _found((about,)))


def _make_room(session: Session, zone: Principal, sizes: Sizes) -> None:
    """Let a zone keep all messages, where they are more than zones keep unless told."""
    count = sizes.pool * sizes.messages
    size = count * (sizes.message_size_bytes + OVERHEAD_SIZE_BYTES)
    if count > MESSAGE_RULE.count_max or size > MESSAGE_RULE.bytes_max:
        rules = RetentionRules(
            replace(MESSAGE_RULE, count_max=count, bytes_max=size), CONTENT_RULE, CONTENT_RULE
        )
        TypedCanister(session.agent, zone).call_for_effect("set_retention", (rules,))


def join_all(session: Session, signer: Signer, town: Town) -> None:
    """Make each client a member of the zones of its chats."""
    wanted: dict[Principal, list[Identity]] = {zone: [] for zone in town.zones}
    for client, chats in zip(town.clients, town.chats_of, strict=True):
        for zone in {chat.zone: None for chat in chats}:
            wanted[zone].append(client)
    requests = []
    for zone, members in wanted.items():
        for begin in range(0, len(members), bounds.INVITATION_USE_COUNT_MAX):
            some = members[begin : begin + bounds.INVITATION_USE_COUNT_MAX]
            invited = (Role.member(), len(some), INVITATION_S)
            code = TypedCanister(session.agent, zone).call("invite", bytes, invited, (Role, nat32, nat64))
            requests += [signer.sign("call", zone, "join", _join((code,)), member) for member in some]
    send_all(signer, requests)


def _post_all(
    session: Session,
    operator: Identity,
    signer: Signer,
    chats: list[Chat],
    sizes: Sizes,
    chance: random.Random,
) -> None:
    """Post as people do, in turn in all chats; only what goes to one zone goes together."""
    requests: list[bytes] = []
    posted, in_all = 0, len(chats) * sizes.messages
    for zone, batch in _batches(chats, sizes, chance):
        requests.append(signer.sign("call", zone, "add_messages", encode_posts((batch,)), operator))
        posted += len(batch)
        if len(requests) == SETUP_CONNECTIONS * 4:
            send_all(signer, requests)
            requests = []
            session.line.say(f"{posted} of {in_all} messages posted")
    send_all(signer, requests)


def _batches(
    chats: list[Chat], sizes: Sizes, chance: random.Random
) -> Iterator[tuple[Principal, list[tuple[bytes, bytes]]]]:
    count = max(1, min(POST_COUNT, POST_SIZE_BYTES // (sizes.message_size_bytes + bounds.KEY_ID_SIZE_BYTES)))
    by_zone: dict[Principal, list[Chat]] = {}
    for chat in chats:
        by_zone.setdefault(chat.zone, []).append(chat)
    for zone, some in by_zone.items():
        batch: list[tuple[bytes, bytes]] = []
        for _ in range(sizes.messages):
            for chat in some:
                batch.append((chat.key, chance.randbytes(sizes.message_size_bytes)))
                if len(batch) == count:
                    yield zone, batch
                    batch = []
        if batch:
            yield zone, batch


def send_all(signer: Signer, requests: list[bytes]) -> None:
    """Send requests over some connections, and see that all of them succeed."""
    if not requests:
        return
    visits = [Visit(requests[place::SETUP_CONNECTIONS]) for place in range(SETUP_CONNECTIONS)]
    load = run_load(
        signer.address,
        [visit for visit in visits if visit.requests],
        spread_s=0,
        timeout_s=SETUP_TIMEOUT_S,
    )
    for ended in load.visits:
        if ended.failure is not None:
            raise Problem(f"the chats could not be set up: {ended.failure}", EXIT_FAILED)


def count_stored(session: Session, town: Town) -> int:
    """Ask the zones how many messages they hold."""
    return sum(
        TypedCanister(session.agent, zone).query("usage", ZoneUsage).messages.count for zone in town.zones
    )


def _check(session: Session, town: Town, sizes: Sizes) -> None:
    """See that everything is there: replies of the zone to posts were not looked into."""
    stored, wanted = count_stored(session, town), sizes.pool * sizes.messages
    if stored != wanted:
        raise Problem(f"the zones hold {stored} messages instead of {wanted}", EXIT_FAILED)
