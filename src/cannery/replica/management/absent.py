"""Methods of the IC management canister that this node does not have, each with its reason.

IC interface specification 0.66, `ic.did`. The table feeds the reject that a caller gets and the table of
fidelity in the documents; a test shows that this table and the methods that are present cover all of
`ic.did`, and never both.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_THRESHOLD_KEYS = (
    "threshold signatures need a subnet of nodes that share a key, and a Cannery node holds none"
)
_BITCOIN = "the node keeps no view of the Bitcoin network; the IC itself has deprecated the method"

ABSENT: Mapping[str, str] = MappingProxyType(
    {
        "ecdsa_public_key": _THRESHOLD_KEYS,
        "sign_with_ecdsa": _THRESHOLD_KEYS,
        "schnorr_public_key": _THRESHOLD_KEYS,
        "sign_with_schnorr": _THRESHOLD_KEYS,
        "vetkd_public_key": _THRESHOLD_KEYS,
        "vetkd_derive_key": _THRESHOLD_KEYS,
        "bitcoin_get_balance": _BITCOIN,
        "bitcoin_get_utxos": _BITCOIN,
        "bitcoin_send_transaction": _BITCOIN,
        "bitcoin_get_current_fee_percentiles": _BITCOIN,
        "bitcoin_get_block_headers": _BITCOIN,
        "node_metrics_history": "it reports rewards of node providers, and a self-hosted node has none;"
        " the node's own metrics are served over HTTP",
        "subnet_info": "there is no registry of subnets with versions of its own;"
        " GET /cannery.json tells the node's version",
    }
)
