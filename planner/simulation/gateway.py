"""One gateway: its limits, its view of the stages, and the images in progress."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping

import simpy

from gateway.request.rules import bottleneck, has_room, may_start
from planner.fleet import GatewayLimits
from planner.profile import Profile
from planner.simulation.calls import Calls
from planner.simulation.job import Failure, Steps
from planner.simulation.pool import Pool, ReplicaSet


class Gateway:
    """State of one gateway process. `gateway.request` has the same rules around gRPC."""

    def __init__(
        self,
        env: simpy.Environment,
        profile: Profile,
        limits: GatewayLimits,
        stages: Mapping[str, ReplicaSet],
        source: random.Random,
    ) -> None:
        self.env, self.profile, self.limits, self.source = env, profile, limits, source
        self.stages = stages
        self.calls = {name: Calls(env, Pool(found, source), limits, source) for name, found in stages.items()}
        self.ongoing = self.admitted = self.in_progress = self.at_decoder = 0
        self._waiters: deque[simpy.Event] = deque()
        self._thread = simpy.Resource(env, 1)
        self.cpu_seconds = 0.0

    def refusal(self, images: int) -> Failure | None:
        """The refusal of a request for so many images that arrives now."""
        if self.ongoing >= self.limits.max_ongoing_requests:
            return Failure("gateway", "overloaded", 1.0)
        if not has_room(self.admitted, images, self.stages["ar_generator"].capacity()):
            return Failure(self.bottleneck if self._waiters else "ar_generator", "overloaded", 1.0)
        return None

    @property
    def bottleneck(self) -> str:
        """The stage that most images in progress wait for."""
        return bottleneck(self.at_decoder, self.in_progress)

    def compute(self, share: float) -> Steps:
        """Occupy the gateway's thread for this share of a request's CPU time."""
        seconds = self.profile.gateway_cpu_seconds * share
        if seconds:
            with self._thread.request() as thread:
                yield thread
                yield self.env.timeout(seconds)
                self.cpu_seconds += seconds

    # -- slots of images in progress ---------------------------------------------------------------------------------

    @property
    def _slots(self) -> int:
        return self.limits.max_pending_decodes + self.stages["ar_generator"].slots()

    def slot(self) -> simpy.Event:
        """An event that succeeds when the image may be drawn. Call `release` after it, `forget` instead of it."""
        granted = self.env.event()
        self._waiters.append(granted)
        self._grant()
        return granted

    def release(self) -> None:
        """An image in progress has ended."""
        self.in_progress -= 1
        self._grant()

    def forget(self, granted: simpy.Event) -> None:
        """The image no longer waits; a slot that it was granted is released."""
        if granted.triggered:
            self.release()
        else:
            self._waiters.remove(granted)

    def _grant(self) -> None:
        while self._waiters and may_start(self.in_progress, self._slots):
            self._waiters.popleft().succeed()
            self.in_progress += 1
