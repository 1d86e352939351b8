"""The public keys of a subnet's nodes, learnt from a certificate and kept for a while.

IC interface specification, sections "Subnet information" and "Response: Query call". Keys hold for every
canister within the subnet's certified ranges.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cannery.client.errors import Unverified
from cannery.errors import DecodeError
from cannery.limits import CLIENT_NODE_KEYS_AGE_NS_MAX, CLIENT_NODE_KEYS_COUNT_MAX
from cannery.protocol.certificate import (
    CanisterRange,
    Certificate,
    decode_canister_ranges,
    delegated_ranges,
)
from cannery.protocol.hash_tree import Found, HashTree, child_labels, lookup
from cannery.protocol.principal import MANAGEMENT, Principal

NODE_COUNT_MAX = 1000


@dataclass(frozen=True, slots=True)
class SubnetKeys:
    """Node id to DER public key, for canisters within the ranges, as learnt at a time."""

    ranges: tuple[CanisterRange, ...]
    keys: dict[bytes, bytes]
    learnt_ns: int

    def covers(self, canister_id: Principal) -> bool:
        return any(low <= canister_id <= high for low, high in self.ranges)


class NodeKeys:
    """What is known of subnets, bounded by count and age; the most recently used stay."""

    def __init__(self) -> None:
        self._subnets: OrderedDict[bytes, SubnetKeys] = OrderedDict()

    def find(self, canister_id: Principal, now_ns: int) -> dict[bytes, bytes] | None:
        """Give the node keys for a canister, if they are known and not too old."""
        for subnet_id, subnet in self._subnets.items():
            if subnet.covers(canister_id) or canister_id == MANAGEMENT:
                if now_ns - subnet.learnt_ns > CLIENT_NODE_KEYS_AGE_NS_MAX:
                    del self._subnets[subnet_id]
                    return None
                self._subnets.move_to_end(subnet_id)
                return subnet.keys
        return None

    def learn(
        self, certificate: Certificate, canister_id: Principal, root_key: bytes, now_ns: int
    ) -> dict[bytes, bytes]:
        """Take the keys out of a verified certificate that covers the canister."""
        delegation = certificate.delegation
        subnet_id = delegation.subnet_id if delegation else Principal.self_authenticating(root_key)
        ranges = _ranges(certificate, subnet_id)
        keys = _keys(certificate.tree, subnet_id)
        subnet = SubnetKeys(ranges, keys, now_ns)
        if not subnet.covers(canister_id) and canister_id != MANAGEMENT:
            raise Unverified(f"canister {canister_id} is in none of the ranges of subnet {subnet_id}")
        self._subnets[subnet_id.raw] = subnet
        self._subnets.move_to_end(subnet_id.raw)
        while len(self._subnets) > CLIENT_NODE_KEYS_COUNT_MAX:
            self._subnets.popitem(last=False)
        return keys


def _ranges(certificate: Certificate, subnet_id: Principal) -> tuple[CanisterRange, ...]:
    try:
        if certificate.delegation is not None:
            return delegated_ranges(certificate.delegation)
        found = lookup(certificate.tree, (b"subnet", subnet_id.raw, b"canister_ranges"))
        if isinstance(found, Found):
            return decode_canister_ranges(found.value)
    except DecodeError as error:
        raise Unverified(f"the subnet's canister ranges are malformed: {error}") from None
    raise Unverified("the certificate does not show the subnet's canister ranges")


def _keys(tree: HashTree, subnet_id: Principal) -> dict[bytes, bytes]:
    nodes = child_labels(tree, [b"subnet", subnet_id.raw, b"node"])
    if not nodes or len(nodes) > NODE_COUNT_MAX:
        raise Unverified("the certificate shows no node keys")
    keys: dict[bytes, bytes] = {}
    for node in nodes:
        found = lookup(tree, [b"subnet", subnet_id.raw, b"node", node, b"public_key"])
        if not isinstance(found, Found):
            raise Unverified("the certificate hides a node's key")
        keys[node] = found.value
    return keys
