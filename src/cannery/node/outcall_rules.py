"""Whom the node may connect to for canisters: the operator's hosts, and addresses that are nobody's own.

Loopback, private, link-local and other addresses that are not global are refused unless the operator names
them: by their network, or by the address itself as a host. What counts is the address that is connected to,
not the name that led there. This module looks no name up and connects to nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

from cannery.limits import OUTCALL_HOST_COUNT_MAX
from cannery.replica.outcall_url import line_fault, named_addresses

Network = IPv4Network | IPv6Network
Address = IPv4Address | IPv6Address

_NAT64: Final = ip_network("64:ff9b::/96")
# What is public of IPv6: the rest is reserved, or a site's own by old or local uses (RFC 4291, RFC 8215).
_IPV6_UNICAST: Final = ip_network("2000::/3")
_IPV6_EXAMPLES: Final = ip_network("3fff::/20")


@dataclass(frozen=True, slots=True)
class OutcallRules:
    """`hosts`: lines of the list, as `replica.outcall_url` reads them; `networks`: those named by the
    operator; `authorities`: certificates in PEM that TLS trusts beside the usual ones.
    """

    hosts: tuple[str, ...] = ()
    networks: tuple[Network, ...] = ()
    authorities: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, allow: Sequence[str], private_networks: Sequence[str], authorities: tuple[str, ...] = ()
    ) -> OutcallRules:
        """Check what the operator wrote; raises `ValueError` with the setting and what is wrong."""
        for name, lines in (("allow", allow), ("private_networks", private_networks)):
            if len(lines) > OUTCALL_HOST_COUNT_MAX:
                raise ValueError(f"{name} has at most {OUTCALL_HOST_COUNT_MAX} lines, got {len(lines)}")
        hosts = tuple(line.lower() for line in allow)
        for line in hosts:
            fault = line_fault(line)
            if fault is not None:
                raise ValueError(f"allow: {fault}")
        networks: list[Network] = []
        for text in private_networks:
            try:
                networks.append(ip_network(text))
            except ValueError as error:
                raise ValueError(f'private_networks: {error}: write "10.1.2.0/24" or "::1"') from error
        for named in named_addresses(hosts):
            address = _address(named)
            if address is not None:
                networks.append(ip_network(address))
        return cls(hosts, tuple(networks), authorities)

    def may_connect(self, text: str) -> bool:
        """Say whether an address, as a socket shows it, may be connected to."""
        address = _address(text.partition("%")[0])
        if address is None:
            return False
        if any(address in network for network in self.networks):
            return True
        inner = _inner(address)
        if inner is not address and any(inner in network for network in self.networks):
            return True
        return all(_is_public(each) for each in (address, inner))


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _inner(address: Address) -> Address:
    """Give the IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    found = address.ipv4_mapped or address.sixtofour
    if found is None and address in _NAT64:
        found = IPv4Address(int(address) & 0xFFFF_FFFF)
    return found or address


def _is_public(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None or address in _NAT64:
            return True
        if address not in _IPV6_UNICAST or address in _IPV6_EXAMPLES:
            return False
    return address.is_global and not address.is_multicast
