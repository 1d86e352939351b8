"""Settings of a gateway: what an operator may change, with defaults, and who the node is.

Fixed bounds stand in `cannery.limits`. Reading the node's configuration file is for `node.config`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cannery.limits import GATEWAY_SPARE_FILE_COUNT
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

    # More than a gateway answers: whoever measures a node meets no limit, and an operator draws it closer.
    requests_per_address_per_s: float = 20_000.0
    requests_per_address_burst: int = 50_000
    requests_per_principal_per_s: float = 10_000.0
    requests_per_principal_burst: int = 20_000
    # Calls that a canister refused or rejected, of one address at one canister.
    refused_calls_per_address_per_s: float = 100.0
    refused_calls_per_address_burst: int = 1_000
    rate_limited_count_max: int = 65_536

    # Proxies whose word on a client's address (X-Forwarded-For) is taken.
    trusted_proxies: tuple[str, ...] = ()

    spool_bytes_max: int = 4 * 1024 * 1024 * 1024
    spool_bytes_per_address_max: int = 1024 * 1024 * 1024
    spool_kept_ms_max: int = 10 * 60 * 1_000

    shutdown_ms_max: int = 20_000

    @property
    def file_count(self) -> int:
        """How many open files a process needs for all connections that it may have."""
        return self.connection_count_max + self.event_connection_count_max + GATEWAY_SPARE_FILE_COUNT

    def fit_files(self, file_count: int) -> GatewaySettings:
        """Give the settings for a process that may open so many files: where they do not suffice there are
        fewer connections, which are refused with a reason, and not dropped.
        """
        if file_count >= self.file_count:
            return self
        room = max(2, file_count - min(GATEWAY_SPARE_FILE_COUNT, file_count // 2))
        kept = min(self.connection_count_max, max(room // 2, room - self.event_connection_count_max))
        return replace(self, connection_count_max=kept, event_connection_count_max=room - kept)


@dataclass(frozen=True, slots=True)
class NodeIdentity:
    """The keys that a gateway signs with, and the canister ids of its subnets (a closed interval of each).

    `root_key` is the first subnet's; `further` are those of the others, which it certifies.

    `version` is that of the software, as /api/v2/status tells it.
    """

    root_key: BlsKey
    node_key: Ed25519Identity
    canister_ranges: tuple[tuple[Principal, Principal], ...]
    subnet_type: str = "cloud_engine"
    version: str = "0"
    further: tuple[BlsKey, ...] = ()

    @property
    def keys(self) -> tuple[BlsKey, ...]:
        """The subnets' keys by number."""
        return (self.root_key, *self.further)
