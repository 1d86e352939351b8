"""Names of canisters in this node, set by operators: what `GET /cannery.json` and the command line show."""

from __future__ import annotations

import re

from cannery.errors import Reject, RejectCode
from cannery.limits import CANISTER_NAME_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.access import anyone, operators
from cannery.replica.management.methods import Method, query_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.types import NamedCanister, NameSetArgs
from cannery.replica.places import subnet_of
from cannery.replica.state import MessageOverlay

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def forget_names(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove the names of a canister that goes."""
    for key, named in list(message.scan(*keys.space_range(keys.NAMES))):
        if named == canister_id:
            message.put(key, None)


def _set(change: Change, args: NameSetArgs) -> None:
    if not _NAME.fullmatch(args.name):
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"{args.name!r:.100} is no name: use 1 to 64 of letters, digits, '_', '-' and '.'",
            "IC0406",
        )
    message, key = change.message, keys.hashed(keys.NAMES, args.name.encode())
    if args.canister_id is None:
        message.put(key, None)
        return
    config = change.request.config
    if subnet_of(config, args.canister_id.raw) == config.subnet:
        change.canister(args.canister_id.raw)
    if message.get(key) is None:
        count = sum(1 for _ in message.scan(*keys.space_range(keys.NAMES)))
        if count >= CANISTER_NAME_COUNT_MAX:
            raise Reject(
                RejectCode.CANISTER_REJECT, f"This node has {count} names, as many as it may", "IC0406"
            )
    message.put(key, args.canister_id.raw)


def _list(request: Request, _args: None) -> list[NamedCanister]:
    stored = request.reader.scan(*keys.space_range(keys.NAMES))
    return [NamedCanister(key[1:].decode(), Principal(canister_id)) for key, canister_id in stored]


METHODS: tuple[Method, ...] = (
    update_method("cannery_name_set", NameSetArgs, None, operators, _set),
    query_method("cannery_name_list", None, list[NamedCanister], anyone, _list),
)
