"""The node's subnets, as one of them knows them: for those who choose where a canister is made."""

from __future__ import annotations

from cannery.candid.python import nat64, record
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.access import anyone
from cannery.replica.management.methods import Method, status_method
from cannery.replica.management.request import Request
from cannery.replica.records import PEER


@record
class SubnetInfo:
    """A subnet, and the canister ids that it gives; `canister_count` is exact for the one that answers, and
    as old as the last message for the others.
    """

    subnet_id: Principal
    first_canister: Principal
    last_canister: Principal
    canister_count: nat64
    answers: bool


def _subnets(request: Request, _args: None) -> list[SubnetInfo]:
    config = request.config
    found: list[SubnetInfo] = []
    for route in config.routes:
        is_own = route.subnet == config.subnet
        if is_own:
            count = request.state.subnet().canister_count
        else:
            data = request.reader.get(keys.peer_key(route.subnet))
            count = 0 if data is None else PEER.decode(data).canister_count
        first, last = (Principal(keys.canister_id(counter)) for counter in (route.first, route.last))
        found.append(SubnetInfo(Principal(route.subnet_id), first, last, count, is_own))
    return found


METHODS: tuple[Method, ...] = (status_method("cannery_subnets", None, list[SubnetInfo], anyone, _subnets),)
