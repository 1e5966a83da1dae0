"""What one connection and one network may hold of a limit, so that the rest is there for others. Knows no call."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import unquote

from runtime.errors import Overloaded

RETRY_SECONDS = 1.0
SMALL, UNBOUNDED = 16, 2**31
IPV6_PREFIX = 64
"""Bits of an IPv6 address that its network has: the rest is for a host to choose."""


def host_of(peer: str) -> str:
    """The address in gRPC's name of a peer ("ipv4:10.0.0.7:51234"), without the port."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def network_of(peer: str) -> str:
    """The host, for IPv6 its /64 network."""
    host = host_of(peer)
    if not host.startswith("ipv6:"):
        return host
    try:
        address = ipaddress.IPv6Address(unquote(host.removeprefix("ipv6:")).strip("[]"))
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


class Shares:
    """Places per connection and per network. `connection` and `network`: the setting that names the bound, and it."""

    def __init__(self, stage: str, connection: tuple[str, int], network: tuple[str, int]) -> None:
        self._stage = stage
        self._bounds = (connection, network)
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, peer: str) -> Iterator[None]:
        """Around a call of the peer. Raises Overloaded naming the setting."""
        keys = (f"connection {peer}", f"network {network_of(peer)}")
        for key, (setting, bound) in zip(keys, self._bounds, strict=True):
            if self._held[key] >= bound:
                kind = key.partition(" ")[0]
                raise Overloaded(
                    self._stage, setting, RETRY_SECONDS, message=f"too many calls of one {kind} ({setting})"
                )
        self._held.update(keys)
        try:
            yield
        finally:
            self._held.subtract(keys)
            for key in keys:
                if not self._held[key]:
                    del self._held[key]


def most_of(limit: int, numerator: int, denominator: int) -> int:
    """A share of the limit, rounded up. A small limit is not shared out: what is left of it would be no use to
    others."""
    return UNBOUNDED if limit < SMALL else -(-limit * numerator // denominator)
