"""Making and finding zones: by the node's factory of zones, which everybody may ask."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cannery.candid.python import record
from cannery.cli.problem import Problem
from cannery.cli.session import Session
from cannery.cli.typed_calls import TypedCanister
from cannery.client.errors import Rejected
from cannery.protocol.principal import Principal, PrincipalError

if TYPE_CHECKING:
    from cannery.apps.zones.factory_types import ZoneInfo

FACTORY_NAME = "zone_factory"
EXIT_FAILED = 1
ATTEMPTS_COUNT_MAX = 10
_BEING_MADE = re.compile(r"is being made; retry after (\d+) s$")


@record
class ZonePlace:
    """What finding a zone needs of the factory's answer: its whole types take long to load."""

    canister: Principal


@dataclass(frozen=True, slots=True)
class CreatedZone:
    """A zone: its id, its canister, who owns it, and whether it was there before."""

    zone_id: str
    canister_id: Principal
    owner: Principal
    was_there: bool


def create_zone(session: Session, zone_id: str) -> CreatedZone:
    """Make the zone of this id for oneself; asking again gives the one that is there."""
    factory = _factory(session)
    if factory is None:
        how = "an operator installs it: cannery app install zones"
        raise Problem(f"{session.agent.url} has no factory of zones; {how}", EXIT_FAILED)
    known = factory.query_option("zone_of", ZonePlace, (zone_id,))
    _check_findable(session, zone_id, known)
    made = _made(session, factory, zone_id)
    return CreatedZone(zone_id, made.canister, made.owner, known is not None)


def _check_findable(session: Session, zone_id: str, known: ZonePlace | None) -> None:
    """See that the zone would be found by its name: canister ids and names of the node come first."""
    try:
        Principal.parse(zone_id)
    except PrincipalError:
        named = session.agent.names().get(zone_id)
    else:
        raise Problem(f"{zone_id} is a canister id, by which no other zone is found: take another name")
    if named is not None and (known is None or named != known.canister):
        raise Problem(
            f"{zone_id} is the name of canister {named} on {session.agent.url}, which comes first: take "
            "another name"
        )


def _made(session: Session, factory: TypedCanister, zone_id: str) -> ZoneInfo:
    from cannery.apps.zones.factory_types import ZoneInfo, ZoneOptions

    for _attempt in range(ATTEMPTS_COUNT_MAX):
        try:
            return factory.call("create_zone", ZoneInfo, (zone_id, None), (str, ZoneOptions | None))
        except Rejected as error:
            # An earlier request of one's own that broke off is still at it.
            under_way = _BEING_MADE.search(error.message)
            if under_way is None:
                raise
        session.line.say("the zone is being made")
        time.sleep(int(under_way[1]))
    raise Problem(f"the zone {zone_id} is still being made; ask again in a moment", EXIT_FAILED)


def find_zone(session: Session, text: str) -> Principal:
    """Find a zone: by canister id, by a name that the node knows, or by its id at the factory."""
    try:
        return Principal.parse(text)
    except PrincipalError:
        found = session.agent.names().get(text)
    if found is not None:
        return found
    factory = _factory(session)
    found_place = None if factory is None else factory.query_option("zone_of", ZonePlace, (text,))
    if found_place is None:
        raise Problem(f"there is no zone {text!r} on {session.agent.url}; make it: cannery zone create NAME")
    return found_place.canister


def _factory(session: Session) -> TypedCanister | None:
    found = session.agent.names().get(FACTORY_NAME)
    return None if found is None else TypedCanister(session.agent, found)
