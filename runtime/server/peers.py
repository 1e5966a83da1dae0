"""Shares of a limit: one connection and one network may hold only part of it, so that other clients keep the rest."""

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
"""Prefix length of an IPv6 network. A host can choose the other bits."""


def host_of(peer: str) -> str:
    """The address of a gRPC peer ("ipv4:10.0.0.7:51234") without the port."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def network_of(peer: str) -> str:
    """The peer's host; for IPv6, its /64 network."""
    host = host_of(peer)
    if not host.startswith("ipv6:"):
        return host
    try:
        address = ipaddress.IPv6Address(unquote(host.removeprefix("ipv6:")).strip("[]"))
    except ValueError:
        return host
    return str(ipaddress.ip_network((address, IPV6_PREFIX), strict=False))


class Shares:
    """Places per connection and per network. `connection` and `network` are each (setting name, max places)."""

    def __init__(self, stage: str, connection: tuple[str, int], network: tuple[str, int]) -> None:
        self._stage = stage
        self._bounds = (connection, network)
        self._held: Counter[str] = Counter()

    @contextmanager
    def place(self, peer: str) -> Iterator[None]:
        """Hold a place during a call of the peer. Raises Overloaded, which names the setting."""
        keys = (f"connection {peer}", f"network {network_of(peer)}")
        for key, (setting, bound) in zip(keys, self._bounds, strict=True):
            if self._held[key] >= bound:
                kind = key.partition(" ")[0]
                raise Overloaded(
                    self._stage,
                    setting,
                    RETRY_SECONDS,
                    message=f"too many calls from one {kind} ({setting})",
                )
        self._held.update(keys)
        try:
            yield
        finally:
            self._held.subtract(keys)
            for key in keys:
                if not self._held[key]:
                    del self._held[key]


def share_of(limit: int, numerator: int, denominator: int) -> int:
    """`numerator / denominator` of the limit, rounded up. A limit below SMALL is not shared: the rest would be too
    small for other clients."""
    return UNBOUNDED if limit < SMALL else -(-limit * numerator // denominator)
