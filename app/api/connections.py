"""How many connections one client may hold: enough for any honest one, too few to take them all.

Counted per server, by the other end of the connection; whom a proxy speaks for is not looked at.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from app.kit.addresses import Network, client_network, is_named, is_reachable
from app.kit.telemetry import get_logger

LOG = get_logger(__name__)

CONNECTIONS_PER_CLIENT: Final = 64
"""Of one public address, or of one IPv6 /64. An SDK that has as many calls open at once is one to talk about."""


class Connections:
    """Counts the connections of public addresses.

    What comes from this machine or a private network is a proxy, or somebody inside, and is not counted. Neither are
    the `proxies`, which stand for many clients.
    """

    def __init__(self, *, at_most: int = CONNECTIONS_PER_CLIENT, proxies: Sequence[Network] = ()) -> None:
        self._at_most = at_most
        self._proxies = proxies
        self._held: Counter[str] = Counter()
        self._refused: set[str] = set()

    def counts(self, address: str) -> bool:
        """Whether connections from this address are counted."""
        try:
            return is_reachable(address) and not is_named(address, self._proxies)
        except ValueError:
            return False

    def take(self, address: str) -> bool:
        """Count one more from an address that counts; False, and nothing is counted, when it has as many as it may."""
        network = client_network(address)
        if self._held[network] < self._at_most:
            self._held[network] += 1
            return True
        # Once for each time that it comes to this, for whoever does it may do it often.
        if network not in self._refused:
            self._refused.add(network)
            LOG.warning("connections.refused", address=network, at_most=self._at_most)
        return False

    def give_back(self, address: str) -> None:
        """Count one less, after a `take` that was counted."""
        network = client_network(address)
        self._refused.discard(network)
        self._held[network] -= 1
        if not self._held[network]:
            del self._held[network]
