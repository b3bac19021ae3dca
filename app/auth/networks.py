"""The client of a request. Its network is its IPv4 address, or the /64 of its IPv6 address: one customer has it all."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final, NamedTuple

# Addresses of these networks end in the IPv4 address that they stand for: NAT64 (RFC 6052 §2.1), SIIT (RFC 2765 §2.1).
TRANSLATED: Final = IPv6Network("64:ff9b::/96"), IPv6Network("::ffff:0:0:0/96")
TRANSLATED_HERE: Final = IPv6Network("64:ff9b:1::/48")
"""NAT64 for local use (RFC 8215)."""


class LoginOrigin(NamedTuple):
    """The client of a request, as the owner of the account sees it in lists."""

    user_agent: str
    ip: str

    @property
    def network(self) -> str:
        return network_of(self.ip)


def network_of(ip: str) -> str:
    """Return the network of an address. Any other text is its own network."""
    try:
        address = ip_address(ip)
    except ValueError:
        return ip
    if isinstance(address, IPv4Address):
        return str(address)
    return str(_ipv4_of(address) or IPv6Address(int(address) >> 64 << 64))


def _ipv4_of(address: IPv6Address) -> IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for.

    Under 64:ff9b:1::/48 a network chooses its own prefix (RFC 6052 §2.2). With one of 96 bits the last 32 bits are the
    IPv4 address. With one of 48 bits they are zero, and the IPv4 address stands around bits 64 to 71.
    """
    number = int(address)
    last = number & 0xFFFF_FFFF
    if any(address in network for network in TRANSLATED) or (address in TRANSLATED_HERE and last):
        return IPv4Address(last)
    if address in TRANSLATED_HERE:
        return IPv4Address((number >> 64 & 0xFFFF) << 16 | number >> 40 & 0xFFFF)
    return address.ipv4_mapped
