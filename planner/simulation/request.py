"""One request's path through a gateway and the stages."""

from __future__ import annotations

from dataclasses import dataclass

import simpy

from planner.simulation.gateway import Gateway
from planner.simulation.image import ImagePath
from planner.simulation.job import Failure, Job, Steps
from planner.simulation.scope import Scope
from planner.workload import Arrival


@dataclass(frozen=True)
class Outcome:
    """How a request ended."""

    arrived: float
    """Simulated seconds."""
    seconds: float
    images: int
    failure: Failure | None = None


class Request:
    """Follows `gateway.request.pipeline`: limits, then safety and text encoder at once, then the images at once."""

    def __init__(self, gateway: Gateway, arrival: Arrival, cached: bool) -> None:
        self._gateway, self._arrival, self._cached = gateway, arrival, cached
        self.env = gateway.env
        self._scope = Scope(self.env, self.env.now + arrival.deadline - gateway.limits.deadline_margin_seconds)
        self._held = 0
        """Images that count as admitted."""
        self._left = arrival.images

    def run(self) -> Steps:
        """A process. Returns the Outcome."""
        began, gateway = self.env.now, self._gateway
        yield self.env.timeout(gateway.source.choice(gateway.profile.gateway_seconds))
        failure = gateway.refusal(self._arrival.images)
        if failure is None:
            failure = yield from self._admitted()
        return Outcome(began, self.env.now - began, self._arrival.images, failure)

    def _admitted(self) -> Steps:
        gateway = self._gateway
        gateway.ongoing += 1
        self._held = self._arrival.images
        gateway.admitted += self._held
        self.env.process(self._work())
        failure = yield self._scope.ended
        if failure is None:
            yield from gateway.compute(0.5)
        gateway.ongoing -= 1
        gateway.admitted -= self._held
        self._held = 0
        return failure

    def _work(self) -> Steps:
        yield from self._gateway.compute(0.5)
        for call in self._prompt_calls():
            if (failure := (yield call)) is not None:
                self._scope.end(failure)
        if not self._scope.over:
            for _ in range(self._arrival.images):
                path = ImagePath(self._gateway, self._scope, self._arrival, self._release_one)
                self.env.process(self._image(path))

    def _prompt_calls(self) -> list[simpy.Process]:
        self._scope.at("safety")
        stages = ["safety"] if self._cached else ["safety", "text_encoder"]
        return [self.env.process(self._gateway.calls[one].call(self._scope, self._job)) for one in stages]

    def _job(self) -> Job:
        return Job(self.env, self._scope.deadline)

    def _image(self, path: ImagePath) -> Steps:
        failure = yield from path.run()
        self._left -= 1
        if failure is not None:
            self._scope.end(failure)
        elif not self._left:
            self._scope.end()

    def _release_one(self) -> None:
        if self._held:
            self._held -= 1
            self._gateway.admitted -= 1
