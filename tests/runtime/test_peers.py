"""Laws of what one connection and one network may hold."""

from __future__ import annotations

import pytest

from runtime.errors import Overloaded
from runtime.server.peers import Shares, host_of, network_of, share_of


@pytest.mark.parametrize(
    ("peer", "host", "network"),
    [
        ("ipv4:10.0.0.7:51234", "ipv4:10.0.0.7", "ipv4:10.0.0.7"),
        ("ipv6:%5B2001:db8:1:2:3:4:5:6%5D:51234", "ipv6:%5B2001:db8:1:2:3:4:5:6%5D", "2001:db8:1:2::/64"),
        ("ipv6:[::1]:5", "ipv6:[::1]", "::/64"),
        ("ipv6:nonsense:5", "ipv6:nonsense", "ipv6:nonsense"),
        ("unix:", "unix:", "unix:"),
    ],
)
def test_a_peers_host_and_network(peer: str, host: str, network: str) -> None:
    assert (host_of(peer), network_of(peer)) == (host, network)


def test_a_connection_and_a_network_have_their_bounds_and_places_come_back() -> None:
    shares = Shares("gateway", ("CONNECTION", 2), ("NETWORK", 3))
    one, other, elsewhere = "ipv4:10.0.0.7:1", "ipv4:10.0.0.7:2", "ipv4:10.0.0.8:1"
    with shares.place(one), shares.place(one):
        with pytest.raises(Overloaded) as caught, shares.place(one):
            pass
        assert caught.value.setting == "CONNECTION"
        with shares.place(other):
            with pytest.raises(Overloaded) as caught, shares.place(other):
                pass
            assert caught.value.setting == "NETWORK"
            with shares.place(elsewhere):
                pass
    assert not shares._held


@pytest.mark.parametrize(("limit", "share"), [(256, 192), (20, 15), (16, 12), (15, 2**31), (1, 2**31)])
def test_a_share_of_a_limit(limit: int, share: int) -> None:
    assert share_of(limit, 3, 4) == share
