"""What the `icp` command line asks of canisters that a Cannery node does not have.

Before it creates a canister, `icp` 1.5.0 asks the cycles minting canister which subnets take new ones.
The answer here is this subnet alone; the subnet's type, `cloud_engine`, then makes the tool create
through the management canister. Everything else that the tool looks for (ledgers, the engine registry)
is absent, and it copes with their absence.
"""

from __future__ import annotations

from cannery.protocol.envelope import QueryContent
from cannery.protocol.principal import Principal

CYCLES_MINTING_CANISTER = Principal.parse("rkp4c-7iaaa-aaaaa-aaaca-cai")
GET_DEFAULT_SUBNETS = "get_default_subnets"

# Candid: one type, `vec principal` (0x6d 0x68), of which one value follows: a vector of one principal,
# given by bytes.
_ONE_PRINCIPAL_HEAD = b"DIDL\x01\x6d\x68\x01\x00\x01\x01"


def answer_for_icp_tool(content: QueryContent, subnet_id: Principal) -> bytes | None:
    """Give the Candid reply to `get_default_subnets`; None for every other query."""
    if content.method_name != GET_DEFAULT_SUBNETS or content.canister_id != CYCLES_MINTING_CANISTER:
        return None
    return _ONE_PRINCIPAL_HEAD + bytes((len(subnet_id.raw),)) + subnet_id.raw
