"""Holds requests while a stage that may scale to zero starts its first replica."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import contextmanager

from hart.v1 import images_pb2

from gateway.config import GatewaySettings
from runtime.calls.pool import Pool
from runtime.deadline import Deadline
from runtime.errors import Overloaded, StageUnavailable

SEND_SECONDS = 5.0
"""Between two `starting` events of one request. Proxies close streams that are silent for a minute."""
UNKNOWN_START_SECONDS = 30.0
"""`retry_after` while no start was measured."""


class ColdStart:
    """Lets a request through when every stage that may scale to zero has a ready replica.

    `start_seconds(stage)`: the start that a stage's replicas report, 0 while unknown. `image_seconds()`: the
    time of an image, which a held request reserves of its deadline.
    """

    def __init__(
        self,
        pools: Mapping[str, Pool],
        settings: GatewaySettings,
        start_seconds: Callable[[str], float],
        image_seconds: Callable[[], float],
    ) -> None:
        self._pools = {stage: pool for stage, pool in pools.items() if not settings.min_replicas(stage)}
        self._limit = settings.max_held_requests
        self._forget_seconds = settings.scaler_cooldown_seconds
        self._start_seconds, self._image_seconds = start_seconds, image_seconds
        self.held = 0
        """Requests that wait now."""
        self._left_at = -math.inf
        self._began: dict[str, float] = {}
        """When the first request found a stage without a replica."""
        self._took: dict[str, float] = {}
        """Seconds of a stage's last measured start."""

    async def events(self, deadline: Deadline) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        """`starting` events, until every stage is ready.

        Raises Overloaded above the limit of held requests, StageUnavailable when the deadline leaves no time to draw.
        """
        if self._missing() is None:
            return
        with self._place():
            while (stage := self._missing()) is not None:
                left = deadline.remaining() - self._image_seconds()
                if left <= 0:
                    raise StageUnavailable(stage, "its first replica is still starting", self._retry_after(stage))
                yield self._event(stage)
                await self._pools[stage].wait_change(min(SEND_SECONDS, left))

    def estimate(self, stage: str) -> float | None:
        """Expected seconds until a starting stage is ready; None while no start was measured."""
        took = self._took.get(stage) or self._start_seconds(stage)
        return max(0.0, took - (time.monotonic() - self._began[stage])) if took else None

    def _missing(self) -> str | None:
        """A stage without a ready replica, if there is one. Records when starts begin and end."""
        now = time.monotonic()
        for stage, pool in self._pools.items():
            if not pool.ready:
                self._began.setdefault(stage, now)
            elif stage in self._began:
                self._took[stage] = now - self._began.pop(stage)
        return next((stage for stage, pool in self._pools.items() if not pool.ready), None)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.held >= self._limit:
            stage = next(iter(self._began))
            raise Overloaded("gateway", "HART_MAX_HELD_REQUESTS", self._retry_after(stage))
        if not self.held and time.monotonic() - self._left_at > self._forget_seconds:
            # The scaler's cooldown has passed since the last held request: a new start begins now.
            self._began = dict.fromkeys(self._began, time.monotonic())
        self.held += 1
        try:
            yield
        finally:
            self.held -= 1
            self._left_at = time.monotonic()

    def _retry_after(self, stage: str) -> float:
        estimate = self.estimate(stage)
        return max(1.0, UNKNOWN_START_SECONDS if estimate is None else estimate)

    def _event(self, stage: str) -> images_pb2.GenerateEvent:
        starting = images_pb2.Starting(stage=stage, estimated_seconds=self.estimate(stage))
        return images_pb2.GenerateEvent(starting=starting)
