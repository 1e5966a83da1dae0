"""One image's path: a slot, the generator with previews, the decoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from gateway.request.rules import decodes_preview
from planner.simulation.batching import PREVIEW
from planner.simulation.gateway import Gateway
from planner.simulation.job import Failure, Job, Steps
from planner.simulation.scope import Scope
from planner.workload import Arrival


class ImagePath:
    """Follows `GenerationPipeline.image`. `latent_arrived` is called when the generator has finished."""

    def __init__(self, gateway: Gateway, scope: Scope, arrival: Arrival, latent_arrived: Callable[[], None]) -> None:
        self._gateway, self._scope, self._arrival, self._latent_arrived = gateway, scope, arrival, latent_arrived
        self.env = gateway.env
        self._pending: deque[int] = deque()
        """Scales that are not sent yet, oldest first."""
        self._decoding = False
        self._flushed = False
        self._preview: Job | None = None
        self.previews = 0

    def run(self) -> Steps:
        """Draw the image. Returns None or the Failure that ends the request."""
        granted = self._gateway.slot()
        yield granted | self._scope.ended
        if self._scope.over:
            self._gateway.forget(granted)
            return Failure("ar_generator", "deadline")
        try:
            return (yield from self._draw())
        finally:
            self._gateway.release()

    def _draw(self) -> Steps:
        gateway, scope = self._gateway, self._scope
        scope.at("ar_generator")
        failure = yield from gateway.calls["ar_generator"].call(scope, self._generate_job)
        self._flush()
        if failure is not None:
            return failure
        self._latent_arrived()
        gateway.at_decoder += 1
        scope.at("decoder")
        try:
            return (yield from self._decode())
        finally:
            gateway.at_decoder -= 1

    def _decode(self) -> Steps:
        """Retries a full decoder until the deadline, because the latent was expensive."""
        while True:
            failure = yield from self._gateway.calls["decoder"].call(
                self._scope, self._decode_job, self._arrival.format
            )
            if failure is None or failure.reason != "overloaded":
                return failure
            if self._scope.deadline - self.env.now <= failure.retry_after:
                return failure
            yield self.env.timeout(failure.retry_after)

    def _generate_job(self) -> Job:
        previews = self._drawn if self._arrival.preview_every else None
        return Job(self.env, self._scope.deadline, previews=previews)

    def _decode_job(self) -> Job:
        return Job(self.env, self._scope.deadline)

    def _preview_job(self) -> Job:
        cost = self._gateway.profile.stages["decoder"].preview_cost
        self._preview = Job(self.env, self._scope.deadline, cost, PREVIEW if cost < 1 else None)
        return self._preview

    def _flush(self) -> None:
        """Drop the previews that are not decoded yet: the image does not wait for them."""
        self._flushed = True
        if self._preview is not None:
            self._preview.end(Failure("decoder", "cancelled"))

    # -- previews ----------------------------------------------------------------------------------------------------

    def _drawn(self, scale: int) -> None:
        self._pending.append(scale)
        if not self._decoding:
            self._decoding = True
            self.env.process(self._send())

    def _has_latent(self, scale: int) -> bool:
        return (scale + 1) % self._arrival.preview_every == 0

    def _send(self) -> Steps:
        """Send the pending scales, one preview at a time. A newer latent and the end of drawing drop older ones."""
        while self._pending and not self._flushed:
            head, *later = self._pending
            last_scale = head == len(self._gateway.profile.stages["ar_generator"].scales) - 1
            if decodes_preview(self._has_latent(head), map(self._has_latent, later), last_scale=last_scale):
                failure = yield from self._gateway.calls["decoder"].call(self._scope, self._preview_job, PREVIEW)
                self.previews += failure is None
            self._pending.popleft()
        self._decoding = False
