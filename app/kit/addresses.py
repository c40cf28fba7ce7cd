"""Which addresses on the network may be reached: public ones, and those that the operator names; and whose they are."""

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final, TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network

# Python's own `is_global` is no help: it calls NAT64, 6to4, site-local and multicast addresses global.
# Source: the registries of special-purpose addresses of IANA, read 2026-11-21.
_V4_SPECIAL: Final = tuple(
    IPv4Network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.31.196.0/24",
        "192.52.193.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "192.175.48.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
_V6_PUBLIC: Final = IPv6Network("2000::/3")
_V6_SPECIAL: Final = tuple(
    IPv6Network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "2620:4f:8000::/48")
)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Read networks such as `10.0.0.0/8` or `fd00::/8`; a plain address is a network of one.

    Raises:
        ValueError: a text is no network, or has bits set beyond its prefix.
    """
    return tuple(ip_network(text.strip()) for text in texts)


def is_reachable(address: str, allow: Sequence[Network] = ()) -> bool:
    """Whether this literal IP address is public or lies in one of the `allow` networks.

    Raises:
        ValueError: the text is no IP address.
    """
    return is_named(address, allow) or _is_public(address)


def can_be_reached_from_outside(host: str) -> bool:
    """Whether others on the internet may find something under this host: a name, or a public literal address.

    A name is taken at its word, unless it is `localhost` or below it (RFC 6761), which is everybody's own machine.
    """
    name = host.lower().rstrip(".")
    if not name or name == "localhost" or name.endswith(".localhost"):
        return False
    try:
        return is_reachable(name)
    except ValueError:
        return True


def is_named(address: str, networks: Sequence[Network]) -> bool:
    """Whether this literal IP address lies in one of these networks.

    Raises:
        ValueError: the text is no IP address.
    """
    literal = _literal(address)
    return any(literal.version == network.version and literal in network for network in networks)


def client_network(address: str | None) -> str:
    """What requests of one client are counted under: an IPv4 address, or the /64 that an IPv6 customer has to itself.

    None, and what is no IP address, are counted together.
    """
    try:
        literal = _literal(address or "")
    except ValueError:
        return "unknown"
    return str(literal) if isinstance(literal, IPv4Address) else str(IPv6Network((literal, 64), strict=False))


def _is_public(address: str) -> bool:
    literal = _literal(address)
    if isinstance(literal, IPv6Address):
        return literal in _V6_PUBLIC and not any(literal in network for network in _V6_SPECIAL)
    return not any(literal in network for network in _V4_SPECIAL)


def _literal(address: str) -> IPv4Address | IPv6Address:
    literal = ip_address(address.partition("%")[0])
    # ::ffff:a.b.c.d is dialled as IPv4, so it is judged as IPv4.
    mapped = literal.ipv4_mapped if isinstance(literal, IPv6Address) else None
    return literal if mapped is None else mapped
