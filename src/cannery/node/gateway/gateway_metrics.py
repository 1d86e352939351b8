"""The counters of one gateway process as Prometheus text; each series says which gateway it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from cannery.node.metrics import Labels, render_family
from cannery.node.process_life import process_memory_bytes


@dataclass(frozen=True, slots=True)
class EventCounts:
    """Events connections and what went over them."""

    connections: int = 0
    subscriptions: int = 0
    sent: int = 0
    gaps: int = 0


@dataclass(frozen=True, slots=True)
class GatewayCounts:
    """What one gateway process has counted; `requests` by kind of request and HTTP status."""

    requests: Mapping[tuple[str, int], int]
    round_signatures: int
    rate_limited_addresses: int
    rate_limited_principals: int
    known_delegations: int
    bodies_in_memory_bytes: int
    spool_bytes: int
    spool_files: int
    events: EventCounts


def render_gateway(gateway: int, counts: GatewayCounts) -> str:
    """Give the text for the gateway with this number."""
    who = ("gateway", str(gateway))
    by_verb: dict[Labels, float] = {
        (who, ("verb", verb), ("status", str(status))): count
        for (verb, status), count in sorted(counts.requests.items())
    }
    numbers = (
        ("round_signatures_total", "Signatures of rounds.", counts.round_signatures),
        ("rate_limited_addresses_total", "Requests refused to an address.", counts.rate_limited_addresses),
        ("rate_limited_principals_total", "Requests refused to a principal.", counts.rate_limited_principals),
        ("known_delegations", "Delegations whose signature is known.", counts.known_delegations),
        ("bodies_in_memory_bytes", "Large bodies in memory.", counts.bodies_in_memory_bytes),
        ("spool_bytes", "Size of the spool.", counts.spool_bytes),
        ("spool_files", "Files in the spool.", counts.spool_files),
        ("event_connections", "WebSocket connections for events.", counts.events.connections),
        ("event_subscriptions", "Subscriptions to events of canisters.", counts.events.subscriptions),
        ("events_sent_total", "Events sent, counted for each who got one.", counts.events.sent),
        ("event_gaps_total", "Gaps told: events that had left a canister's log.", counts.events.gaps),
        ("process_memory_bytes", "Memory of the process.", process_memory_bytes(os.getpid())),
    )
    parts = [render_family("cannery_gateway_requests_total", "counter", "Requests answered.", by_verb)]
    for name, help_text, value in numbers:
        kind = "counter" if name.endswith("_total") else "gauge"
        parts.append(render_family(f"cannery_gateway_{name}", kind, help_text, {(who,): value}))
    return "".join(parts)
