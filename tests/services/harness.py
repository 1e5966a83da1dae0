"""A scheduler on an engine that waits for a permit before each step."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from runtime.deadline import Deadline
from runtime.observability.telemetry import Telemetry
from runtime.work.admission import Admission
from runtime.work.device_thread import DeviceThread
from services.ar_generator.engine import GeneratorEngine, Step
from services.ar_generator.scale_times import ScaleTimeEstimator
from services.ar_generator.scheduler import Scheduler

SCALES = 4


class FakeRequest(str):
    """A generation request, as far as the scheduler reads it."""

    result_only = False


class ResultOnly(FakeRequest):
    result_only = True


@dataclass
class GenerationState:
    name: str
    scale: int = 0


class Engine:
    """Two scales of batch size 4, then two of 1. Each step takes a permit of `steps` and is recorded in `log`."""

    scales = SCALES
    slots = 4
    max_batch_per_scale = (4, 4, 1, 1)
    run = GeneratorEngine.run

    def __init__(self) -> None:
        self.steps = threading.Semaphore(0)
        self.log: list[tuple[int, str]] = []
        self.free = self.slots
        self.fail: set[str] = set()
        self.bad: set[str] = set()

    def begin(self, request: Any) -> GenerationState:
        if request in self.bad:
            raise ValueError("cannot begin")
        assert self.free > 0
        self.free -= 1
        return GenerationState(request)

    def release(self, state: GenerationState) -> None:
        self.free += 1

    def advance(self, batch: list[tuple[GenerationState, Any]]) -> Step:
        assert self.steps.acquire(timeout=20)
        scale = batch[0][0].scale
        self.log.append((scale, "".join(state.name for state, _ in batch)))
        latents: list[Any] = []
        for state, _ in batch:
            failed = state.name in self.fail
            state.scale += not failed
            latents.append(OSError("broken") if failed else np.zeros(1) if state.scale == SCALES else None)
        return Step(scale, latents, time.time_ns(), 0.001)


class SchedulerHarness(SimpleNamespace):
    """A scheduler, its engine, and requests named by letters."""

    engine: Engine
    scheduler: Scheduler
    admission: Admission
    scale_times: ScaleTimeEstimator
    thread: DeviceThread
    seen: dict[str, list[Any]]

    def draw(
        self, name: str, deadline: Deadline | None = None, kind: Callable[[str], Any] = FakeRequest
    ) -> asyncio.Task[list[Any]]:
        async def collect() -> list[Any]:
            seen = self.seen.setdefault(name, [])
            async with aclosing(self.scheduler.draw(kind(name), deadline or Deadline.none())) as events:
                async for _, event in events:
                    seen.append(event)
            return seen

        return asyncio.create_task(collect(), name=name)

    async def step(self, count: int = 1) -> None:
        """Permit `count` steps and wait until they have been taken."""
        wanted = len(self.engine.log) + count
        for _ in range(count):
            self.engine.steps.release()
        await until(lambda: len(self.engine.log) >= wanted)
        await asyncio.sleep(0.02)

    def run_free(self) -> None:
        """Permit all further steps."""
        for _ in range(1000):
            self.engine.steps.release()

    async def at_rest(self) -> None:
        """Wait until every slot and queue place is free, shortly after the last event."""
        await until(lambda: self.engine.free == self.engine.slots)
        await until(lambda: not self.admission.queued + self.admission.running)


async def until(condition: Any) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        await asyncio.sleep(0.002)


@asynccontextmanager
async def harness_factory() -> AsyncIterator[Callable[..., SchedulerHarness]]:
    """Yields a factory of harnesses; closes them all at the end."""
    harnesses: list[SchedulerHarness] = []

    def build(starvation_limit: float = 1000.0, queue_limit: int = 10) -> SchedulerHarness:
        telemetry, engine, thread = Telemetry("ar_generator"), Engine(), DeviceThread()
        scale_times = ScaleTimeEstimator(SCALES)
        admission = Admission("ar_generator", queue_limit=queue_limit, capacity=Engine.slots, estimator=scale_times)
        scheduler = Scheduler(
            engine,  # type: ignore[arg-type]
            admission=admission,
            scale_times=scale_times,
            thread=thread,
            starvation_limit=starvation_limit,
            metrics=telemetry.metrics,
            tracing=telemetry.tracing,
        )
        harnesses.append(
            SchedulerHarness(
                engine=engine, scheduler=scheduler, admission=admission, scale_times=scale_times, thread=thread, seen={}
            )
        )
        return harnesses[-1]

    yield build
    for harness in harnesses:
        harness.run_free()
        await harness.scheduler.close()
        harness.thread.close()
