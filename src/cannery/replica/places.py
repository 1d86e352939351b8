"""Which subnet a message is for: by its canister's id, by the subnet that it names, by its argument.

The registry is `ReplicaConfig.routes`: ranges of canister ids, each with the subnet that has them. A call of
the management canister goes to the subnet of the canister that it is about; one that makes a canister goes to
the subnet that its argument names, or stays where it is asked. IC interface specification, "Canister and
subnet ids" and "Effective canister id". This module reads no state.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cannery.candid import codec
from cannery.candid.python import Case, Variant, record, type_of, variant
from cannery.errors import DecodeError
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.block import ReplicaConfig, Route

SUBNET_BITS: Final = 40
ROOT: Final = 0
"""The first subnet: what is about the whole node is there."""

CREATIONS: Final = frozenset(
    {"create_canister", "provisional_create_canister_with_cycles", "cannery_create_installed"}
)
"""Methods of the management canister that make a canister."""

ROOT_METHODS: Final = frozenset(
    {
        "cannery_module_add",
        "cannery_module_list",
        "cannery_name_set",
        "cannery_name_list",
        "cannery_operator_add",
        "cannery_operator_remove",
        "cannery_operator_list",
    }
)
"""Methods that are about the whole node: the first subnet has what they read and write."""


@variant
class SubnetChoice(Variant):
    """Where a canister is to be made: on the subnet with the fewest canisters, or on a named one."""

    any: Case[None]
    id: Case[Principal]


@dataclass(frozen=True, slots=True)
class Anywhere:
    """A creation that any subnet may take."""


Place = int | Anywhere | None
"""A subnet's number; any subnet; or None: where the message is."""


@record
class _Creation:
    subnet: SubnetChoice | None = None
    specified_id: Principal | None = None


@record
class _OfCanister:
    canister_id: Principal


@record
class _OfTarget:
    target_canister: Principal


@record
class _OfStore:
    store_canister: Principal


@record
class _OfTargets:
    targets: list[Principal]


@record
class _OfFleet:
    fleet: Principal


Find = Callable[[bytes], list[Principal]]


def _finder(hint: object, field: str | None) -> Find:
    decode = codec.decoder((type_of(hint),))

    def find(arg: bytes) -> list[Principal]:
        value = decode(arg)[0]
        found = value if field is None else getattr(value, field)
        return [
            each for each in (found if isinstance(found, list) else [found]) if isinstance(each, Principal)
        ]

    return find


_BY_CANISTER: Final = _finder(_OfCanister, "canister_id")
_FINDERS: Final[Mapping[str, Find]] = {
    "install_chunked_code": _finder(_OfTarget, "target_canister"),
    "cannery_module_add_chunked": _finder(_OfStore, "store_canister"),
    "cannery_upgrade_many": _finder(_OfTargets, "targets"),
    "cannery_alarm_set": _finder(_OfTargets, "targets"),
    "cannery_status_many": _finder(list[Principal], None),
    "cannery_fleet_info": _finder(Principal, None),
    "cannery_fleet_members": _finder(_OfFleet, "fleet"),
}
_NOWHERE: Final = frozenset(
    {"raw_rand", "http_request", "cannery_cycles", "cannery_subnets", "list_canisters"}
)
_decode_creation: Final = codec.decoder((type_of(_Creation),))


def route_of_subnet(routes: tuple[Route, ...], subnet_id: bytes) -> Route | None:
    """Give the route of the subnet with this principal."""
    return next((route for route in routes if route.subnet_id == subnet_id), None)


def route_of_canister(routes: tuple[Route, ...], canister_id: bytes) -> Route | None:
    """Give the route in whose range a canister id is."""
    counter = keys.canister_counter(canister_id)
    if counter is None:
        return None
    return next((route for route in routes if route.first <= counter <= route.last), None)


def subnet_of(config: ReplicaConfig, canister_id: bytes) -> int:
    """Give the subnet where a canister lives; ids in nobody's range belong to the own subnet, which refuses
    them.
    """
    route = route_of_canister(config.routes, canister_id)
    return config.subnet if route is None else route.subnet


def place_of_management(routes: tuple[Route, ...], method: str, arg: bytes) -> Place:
    """Give the subnet that a call of the management canister is for.

    One about many canisters goes where they are if they are all on one subnet, and else stays where it is.
    """
    if method in ROOT_METHODS:
        return next((route.subnet for route in routes if route.subnet == ROOT), None)
    if method in _NOWHERE:
        return None
    try:
        if method in CREATIONS:
            return _place_of_creation(routes, arg)
        targets = _FINDERS.get(method, _BY_CANISTER)(arg)
    except DecodeError:
        # The method's own refusal says what is wrong with its argument.
        return None
    found = {route_of_canister(routes, target.raw) for target in targets}
    route = found.pop() if len(found) == 1 else None
    return None if route is None else route.subnet


def _place_of_creation(routes: tuple[Route, ...], arg: bytes) -> Place:
    wanted = _decode_creation(arg)[0]
    assert isinstance(wanted, _Creation), "that is the hint"
    route = None
    if wanted.specified_id is not None:
        route = route_of_canister(routes, wanted.specified_id.raw)
    elif wanted.subnet is not None:
        if wanted.subnet.tag == "any":
            return Anywhere()
        assert isinstance(wanted.subnet.id, Principal), "the variant has this case beside any"
        route = route_of_subnet(routes, wanted.subnet.id.raw)
    return None if route is None else route.subnet


def first_counter(subnet: int) -> int:
    """Give the first counter of a subnet's canister ids."""
    return subnet << SUBNET_BITS


def make_route(subnet: int, subnet_id: bytes) -> Route:
    """Give the route of a subnet with all the canister ids that it may give."""
    return Route(first_counter(subnet), first_counter(subnet + 1) - 1, subnet, subnet_id)
