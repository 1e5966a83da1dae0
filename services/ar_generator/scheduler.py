"""Interleaves requests over the engine's slots, scale by scale. `schedule` chooses the next batch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable

from opentelemetry import trace

from model.generation import GenerationState
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded
from runtime.observability.metrics import Metrics
from runtime.observability.tracing import Attributes, Tracing
from runtime.work.admission import Admission
from runtime.work.device_thread import DeviceThread
from services.ar_generator.active_request import ActiveRequest, Admitted, Event, ScaleDone
from services.ar_generator.engine import GenerationRequest, GeneratorEngine, RunPlan, Step
from services.ar_generator.scale_times import ScaleTimeEstimator
from services.ar_generator.schedule import choose_batch, last_scale

log = logging.getLogger(__name__)


class Scheduler:
    """Interleaves requests over the engine's slots. Use it on the event loop's thread."""

    def __init__(
        self,
        engine: GeneratorEngine,
        *,
        admission: Admission,
        scale_times: ScaleTimeEstimator,
        thread: DeviceThread,
        starvation_limit: float,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self.admission, self.scale_times = admission, scale_times
        self._engine, self._thread, self._starvation_limit = engine, thread, starvation_limit
        self._metrics, self._tracing = metrics, tracing
        self._waiting: list[ActiveRequest] = []
        self._running: list[ActiveRequest] = []
        self._arrived = asyncio.Event()
        self._preempted = False
        self._reconsider = threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def draw(
        self, request: GenerationRequest, deadline: Deadline
    ) -> AsyncGenerator[tuple[ActiveRequest, Event], None]:
        """Yield the request's events: Admitted, then ScaleDone for each scale; the last one holds the final latent.

        Raises Overloaded or DeadlineExceeded at once, and DeadlineExceeded later if the deadline cannot be met. Closing
        the generator frees the place in the queue at once and the slot at the next scale boundary.
        """
        span = trace.get_current_span().get_span_context()
        active = ActiveRequest(request, self.admission.admit(1.0, deadline), span)
        self._waiting.append(active)
        self._wake()
        try:
            while True:
                event = await self._next_event(active)
                yield active, event
                if isinstance(event, ScaleDone) and event.scale == self._engine.scales - 1:
                    return
        finally:
            self._abandon(active)

    async def _next_event(self, active: ActiveRequest) -> Event:
        try:
            event = await asyncio.wait_for(active.events.get(), active.ticket.deadline.timeout())
        except TimeoutError:
            raise self._out_of_time(active) from None
        if isinstance(event, BaseException):
            raise event
        return event

    def _abandon(self, active: ActiveRequest) -> None:
        active.abandoned = True
        if active in self._waiting:
            self._waiting.remove(active)
            self.admission.finish(active.ticket)
        self._reconsider.set()

    def _wake(self) -> None:
        self._arrived.set()
        self._reconsider.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="scheduler")

    async def _serve(self) -> None:
        try:
            while True:
                await self._wait_for_work()
                self._drop_expired()
                self._assign_slots()
                batch = self._choose()
                if batch:
                    await self._advance(batch)
        except Exception as error:
            log.exception("the scheduler failed; the next request restarts it")
            for active in [*self._running, *self._waiting]:
                self._end(active, error)

    async def _wait_for_work(self) -> None:
        if not self._waiting and not self._running:
            self._arrived.clear()
            await self._arrived.wait()
        self._reconsider.clear()

    def _drop_expired(self) -> None:
        """End requests whose caller has left or whose deadline cannot be met."""
        for active in [p for p in [*self._running, *self._waiting] if p.abandoned or self._is_late(p, p.scale)]:
            self._end(active, None if active.abandoned else self._out_of_time(active))

    def _is_late(self, active: ActiveRequest, scale: int) -> bool:
        """True if the scales from this one on cannot finish before the deadline."""
        return active.ticket.deadline.remaining() <= self.scale_times.remaining(scale)

    def _assign_slots(self) -> None:
        """Assign free slots to the requests that have waited longest."""
        while self._waiting and len(self._running) < self._engine.slots:
            active = self._waiting.pop(0)
            self.admission.start(active.ticket)
            self._running.append(active)
            active.moved_at = time.monotonic()
            active.send(Admitted(active.ticket.queue_seconds))

    def _choose(self) -> list[ActiveRequest]:
        """The next batch; empty without a running request."""
        if not self._running:
            return []
        starved_since = time.monotonic() - self._starvation_limit
        choice = choose_batch(
            self._running, self._engine.max_batch_per_scale, starved_since, may_preempt=not self._preempted
        )
        self._preempted = choice.preempts
        return choice.batch

    async def _advance(self, batch: list[ActiveRequest]) -> None:
        """Run the batch's next scales until a new choice may be better."""
        begun = [(active, state) for active in batch if (state := await self._state(active)) is not None]
        begun = [
            (active, state) for active, state in begun if not active.abandoned
        ]  # abandoned while another request began
        if begun:
            actives = [active for active, _ in begun]
            states = [(state, active.request) for active, state in begun]
            result_only = all(active.request.result_only for active in actives)
            plan = self._plan(actives, None if result_only else self._on_step(actives))
            steps = await self._thread.run(self._engine.run, states, plan)
            for step in steps if result_only else ():
                self._record(actives, step)
        for active in batch:
            if active.error is not None or active.scale == self._engine.scales:
                self._end(active, active.error)

    def _plan(self, batch: list[ActiveRequest], on_step: Callable[[Step], object] | None) -> RunPlan:
        scale, maxima = batch[0].scale, self._engine.max_batch_per_scale
        alone = len(batch) == len(self._running)
        deadline = min(active.ticket.deadline.at for active in batch)
        return RunPlan(
            last_scale=last_scale(len(batch), scale, maxima) if alone else scale,
            latest_start=[deadline - self.scale_times.remaining(k) for k in range(len(maxima))],
            stop=self._reconsider,
            on_step=on_step or (lambda step: None),
        )

    def _on_step(self, batch: list[ActiveRequest]) -> Callable[[Step], object]:
        loop = asyncio.get_running_loop()
        return lambda step: loop.call_soon_threadsafe(self._record, batch, step)

    async def _state(self, active: ActiveRequest) -> GenerationState | None:
        """The request's state, created on the device thread if absent; None if that fails."""
        if active.state is None:
            try:
                active.state = await self._thread.run(self._engine.begin, active.request)
            except Exception as error:
                if self._thread.lost:
                    raise
                active.error = error
        return active.state

    def _record(self, batch: list[ActiveRequest], step: Step) -> None:
        """Report a finished scale to callers, metrics and estimates. The engine may already run the next one."""
        scale = step.scale
        self.scale_times.observe_scale(scale, len(batch), step.seconds)
        self._measure(batch, step)
        for active, latent in zip(batch, step.latents, strict=True):
            active.record(step)
            if isinstance(latent, BaseException):
                active.error = latent
                continue
            if scale == self._engine.scales - 1:
                self.admission.observe(1.0, active.device_seconds)
                self._trace(active)  # before the last event, after which the call's span may end
            elif self._is_late(active, scale + 1):
                self._reconsider.set()
            active.send(ScaleDone(scale, latent))

    def _end(self, active: ActiveRequest, error: BaseException | None = None) -> None:
        """End the request in any state and release its slot and ticket."""
        for held in (self._waiting, self._running):
            with contextlib.suppress(ValueError):
                held.remove(active)
        if active.state is not None:
            if active.scale < self._engine.scales:
                self._trace(active)
            self._engine.release(active.state)
            active.state = None
        self.admission.finish(active.ticket)
        if error is not None:
            active.send(error)

    def _out_of_time(self, active: ActiveRequest) -> DeadlineExceeded:
        if active in self._waiting:
            return self.admission.expire(active.ticket)
        self._metrics.shed.add(reason="deadline")
        return DeadlineExceeded(self.admission.stage, f"the deadline cannot be met at scale {active.scale}")

    def _measure(self, batch: list[ActiveRequest], step: Step) -> None:
        self._metrics.scale_seconds.record(step.seconds, scale=str(step.scale))
        self._metrics.compute_seconds.record(step.seconds)
        self._metrics.batch_size.record(len(batch))
        links = [p.span for p in batch if p.span.is_valid]
        attributes: Attributes = {"hart.scale": step.scale, "hart.batch.size": len(batch)}
        ended_ns = step.started_ns + int(step.seconds * 1e9)
        for active in batch:
            self._tracing.record("batch", active.span, step.started_ns, ended_ns, attributes=attributes, links=links)

    def _trace(self, active: ActiveRequest) -> None:
        begun_ns = active.ticket.arrived_ns + int(active.ticket.queue_seconds * 1e9)
        waited: Attributes = {"hart.queue.seconds": active.ticket.queue_seconds}
        computed: Attributes = {"hart.compute.seconds": sum(one.seconds for one in active.times)}
        self._tracing.record("queue", active.span, active.ticket.arrived_ns, begun_ns, attributes=waited)
        self._tracing.record("compute", active.span, begun_ns, time.time_ns(), attributes=computed)

    async def close(self) -> None:
        """Stop. Callers that still wait must cancel their own wait."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
