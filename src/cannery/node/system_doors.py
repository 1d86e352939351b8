"""The real sides of the small ports: the system's clock and its source of chance, and certificates for
canisters' data.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable

from cannery.ports import Clock
from cannery.protocol.bls import BlsKey
from cannery.protocol.certificate import CertificateDelegation, build_certificate, encode_certificate
from cannery.protocol.hash_tree import build_tree
from cannery.protocol.representation import encode_leb128


class SystemClock:
    """Behind `ports.Clock`. It may step; what needs rising times sees to that itself."""

    def now_ns(self) -> int:
        return time.time_ns()


class SystemEntropy:
    """Behind `ports.Entropy`."""

    def random_bytes(self, count: int) -> bytes:
        return secrets.token_bytes(count)


def data_certifier(
    key: BlsKey, clock: Clock, delegation: CertificateDelegation | None = None
) -> Callable[[bytes, bytes], bytes]:
    """Give the function that certifies a canister's data for its queries (`data_certificate`)."""

    def certify(canister_id: bytes, data: bytes) -> bytes:
        tree = build_tree(
            {
                b"canister": {canister_id: {b"certified_data": data}},
                b"time": encode_leb128(clock.now_ns()),
            }
        )
        return encode_certificate(build_certificate(tree, key, delegation))

    return certify
