"""hart.v1.Images: checks a request, has it drawn, answers. Only translates; the way of a request is the pipeline's."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import Any

from hart.v1 import images_pb2, images_pb2_grpc
from opentelemetry import trace

from gateway.access import rate_limits
from gateway.config import GatewaySettings
from gateway.request.admission import AdmissionController, DecodeBackpressure
from gateway.request.idempotency import IdempotencyCache
from gateway.request.pipeline import GenerationPipeline
from gateway.request.shared_execution import Emit, LatestDeadline, SharedExecution
from gateway.request.timings import RequestTimings
from gateway.request.validation import ImageRequest, validate
from gateway.routing.cluster_view import ClusterView
from gateway.stages.client import Stages
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, HartError, Overloaded
from runtime.observability import logs
from runtime.printable import escaped
from runtime.version import VERSION

MAX_INT64 = 2**63 - 1  # of a trace's attributes; seeds go further


class ImagesServicer(images_pb2_grpc.ImagesServicer):
    """The front door's four methods."""

    def __init__(self, settings: GatewaySettings, stages: Stages, cluster: ClusterView) -> None:
        self._settings = settings
        self._stages = stages
        self._cluster = cluster
        self._backpressure = DecodeBackpressure(
            settings.max_pending_decodes, lambda: cluster.slots("ar_generator"), settings.deadline_margin_seconds
        )
        shed = partial(stages.metrics.shed.add, reason="queue_full")
        self._admission = AdmissionController(
            lambda: cluster.room("ar_generator"), cluster.wait, self._backpressure, shed
        )
        self._idempotency = IdempotencyCache(settings.idempotency_ttl_seconds, settings.idempotency_cache_bytes)
        self._started = time.monotonic()
        self._busy_at = -math.inf
        self._watched: Counter[SharedExecution] = Counter()
        self._unsent = 0
        self.inflight = 0
        self.arrived = asyncio.Event()

    async def Generate(self, request: images_pb2.GenerateRequest, context: Any) -> images_pb2.GenerateResponse:
        """All pictures at once."""
        answer = images_pb2.GenerateResponse()
        pictures: list[images_pb2.Image] = []
        async with aclosing(self._events(request, context, streams=False)) as events:
            async for event in events:
                if event.HasField("image"):
                    pictures.append(event.image)
                elif event.HasField("finished"):
                    answer.report.CopyFrom(event.finished.report)
        answer.images.extend(sorted(pictures, key=lambda picture: picture.index))
        self._hold(answer.ByteSize(), context)
        return answer

    def _hold(self, size: int, context: Any) -> None:
        """Count an answer until it has been sent: callers may leave it unread."""
        self._unsent += size
        context.add_done_callback(lambda _: self._release(size))

    def _release(self, size: int) -> None:
        self._unsent -= size

    async def GenerateStream(
        self, request: images_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[images_pb2.GenerateEvent]:
        """What happens, as it happens."""
        async with aclosing(self._events(request, context, streams=True)) as events:
            async for event in events:
                yield event

    async def Describe(self, request: images_pb2.DescribeRequest, context: Any) -> images_pb2.DescribeResponse:
        """What this cluster serves."""
        await self._cluster.require()
        return self._cluster.describe()

    async def Status(self, request: images_pb2.StatusRequest, context: Any) -> images_pb2.StatusResponse:
        """How the cluster is."""
        return images_pb2.StatusResponse(
            stages=await self._cluster.status(),
            uptime_seconds=time.monotonic() - self._started,
            inflight=self.inflight,
            version=VERSION,
        )

    async def _events(
        self, message: images_pb2.GenerateRequest, context: Any, *, streams: bool
    ) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        timings = RequestTimings()
        settings = self._settings
        deadline = Deadline.of(
            context, default=settings.default_deadline_seconds, maximum=settings.max_deadline_seconds
        )
        with self._audited(message, timings), self._room():
            request = await self._checked(message, streams)
            _describe_span(request, message.model or self._cluster.name(), settings.record_prompts)
            work, replayed = self._work(request, message.HasField("request_id"), deadline, timings)
            self._watched[work] += 1
            try:
                # Stages are given less time than this, so that it is theirs to say where time ran out.
                async with asyncio.timeout(deadline.earlier(settings.deadline_margin_seconds / 2).timeout()) as clock:
                    async with aclosing(work.subscribe()) as events:
                        async for event in events:
                            yield _as_replayed(event) if replayed else event
            except TimeoutError:
                raise DeadlineExceeded(work.where() or "gateway", "no time is left") from None
            except GeneratorExit:
                if clock.expired():  # it cancelled the sending of an event, outside of this generator
                    raise DeadlineExceeded("gateway", "the caller did not read its answer in time") from None
                raise
            finally:
                self._watched[work] -= 1
                self._watched += Counter()  # without those that nobody watches

    async def _checked(self, message: images_pb2.GenerateRequest, streams: bool) -> ImageRequest:
        limits = self._cluster.limits()
        request = validate(message, limits, streams=streams)
        await self._cluster.require()
        # While no generator was known, what depends on the model could not be checked: now it can.
        return request if limits else validate(message, self._cluster.limits(), streams=streams)

    def _work(
        self, request: ImageRequest, given: bool, deadline: Deadline, timings: RequestTimings
    ) -> tuple[SharedExecution, bool]:
        """The work of this request, and whether an earlier one with the same id began it. The work lasts as long as the
        most patient of its callers; each of them waits until its own deadline."""
        key = (rate_limits.current.get(), request.request_id)
        earlier = self._idempotency.join(key, request) if given else None
        if earlier is not None:
            earlier.deadline.extend(deadline)
            return earlier, True
        latest = LatestDeadline(deadline.at)

        async def draw(emit: Emit) -> None:
            stages, cluster = self._stages, self._cluster
            await GenerationPipeline(
                request, latest, timings, emit, stages, cluster, self._admission, self._backpressure
            ).run()

        work = SharedExecution(draw, latest, lambda: timings.current)
        if given:
            self._idempotency.remember(key, request, work)
        return work, False

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self.inflight >= self._settings.max_ongoing_requests:
            self._stages.metrics.shed.add(reason="max_ongoing_requests")
            raise Overloaded("gateway", "HART_MAX_ONGOING_REQUESTS", 1.0)
        if sum(work.size for work in self._watched) + self._unsent > self._settings.max_response_buffer_bytes:
            self._stages.metrics.shed.add(reason="max_response_buffer_bytes")
            raise Overloaded("gateway", "HART_MAX_RESPONSE_BUFFER_BYTES", 1.0)
        self.inflight += 1
        self._busy_at = time.monotonic()
        self.arrived.set()
        self.arrived = asyncio.Event()
        try:
            yield
        finally:
            self.inflight -= 1
            self._busy_at = time.monotonic()

    def quiet_seconds(self) -> float:
        """Since the last request was in work."""
        return time.monotonic() - self._busy_at

    @contextmanager
    def _audited(self, message: images_pb2.GenerateRequest, timings: RequestTimings) -> Iterator[None]:
        code = "OK"
        try:
            yield
        except HartError as error:
            code = f"{error.code.name}/{error.reason}"
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = "CANCELLED"
            raise
        except BaseException:
            code = "INTERNAL"
            raise
        finally:
            logs.audit(
                "generate",
                caller=rate_limits.current.get(),
                request_id=message.request_id[:128],
                images=message.num_images or 1,
                code=code,
                seconds=round(timings.elapsed, 3),
            )


def _as_replayed(event: images_pb2.GenerateEvent) -> images_pb2.GenerateEvent:
    if not event.HasField("finished"):
        return event
    copy = images_pb2.GenerateEvent()
    copy.CopyFrom(event)
    copy.finished.report.replayed = True
    return copy


def _describe_span(request: ImageRequest, model: str, record_prompt: bool) -> None:
    span, seed = trace.get_current_span(), request.seeds[0]
    span.set_attributes(
        {
            "gen_ai.operation.name": "generate_content",
            "gen_ai.provider.name": "hart",
            "gen_ai.output.type": "image",
            "gen_ai.request.model": model,
            "gen_ai.request.seed": seed if seed <= MAX_INT64 else str(seed),
            "gen_ai.request.choice.count": request.num_images,
            "hart.request.id": request.request_id,
        }
    )
    if record_prompt:
        said = [{"role": "user", "parts": [{"type": "text", "content": request.prompt}]}]
        span.set_attribute("gen_ai.input.messages", escaped(json.dumps(said, ensure_ascii=False)))
