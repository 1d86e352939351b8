"""The counters of a node's gateway processes as Prometheus text, whichever of them answers.

Each series says by `gateway` which process it is of: sums over it are the node's, and it shows where a
process fares unlike the others. Its values are the gateways' numbers, and so bounded; a process that was
started again goes on with the counters of its predecessor.
"""

from __future__ import annotations

from typing import Final

from cannery.limits import GATEWAY_SILENT_NS_MAX
from cannery.node.gateway.tally_page import COUNTERS, GAUGES, VERBS, Tallies, TallyPage
from cannery.node.metrics import SECONDS_BUCKETS, Labels, render_family, render_histograms
from cannery.node.process_life import process_memory_bytes

_PREFIX: Final = "cannery_gateway_"
_NS_PER_S: Final = 1_000_000_000
_HELPS: Final = {
    "round_signatures_total": "Signatures of rounds.",
    "rate_limited_addresses_total": "Requests refused to an address.",
    "rate_limited_principals_total": "Requests refused to a principal.",
    "rate_limited_refused_calls_total": (
        "Calls not heard because the canister had refused too many from that address."
    ),
    "events_sent_total": "Events sent, counted for each who got one.",
    "event_gaps_total": "Gaps told: events that had left a canister's log.",
    "connections": "HTTP connections.",
    "known_delegations": "Delegations whose signature is known.",
    "bodies_in_memory_bytes": "Large bodies in memory.",
    "spool_bytes": "Size of what the process keeps in the spool.",
    "spool_files": "Files that the process keeps in the spool.",
    "event_connections": "WebSocket connections for events.",
    "event_subscriptions": "Subscriptions to events of canisters.",
}

_Told = list[tuple[tuple[str, str], TallyPage]]


def render_gateways(tallies: Tallies, now_ns: int) -> str:
    """Give the text for all gateways; `now_ns` is the machine's monotonic time."""
    told: _Told = [
        (("gateway", str(number)), page) for number, page in enumerate(tallies.pages) if page.is_known
    ]
    up: dict[Labels, float] = {
        (("gateway", str(number)),): int(is_up(page, now_ns)) for number, page in enumerate(tallies.pages)
    }
    starts: dict[Labels, float] = {(who,): page.starts for who, page in told}
    memory: dict[Labels, float] = {(who,): process_memory_bytes(page.pid) for who, page in told}
    parts = [
        render_family(f"{_PREFIX}up", "gauge", "1 while the process shows that it is alive.", up),
        render_family(f"{_PREFIX}starts_total", "counter", "Starts of the process.", starts),
        render_family(f"{_PREFIX}process_memory_bytes", "gauge", "Memory of the process.", memory),
        _render_requests(told),
    ]
    for name in (*COUNTERS, *GAUGES):
        kind = "counter" if name.endswith("_total") else "gauge"
        samples: dict[Labels, float] = {(who,): page.named(name) for who, page in told}
        parts.append(render_family(f"{_PREFIX}{name}", kind, _HELPS[name], samples))
    return "".join(parts)


def _render_requests(told: _Told) -> str:
    kinds = [(who, page, verb) for who, page in told for verb in VERBS]
    answered: dict[Labels, float] = {
        (who, ("verb", verb), ("status", str(status))): count
        for who, page, verb in kinds
        for status, count in page.answered(verb)
    }
    timeouts: dict[Labels, float] = {
        (who, ("verb", verb)): count for who, page, verb in kinds if (count := page.timeouts(verb))
    }
    refusals: dict[Labels, float] = {
        (who, ("verb", verb), ("reason", reason)): count
        for who, page, verb in kinds
        for reason, count in page.refusals(verb)
    }
    seconds: dict[Labels, tuple[list[int], float]] = {}
    for who, page, verb in kinds:
        buckets, sum_ns = page.durations(verb)
        if any(buckets):
            seconds[who, ("verb", verb)] = buckets, sum_ns / _NS_PER_S
    return "".join(
        (
            render_family(f"{_PREFIX}requests_total", "counter", "Requests answered.", answered),
            render_family(f"{_PREFIX}timeouts_total", "counter", "Requests not answered in time.", timeouts),
            render_family(f"{_PREFIX}refusals_total", "counter", "Requests refused.", refusals),
            render_histograms(
                f"{_PREFIX}request_seconds", "From request to answer.", SECONDS_BUCKETS, seconds
            ),
        )
    )


def show_gateways(tallies: Tallies, now_ns: int) -> list[dict[str, object]]:
    """Lay out the gateways for `/health?verbose`."""
    return [
        {
            "gateway": number,
            "is_up": is_up(page, now_ns),
            "starts": page.starts if page.is_known else 0,
            "connections": page.named("connections") if page.is_known else 0,
        }
        for number, page in enumerate(tallies.pages)
    ]


def is_up(page: TallyPage, now_ns: int) -> bool:
    """Say whether a process has shown lately that it is alive."""
    return page.is_known and now_ns - page.beat_ns <= GATEWAY_SILENT_NS_MAX
