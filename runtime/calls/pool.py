"""The replicas of one stage and the choice of the next one (client-side load balancing)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import aclosing, suppress

from runtime.calls.choice import least_outstanding
from runtime.calls.replica import Attempt, Replica, ReplicaState
from runtime.channel import ChannelFactory
from runtime.discovery.endpoint import Endpoint
from runtime.discovery.sources import Source
from runtime.errors import StageUnavailable
from runtime.observability.metrics import Metrics

__all__ = ["Pool", "Replica", "ReplicaState", "least_outstanding"]
log = logging.getLogger(__name__)
Chooser = Callable[[Sequence[Replica]], Replica]
ROTATION_SECONDS = 1.0


class Pool:
    """Follows a source of endpoints and keeps a probed channel to each.

    `service`: the full gRPC name whose health means ready ("hart.v1.Decoder"). `choose`: picks the next replica among
    the ready ones. Create and use a pool within one event loop: `await start()` first, `await close()` last.
    """

    def __init__(
        self,
        stage: str,
        service: str,
        source: Source,
        *,
        channels: ChannelFactory | None = None,
        metrics: Metrics | None = None,
        choose: Chooser = least_outstanding,
    ) -> None:
        self.stage = stage
        self._service = service
        self._source = source
        self._channels = channels or ChannelFactory()
        self._choose = choose
        self._endpoints: frozenset[Endpoint] = frozenset()
        self._replicas: dict[Endpoint, Replica] = {}
        self._successors: dict[Endpoint, Replica] = {}
        self._leaving: dict[asyncio.Task[None], Replica] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.changes = 0
        """The number of changes to the set of replicas or to a replica's state."""
        self._changed = asyncio.Event()
        self._without_since: float | None = time.monotonic()
        if metrics:
            for state in (ReplicaState.READY, ReplicaState.NOT_READY, ReplicaState.FAILED):
                metrics.replicas.observe(lambda s=state: self._count(s), stage=stage, state=state.value)  # type: ignore[misc]

    @property
    def replicas(self) -> list[Replica]:
        """All replicas of the source, sorted by endpoint."""
        return [self._replicas[endpoint] for endpoint in sorted(self._replicas)]

    @property
    def ready(self) -> list[Replica]:
        """Replicas that accept work."""
        return [r for r in list(self._replicas.values()) if r.state is ReplicaState.READY]

    def _count(self, state: ReplicaState) -> int:
        return sum(r.state is state for r in list(self._replicas.values()))

    async def start(self, patience: float = 2.0) -> None:
        """Follow the source. Returns when each replica was probed once, or after `patience` seconds."""
        self._tasks = [asyncio.create_task(self._follow()), asyncio.create_task(self._follow_certificates())]
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                while not self._replicas or self._count(ReplicaState.UNKNOWN):
                    await self._changed.wait()

    def replica(
        self, cost: float = 1.0, *, avoid: Collection[str] = (), among: Collection[str] | None = None
    ) -> Attempt:
        """Choose a replica for work of `cost`: `async with pool.replica(2) as replica:`.

        Replicas whose address is in `avoid` are chosen only if there is no other. With `among`, only replicas whose
        address is in it are chosen. Raises StageUnavailable if no replica is ready.
        """
        ready = [r for r in self.ready if among is None or r.address in among]
        if not ready:
            raise StageUnavailable(self.stage, "no replica is ready", retry_after=1.0)
        return self._choose([r for r in ready if r.address not in avoid] or ready).attempt(cost)

    async def wait_ready(self, seconds: float) -> None:
        """Wait for a ready replica. Raises StageUnavailable after the stage was without one for `seconds`, counted from
        the moment it lost its last replica: a call to a stage that is long gone fails at once."""
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds - self._without_seconds)):
                while not self.ready:
                    await self._changed.wait()
        if not self.ready:
            raise StageUnavailable(self.stage, "no replica is ready", retry_after=1.0)

    async def wait_change(self, seconds: float) -> None:
        """Returns at the next change of a replica or of the set of replicas, or after `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()

    @property
    def _without_seconds(self) -> float:
        return 0.0 if self._without_since is None else time.monotonic() - self._without_since

    def _on_change(self) -> None:
        self.changes += 1
        for endpoint in [e for e, r in self._successors.items() if r.state is ReplicaState.READY]:
            self._retire(self._replicas.get(endpoint))
            self._replicas[endpoint] = self._successors.pop(endpoint)
        if self.ready:
            self._without_since = None
        elif self._without_since is None:
            self._without_since = time.monotonic()
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self) -> None:
        async with aclosing(self._source.watch()) as changes:
            async for endpoints in changes:
                self._adopt(endpoints)

    def _adopt(self, endpoints: frozenset[Endpoint]) -> None:
        for removed in set(self._replicas) - endpoints:
            self._retire(self._replicas.pop(removed))
            self._retire(self._successors.pop(removed, None))
        self._endpoints = endpoints
        self._connect_missing()
        log.info("endpoints of %s", self.stage, extra={"endpoints": sorted(map(str, endpoints))})
        self._on_change()

    def _connect_missing(self) -> None:
        for new in self._endpoints - set(self._replicas):
            try:
                self._replicas[new] = self._connect(new)
            except (OSError, ValueError) as error:
                log.error("replica %s of %s is not usable: %s", new, self.stage, error)

    def _connect(self, endpoint: Endpoint) -> Replica:
        return Replica(self.stage, self._service, endpoint, self._channels, self._on_change)

    def _retire(self, replica: Replica | None) -> None:
        if replica is not None:
            task = asyncio.create_task(replica.leave())
            self._leaving[task] = replica
            task.add_done_callback(self._leaving.pop)

    async def _follow_certificates(self) -> None:
        """Open new channels after a rotation of the certificates. The old channels serve until the new ones are
        ready."""
        stamp = self._channels.stamp()
        while True:
            await asyncio.sleep(ROTATION_SECONDS)
            if stamp == self._channels.stamp():
                continue
            stamp = self._channels.stamp()
            log.info("certificates rotated: opening new channels to %s", self.stage)
            for endpoint in list(self._replicas):
                self._retire(self._successors.pop(endpoint, None))
                try:
                    self._successors[endpoint] = self._connect(endpoint)
                except (OSError, ValueError) as error:
                    log.warning("rotated certificates are not usable yet: %s", error)
            self._connect_missing()  # endpoints that arrived while a certificate file was missing

    async def close(self) -> None:
        """Close every channel and cancel running attempts."""
        tasks = [*self._tasks, *self._leaving]
        replicas = [*self._replicas.values(), *self._successors.values(), *self._leaving.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for replica in replicas:
            await replica.close()
        self._replicas.clear()
        self._successors.clear()
