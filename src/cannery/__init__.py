"""Cannery: small durable servers in Python, one for every user, group or zone.

Authors of canisters import from here. A name is loaded when it is first asked for, so that the lower floors
do not load the kit.
"""

from __future__ import annotations

from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cannery.candid.python import (
        Case,
        FuncRef,
        Results,
        ServiceRef,
        Some,
        Variant,
        empty,
        field,
        float32,
        func_of,
        int8,
        int16,
        int32,
        int64,
        nat,
        nat8,
        nat16,
        nat32,
        nat64,
        record,
        reserved,
        service_of,
        variant,
    )
    from cannery.cdk.calls import Call, Outcome, Pending, RawOutcome, encode_args
    from cannery.cdk.context import Context
    from cannery.cdk.declare import (
        Canister,
        composite_query,
        continuation,
        health,
        init,
        inspect_message,
        post_upgrade,
        pre_upgrade,
        query,
        timer,
        update,
    )
    from cannery.cdk.delivery import Attempt, Delivery, DeliveryFull
    from cannery.cdk.event_request import EventRequest
    from cannery.cdk.guards import (
        Guard,
        any_of,
        controller,
        index,
        itself,
        operator,
        owner,
        role,
        same_fleet,
    )
    from cannery.cdk.inbox import Batch, Inbox
    from cannery.cdk.message_log import Appended, LogItem, LogPage, LogRule, MessageLog, WhenFull
    from cannery.cdk.pages import Page
    from cannery.cdk.service import Service, method
    from cannery.cdk.stable_cell import StableCell
    from cannery.cdk.stable_log import StableLog
    from cannery.cdk.stable_map import StableMap, StableSet
    from cannery.cdk.topic_log import TopicLog
    from cannery.cdk.topic_records import TopicLogFull, TopicMessage
    from cannery.errors import Reject, Trap
    from cannery.protocol.principal import Principal

__all__ = [
    "Appended",
    "Attempt",
    "Batch",
    "Call",
    "Canister",
    "Case",
    "Context",
    "Delivery",
    "DeliveryFull",
    "EventRequest",
    "FuncRef",
    "Guard",
    "Inbox",
    "LogItem",
    "LogPage",
    "LogRule",
    "MessageLog",
    "Outcome",
    "Page",
    "Pending",
    "Principal",
    "RawOutcome",
    "Reject",
    "Results",
    "Service",
    "ServiceRef",
    "Some",
    "StableCell",
    "StableLog",
    "StableMap",
    "StableSet",
    "TopicLog",
    "TopicLogFull",
    "TopicMessage",
    "Trap",
    "Variant",
    "WhenFull",
    "any_of",
    "composite_query",
    "continuation",
    "controller",
    "empty",
    "encode_args",
    "field",
    "float32",
    "func_of",
    "health",
    "index",
    "init",
    "inspect_message",
    "int8",
    "int16",
    "int32",
    "int64",
    "itself",
    "method",
    "nat",
    "nat8",
    "nat16",
    "nat32",
    "nat64",
    "operator",
    "owner",
    "post_upgrade",
    "pre_upgrade",
    "query",
    "record",
    "reserved",
    "role",
    "same_fleet",
    "service_of",
    "timer",
    "update",
    "variant",
]

_HOMES = MappingProxyType(
    {
        "cannery.candid.python": "Case FuncRef Results ServiceRef Some Variant empty field float32 func_of "
        "int8 int16 int32 int64 nat nat8 nat16 nat32 nat64 record reserved service_of variant",
        "cannery.cdk.calls": "Call Outcome Pending RawOutcome encode_args",
        "cannery.cdk.context": "Context",
        "cannery.cdk.declare": "Canister composite_query continuation health init inspect_message "
        "post_upgrade pre_upgrade query timer update",
        "cannery.cdk.delivery": "Attempt Delivery DeliveryFull",
        "cannery.cdk.event_request": "EventRequest",
        "cannery.cdk.guards": "Guard any_of controller index itself operator owner role same_fleet",
        "cannery.cdk.inbox": "Batch Inbox",
        "cannery.cdk.message_log": "Appended LogItem LogPage LogRule MessageLog WhenFull",
        "cannery.cdk.pages": "Page",
        "cannery.cdk.service": "Service method",
        "cannery.cdk.stable_cell": "StableCell",
        "cannery.cdk.stable_log": "StableLog",
        "cannery.cdk.stable_map": "StableMap StableSet",
        "cannery.cdk.topic_log": "TopicLog",
        "cannery.cdk.topic_records": "TopicLogFull TopicMessage",
        "cannery.errors": "Reject Trap",
        "cannery.protocol.principal": "Principal",
    }
)
_HOME_OF = MappingProxyType({name: home for home, names in _HOMES.items() for name in names.split()})


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'cannery' has no attribute {name!r}")
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value
