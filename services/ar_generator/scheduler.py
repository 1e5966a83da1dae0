"""Which pictures advance by which scale next. Knows no model and no wire.

The oldest picture leads, and whoever stands at its scale comes along, as many as that scale's width allows. Small
scales are bound by launches or by reading weights: they are wide, and a batch costs hardly more than one picture. At
large ones a picture keeps the device busy alone; company there would delay it and gain nothing. So newcomers gather at
scale 0 while an older picture is finished, and then go through the small scales together. Lest they stand still for
long meanwhile, one that has waited longer than `patience` at a wide scale leads once in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncGenerator

from opentelemetry import trace

from model.generation import State
from runtime.work.admission import Admission
from runtime.deadline import Deadline
from runtime.work.device_thread import EngineThread
from runtime.errors import DeadlineExceeded
from runtime.observability.metrics import Metrics
from runtime.observability.tracing import Attributes, Tracing
from services.ar_generator.engine import GeneratorEngine, Step, Wish
from services.ar_generator.scale_times import Pace
from services.ar_generator.active_request import Admitted, Event, Picture, ScaleDone

log = logging.getLogger(__name__)


class Scheduler:
    """Interleaves pictures over the engine's slots. To be used from the event loop's thread."""

    def __init__(
        self,
        engine: GeneratorEngine,
        *,
        admission: Admission,
        pace: Pace,
        thread: EngineThread,
        patience: float,
        metrics: Metrics,
        tracing: Tracing,
    ) -> None:
        self.admission, self.pace = admission, pace
        self._engine, self._thread, self._patience = engine, thread, patience
        self._metrics, self._tracing = metrics, tracing
        self._waiting: list[Picture] = []
        self._running: list[Picture] = []
        self._arrived = asyncio.Event()
        self._cut_in = False
        self._to_decide = threading.Event()
        self._task: asyncio.Task[None] | None = None

    async def draw(self, wish: Wish, deadline: Deadline) -> AsyncGenerator[tuple[Picture, Event], None]:
        """The picture's events: Admitted, then ScaleDone for each scale; the last one has the final latent.

        Raises Overloaded or DeadlineExceeded at once, DeadlineExceeded when time runs out. Closing the generator frees
        the place in the queue at once, the slot at the next scale boundary.
        """
        span = trace.get_current_span().get_span_context()
        picture = Picture(wish, self.admission.admit(1.0, deadline), span)
        self._waiting.append(picture)
        self._wake()
        try:
            while True:
                news = await self._news(picture)
                yield picture, news
                if isinstance(news, ScaleDone) and news.scale == self._engine.scales - 1:
                    return
        finally:
            self._abandon(picture)

    async def _news(self, picture: Picture) -> Event:
        try:
            news = await asyncio.wait_for(picture.news.get(), picture.ticket.deadline.timeout())
        except TimeoutError:
            raise self._out_of_time(picture) from None
        if isinstance(news, BaseException):
            raise news
        return news

    def _abandon(self, picture: Picture) -> None:
        picture.abandoned = True
        if picture in self._waiting:
            self._waiting.remove(picture)
            self.admission.finish(picture.ticket)
        self._to_decide.set()

    def _wake(self) -> None:
        self._arrived.set()
        self._to_decide.set()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._serve(), name="scheduler")

    async def _serve(self) -> None:
        try:
            while True:
                await self._something_to_do()
                self._drop_the_lost()
                self._give_slots()
                batch = self._choose()
                if batch:
                    await self._advance(batch)
        except Exception as error:
            log.exception("the scheduler failed; it begins anew with the next request")
            for picture in [*self._running, *self._waiting]:
                self._end(picture, error)

    async def _something_to_do(self) -> None:
        if not self._waiting and not self._running:
            self._arrived.clear()
            await self._arrived.wait()
        self._to_decide.clear()

    def _drop_the_lost(self) -> None:
        """Ends pictures whose caller has gone, or which can no longer be finished in time."""
        for picture in [p for p in [*self._running, *self._waiting] if p.abandoned or self._is_late(p, p.scale)]:
            self._end(picture, None if picture.abandoned else self._out_of_time(picture))

    def _is_late(self, picture: Picture, scale: int) -> bool:
        """Whether time does not suffice for the scales from this one on."""
        return picture.ticket.deadline.remaining() <= self.pace.remaining(scale)

    def _give_slots(self) -> None:
        """The slots that are free go to those who have waited longest."""
        while self._waiting and len(self._running) < self._engine.slots:
            picture = self._waiting.pop(0)
            self.admission.start(picture.ticket)
            self._running.append(picture)
            picture.moved_at = time.monotonic()
            picture.tell(Admitted(picture.ticket.queue_seconds))

    def _choose(self) -> list[Picture]:
        """The leader, and those who share its batch, the oldest first."""
        if not self._running:
            return []
        impatient = None if self._cut_in else self._impatient()
        leader = impatient or self._running[0]
        self._cut_in = impatient is not None and impatient is not self._running[0]
        company = [p for p in self._running if p.scale == leader.scale and p is not leader]
        return [leader, *company][: self._engine.widths[leader.scale]]

    def _impatient(self) -> Picture | None:
        horizon = time.monotonic() - self._patience
        standing = [p for p in self._running if self._engine.widths[p.scale] > 1 and p.moved_at < horizon]
        return min(standing, key=lambda p: p.moved_at, default=None)

    async def _advance(self, batch: list[Picture]) -> None:
        """Scale after scale, until there may be something else to choose."""
        loop, widths = asyncio.get_running_loop(), self._engine.widths
        alone = len(batch) == len(self._running)
        quiet = all(picture.wish.quiet for picture in batch)
        untold: list[tuple[list[Picture], int, Step]] = []

        # What follows up to `work` runs on the engine's thread.
        def further(scale: int) -> bool:
            in_time = not (quiet and any(self._is_late(picture, scale) for picture in batch))
            return alone and in_time and len(batch) <= widths[scale] and not self._to_decide.is_set()

        def report(begun: list[Picture], scale: int, step: Step) -> None:
            if quiet:  # each time that the event loop wakes up, the engine has to wait for the interpreter's lock
                untold.append((begun, scale, step))
            else:
                loop.call_soon_threadsafe(self._account, begun, scale, step)

        def work() -> None:
            begun = [(picture, state) for picture in batch if (state := self._begun(picture)) is not None]
            if begun:
                pictures = [picture for picture, _ in begun]
                states = [(state, picture.wish) for picture, state in begun]
                self._engine.advance_on(states, further, lambda scale, step: report(pictures, scale, step))

        await self._thread.run(work)
        for told in untold:
            self._account(*told)
        for picture in batch:
            if picture.error is not None or picture.scale == self._engine.scales:
                self._end(picture, picture.error)

    def _begun(self, picture: Picture) -> State | None:
        """The picture's state, made where it has none yet; None where that fails. On the engine's thread."""
        try:
            picture.state = picture.state or self._engine.begin(picture.wish)
        except Exception as error:
            if self._thread.is_fatal(error):
                raise
            picture.error = error
        return picture.state

    def _account(self, batch: list[Picture], scale: int, step: Step) -> None:
        """Tells callers, metrics and estimates of a scale that was drawn; the engine may be at the next one already."""
        self.pace.observe_scale(scale, len(batch), step.seconds)
        self._measure(batch, scale, step)
        for picture, latent in zip(batch, step.latents, strict=True):
            picture.note(scale, step)
            if isinstance(latent, BaseException):
                picture.error = latent
                continue
            if scale == self._engine.scales - 1:
                self.admission.observe(1.0, picture.share)
                self._trace(picture)  # before the last news: with them the call's own span may end
            elif self._is_late(picture, scale + 1):
                self._to_decide.set()
            picture.tell(ScaleDone(scale, latent))

    def _end(self, picture: Picture, error: BaseException | None = None) -> None:
        """Frees the picture's place, wherever it stands."""
        for held in (self._waiting, self._running):
            with contextlib.suppress(ValueError):
                held.remove(picture)
        if picture.state is not None:
            if picture.scale < self._engine.scales:
                self._trace(picture)
            self._engine.release(picture.state)
            picture.state = None
        self.admission.finish(picture.ticket)
        if error is not None:
            picture.tell(error)

    def _out_of_time(self, picture: Picture) -> DeadlineExceeded:
        if picture in self._waiting:
            return self.admission.expire(picture.ticket)
        self._metrics.shed.add(reason="deadline")
        return DeadlineExceeded(self.admission.stage, f"time does not suffice at scale {picture.scale}")

    def _measure(self, batch: list[Picture], scale: int, step: Step) -> None:
        self._metrics.scale_seconds.record(step.seconds, scale=str(scale))
        self._metrics.compute_seconds.record(step.seconds)
        self._metrics.batch_size.record(len(batch))
        links = [p.span for p in batch if p.span.is_valid]
        attributes: Attributes = {"hart.scale": scale, "hart.batch.size": len(batch)}
        ended_ns = step.started_ns + int(step.seconds * 1e9)
        for picture in batch:
            self._tracing.record("batch", picture.span, step.started_ns, ended_ns, attributes=attributes, links=links)

    def _trace(self, picture: Picture) -> None:
        begun_ns = picture.ticket.arrived_ns + int(picture.ticket.queue_seconds * 1e9)
        waited: Attributes = {"hart.queue.seconds": picture.ticket.queue_seconds}
        computed: Attributes = {"hart.compute.seconds": sum(one.seconds for one in picture.times)}
        self._tracing.record("queue", picture.span, picture.ticket.arrived_ns, begun_ns, attributes=waited)
        self._tracing.record("compute", picture.span, begun_ns, time.time_ns(), attributes=computed)

    async def close(self) -> None:
        """Stop. Who still waits is left to its own cancellation."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
