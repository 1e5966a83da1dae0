"""One replica of a stage: its channel, outstanding work and probed state."""

from __future__ import annotations

import asyncio
import enum
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from runtime.channel import ChannelFactory
from runtime.discovery.endpoint import Endpoint
from runtime.errors import HartError, StageUnavailable
from runtime.oip.client import OipClient

log = logging.getLogger(__name__)
PROBE_SECONDS = 1.0  # between probes of a ready replica
RETURN_SECONDS = 0.3  # between probes of a replica that is not ready
ANSWER_SECONDS = 2.0  # timeout of a probe
HANG_PROBES = 2  # consecutive timeouts after which running attempts are given up


class ReplicaState(enum.Enum):
    """The result of the last probe or attempt."""

    UNKNOWN = "unknown"
    READY = "ready"
    NOT_READY = "not_ready"  # responds, but is starting or draining
    FAILED = "failed"  # no response, or an attempt failed: unused until a probe succeeds


class Replica:
    """A connection to one endpoint. `service` is the gRPC name whose health means ready."""

    def __init__(
        self, stage: str, service: str, endpoint: Endpoint, channels: ChannelFactory, on_change: Callable[[], None]
    ) -> None:
        self.stage = stage
        self.endpoint = endpoint
        self.channel = channels.open(endpoint.address, endpoint.name)
        self.state = ReplicaState.UNKNOWN
        self.outstanding = 0.0
        self.leaving = False
        self.ready_since = 0.0
        """Monotonic seconds. A description read before this moment may be of another process at the same address."""
        self._service = service
        self._on_change = on_change
        self._attempts: set[Attempt] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._late = 0
        self._prober = asyncio.create_task(self._probe_forever(), name=f"probe {endpoint}")

    @property
    def address(self) -> str:
        """The endpoint's address."""
        return self.endpoint.address

    def attempt(self, cost: float) -> Attempt:
        """A context manager around work of `cost` on this replica."""
        return Attempt(self, cost)

    def set_aside(self) -> None:
        """Stop choosing this replica until a probe succeeds. A probe starts now."""
        self._change(ReplicaState.FAILED)
        self._wake.set()

    async def _probe_forever(self) -> None:
        while True:
            self._wake.clear()
            await self._probe_once()
            pause = PROBE_SECONDS if self.state is ReplicaState.READY else RETURN_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), pause)

    async def _probe_once(self) -> None:
        try:
            serving = await self._ask()
        except grpc.RpcError as error:
            if error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED):
                serving = False
            else:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    self._note_late()
                self._change(ReplicaState.FAILED)
                return
        except Exception:  # the loop must survive any error, or the replica would never be probed again
            log.exception("probe of %s failed", self.endpoint)
            self._change(ReplicaState.FAILED)
            return
        self._late = 0
        self._change(ReplicaState.READY if serving else ReplicaState.NOT_READY)

    async def _ask(self) -> bool:
        if self.endpoint.model:
            return await OipClient(self.channel, self.endpoint.model, self.stage).ready(ANSWER_SECONDS)
        stub = health_pb2_grpc.HealthStub(self.channel)
        request = health_pb2.HealthCheckRequest(service=self._service)
        answer = await stub.Check(request, timeout=ANSWER_SECONDS)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def _note_late(self) -> None:
        self._late += 1
        if self._late >= HANG_PROBES:
            for attempt in list(self._attempts):
                attempt.lose()

    def _change(self, state: ReplicaState) -> None:
        if state is not self.state:
            log.info("replica %s of %s: %s", self.endpoint, self.stage, state.value)
            self.state = state
            if state is ReplicaState.READY:
                self.ready_since = time.monotonic()
            self._on_change()

    def begin(self, attempt: Attempt, cost: float) -> None:
        """Register a running attempt."""
        self._attempts.add(attempt)
        self._idle.clear()
        self.outstanding += cost

    def finish(self, attempt: Attempt, cost: float, failed: bool) -> None:
        """Unregister an attempt. The last one lets a leaving replica close."""
        self._attempts.discard(attempt)
        self.outstanding = self.outstanding - cost if self._attempts else 0.0
        if not self._attempts:
            self._idle.set()
        if failed and not self.leaving:
            self.set_aside()

    async def leave(self) -> None:
        """Accept no new work and close after the running attempts have ended."""
        self.leaving = True
        await self._idle.wait()
        await self.close()

    async def close(self) -> None:
        """Stop probing and close the channel. Running attempts fail."""
        self._prober.cancel()
        with suppress(asyncio.CancelledError):
            await self._prober
        await self.channel.close()


class Attempt:
    """The block in which a replica is used. If the replica hangs, the block is cancelled and raises StageUnavailable.
    If the block raises StageUnavailable, the replica is set aside."""

    def __init__(self, replica: Replica, cost: float) -> None:
        self._replica = replica
        self._cost = cost
        self._lost = False
        self._task: asyncio.Task[Any] | None = None
        self._cancelling = 0

    def lose(self) -> None:
        """Cancel the attempt: its replica hangs."""
        if not self._lost and self._task:
            self._lost = True
            self._task.cancel()

    async def __aenter__(self) -> Replica:
        self._task = asyncio.current_task()
        assert self._task  # noqa: S101 - a coroutine runs in a task
        self._cancelling = self._task.cancelling()
        self._replica.begin(self, self._cost)
        return self._replica

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        failed = self._lost or _is_unavailable(error)
        self._replica.finish(self, self._cost, failed)
        if self._lost and self._task and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise StageUnavailable(self._replica.stage, "the replica does not respond") from error


def _is_unavailable(error: BaseException | None) -> bool:
    if isinstance(error, HartError):
        return isinstance(error, StageUnavailable)
    if isinstance(error, grpc.RpcError):
        return error.code() is grpc.StatusCode.UNAVAILABLE
    return False
