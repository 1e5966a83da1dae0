"""Free ports of this machine. Knows no process."""

from __future__ import annotations

import random
import secrets
import socket
from contextlib import closing

from common.stages import HTTP_PORT_OFFSET, METRICS_PORT_OFFSET

CLUSTER_PORTS = 50
"""How many consecutive ports a local cluster may use, and as many for metrics."""
_reserved: list[socket.socket] = []


def free_port() -> int:
    """A port below the range of outgoing connections (from 32768), so that a killed process can bind it again.

    A process binds its port seconds later, so no port is returned twice, nor to another run on this machine.
    """
    while True:
        port = secrets.randbelow(12_000) + 20_000
        mark = socket.socket(socket.AF_UNIX)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
                mark.bind(f"\0hart-port-{port}")  # an abstract name: the kernel frees it when this process ends
            except OSError:
                mark.close()
                continue
        _reserved.append(mark)
        return port


def free_cluster_port() -> int:
    """The first port of a free range for a whole local cluster its metrics and its HTTP API included."""
    while True:
        first = random.randrange(20_000, 30_000, 200)
        ports = [start + k for start in (first, first + METRICS_PORT_OFFSET) for k in range(CLUSTER_PORTS)]
        if not any(map(_taken, [*ports, first + HTTP_PORT_OFFSET])):
            return first


def _taken(port: int) -> bool:
    with closing(socket.socket()) as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
