"""Which of the other gateways have demand: KEDA asks one gateway, and each one counts its own requests alone."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

import grpc

from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica

log = logging.getLogger(__name__)
SERVICE = "externalscaler.ExternalScaler"
SCOPE: Mapping[str, str] = {"scope": "gateway"}
"""Metadata of a ScaledObjectRef which asks for one gateway's own demand, that of its peers left out."""
POLL_SECONDS = 1.0
ANSWER_TIMEOUT = 1.0
CONCURRENT_POLLS = 16
MAX_AGE = 10.0
"""Seconds for which an answer counts while its gateway does not answer again."""


class PeerDemand:
    """Polls the gateways of `pool`, this one's own address included, each second.

    `on_active` is called when a gateway has demand and none had it before.
    """

    def __init__(self, pool: Pool, on_active: Callable[[], None]) -> None:
        self._pool, self._on_active = pool, on_active
        self._active_at: dict[str, float] = {}
        """By address: when a gateway last answered that it has demand."""
        self._places = asyncio.Semaphore(CONCURRENT_POLLS)
        self._task: asyncio.Task[None] | None = None

    @property
    def active(self) -> bool:
        """True while a gateway has demand, as last answered."""
        oldest = time.monotonic() - MAX_AGE
        return any(at > oldest for at in self._active_at.values())

    async def start(self) -> None:
        """Follows the gateways in the background."""
        await self._pool.start(0.0)
        self._task = asyncio.create_task(self._follow())

    async def close(self) -> None:
        """Stops polling."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._pool.close()

    async def _follow(self) -> None:
        while True:
            try:
                await self._poll_all()
            except Exception:  # the loop must survive any error, or a stage would never start again
                log.exception("while polling the other gateways")
            await asyncio.sleep(POLL_SECONDS)

    async def _poll_all(self) -> None:
        await asyncio.gather(*(self._poll(peer) for peer in self._pool.ready))
        present = {peer.address for peer in self._pool.replicas}
        self._active_at = {address: at for address, at in self._active_at.items() if address in present}

    async def _poll(self, peer: Replica) -> None:
        async with self._places:
            try:
                active = await _ask(peer)
            except grpc.RpcError as error:  # its last answer counts for MAX_AGE
                log.debug("gateway %s did not answer: %s", peer.address, error)
                return
        if not active:
            self._active_at.pop(peer.address, None)
            return
        idle = not self.active
        self._active_at[peer.address] = time.monotonic()
        if idle:
            self._on_active()


async def _ask(peer: Replica) -> bool:
    stub = externalscaler_pb2_grpc.ExternalScalerStub(peer.channel)
    request = externalscaler_pb2.ScaledObjectRef(scalerMetadata=SCOPE)
    return (await stub.IsActive(request, timeout=ANSWER_TIMEOUT)).result
