"""Settings of a gateway: what an operator may change, with defaults, and who the node is.

Fixed bounds stand in `cannery.limits`. Reading the node's configuration file is for `node.config`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.protocol.bls import BlsKey
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """Bounds of one gateway process. Rates are tokens per second; a burst is what a quiet client may use at
    once.
    """

    body_size_bytes_max: int = 101 * 1024 * 1024
    large_body_count_max: int = 2
    large_body_wait_ms_max: int = 60_000
    body_idle_ms_max: int = 10_000
    body_rate_bytes_per_s_min: int = 16 * 1024
    headers_ms_max: int = 15_000
    keep_alive_ms_max: int = 65_000
    connection_count_max: int = 4_096
    connections_per_address_count_max: int = 1_024

    event_connection_count_max: int = 10_000
    event_connections_per_address_count_max: int = 1_024
    event_subscriptions_per_connection_count_max: int = 256
    event_ping_ms: int = 30_000

    answer_wait_ms_max: int = 10_000
    accept_wait_ms_max: int = 60_000
    query_wait_ms_max: int = 30_000

    requests_per_address_per_s: float = 5_000.0
    requests_per_address_burst: int = 20_000
    requests_per_principal_per_s: float = 2_000.0
    requests_per_principal_burst: int = 10_000
    rate_limited_count_max: int = 65_536

    # Proxies whose word on a client's address (X-Forwarded-For) is taken.
    trusted_proxies: tuple[str, ...] = ()

    spool_bytes_max: int = 4 * 1024 * 1024 * 1024
    spool_bytes_per_address_max: int = 1024 * 1024 * 1024
    spool_kept_ms_max: int = 10 * 60 * 1_000

    shutdown_ms_max: int = 20_000


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The keys that a gateway signs with, and the canister ids of its subnet (closed intervals).

    `version` is that of the software, as /api/v2/status tells it. `gateway` tells the gateway
    processes of a node apart.
    """

    root_key: BlsKey
    node_key: Ed25519Identity
    canister_ranges: tuple[tuple[Principal, Principal], ...]
    subnet_type: str = "cloud_engine"
    version: str = "0"
    gateway: int = 0
