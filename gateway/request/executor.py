"""Executes generation requests for every API of the gateway: limits, idempotency, deadline, audit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from functools import partial

from hart.v1 import images_pb2
from opentelemetry import trace

from gateway.config import GatewaySettings
from gateway.request.admission import AdmissionController, DecodeBackpressure
from gateway.request.audit import audited
from gateway.request.cold_start import ColdStart
from gateway.request.context import RequestContext
from gateway.request.demand import Demand
from gateway.request.idempotency import IdempotencyCache
from gateway.request.pipeline import GenerationPipeline
from gateway.request.shared_execution import Emit, LatestDeadline, SharedExecution
from gateway.request.spans import describe_span
from gateway.request.usage import Usage
from gateway.request.validation import ImageRequest, validate
from gateway.routing.capacity import Capacity
from gateway.routing.served_model import ServedModel
from gateway.stages.client import Stages
from gateway.stages.timings import RequestTimings
from runtime.deadline import Deadline
from runtime.errors import DeadlineExceeded, Overloaded

RETRY_SECONDS = 1.0  # after a refusal for the gateway's own limits


class RequestExecutor:
    """Turns a GenerateRequest into its events. One per gateway process."""

    def __init__(self, settings: GatewaySettings, stages: Stages, model: ServedModel, capacity: Capacity) -> None:
        self._settings = settings
        self._stages = stages
        self._model = model
        self._admission = AdmissionController(
            lambda: capacity.room("ar_generator"),
            capacity.wait_seconds,
            DecodeBackpressure(
                settings.max_pending_decodes, lambda: capacity.slots("ar_generator"), settings.deadline_margin_seconds
            ),
            partial(stages.metrics.shed.add, reason="queue_full"),
        )
        self._idempotency = IdempotencyCache(settings.idempotency_ttl_seconds, settings.idempotency_cache_bytes)
        self._executions: Counter[SharedExecution] = Counter()
        """Executions by number of subscribers."""
        self._unsent_bytes = 0
        self.demand = Demand()
        self.cold_start = ColdStart(stages.pools, settings, capacity.start_seconds, capacity.image_seconds)
        self.usage = Usage(stages.metrics, settings.max_labelled_callers)

    async def events(
        self, message: images_pb2.GenerateRequest, *, caller: str, deadline: Deadline, streams: bool, end_user: str = ""
    ) -> AsyncGenerator[images_pb2.GenerateEvent, None]:
        """The request's events. Raises HartError.

        `streams`: True where the caller receives every event as it happens. `end_user`: as in `audited`. Call it within
        the request's server span.
        """
        timings, margin = RequestTimings(), self._settings.deadline_margin_seconds
        served = self._model.name()
        with audited(message, caller, timings, end_user), self.usage.request(caller, served), self._ongoing():
            limits = self._model.limits()
            request = validate(message, limits, streams=streams)
            async with aclosing(self.cold_start.events(deadline.earlier(margin))) as starting:
                async for event in starting:
                    yield event
            await self._model.require()
            if limits is None:  # fields that depend on the model could not be checked before
                request = validate(message, self._model.limits(), streams=streams)
            span = trace.get_current_span()
            describe_span(span, request, message.model or served, self._settings.record_prompts)
            context = RequestContext(request.request_id, caller, LatestDeadline(deadline.at), timings, span)
            execution, replayed = self._execution(request, context, idempotent=message.HasField("request_id"))
            with self._subscribed(execution):
                # Stages get less time than this, so that they report the stage where time ran out.
                try:
                    async with asyncio.timeout(deadline.earlier(margin / 2).timeout()) as clock:
                        async with aclosing(execution.subscribe()) as events:
                            async for event in events:
                                yield _as_replayed(event) if replayed else event
                except TimeoutError:
                    raise DeadlineExceeded(execution.where() or "gateway", "no time is left") from None
                except GeneratorExit:
                    if clock.expired():  # it cancelled the sending of an event, outside of this generator
                        raise DeadlineExceeded("gateway", "the caller did not read its response in time") from None
                    raise

    @property
    def waiting_images(self) -> int:
        """Images that wait for a generator or for the decoder."""
        return self._admission.waiting

    def _execution(
        self, request: ImageRequest, context: RequestContext, *, idempotent: bool
    ) -> tuple[SharedExecution, bool]:
        """The execution of this request, and whether an earlier request with the same id started it. It lasts until the
        latest deadline of its subscribers; each of them waits until its own."""
        key = (context.caller, request.request_id)
        earlier = self._idempotency.join(key, request) if idempotent else None
        if earlier is not None:
            earlier.deadline.extend(context.deadline)
            return earlier, True

        async def run(emit: Emit) -> None:
            counted = self.usage.counting(emit, context)
            await GenerationPipeline(request, context, counted, self._stages, self._model, self._admission).run()

        execution = SharedExecution(run, context.deadline, lambda: context.timings.current)
        if idempotent:
            self._idempotency.remember(key, request, execution)
        return execution, False

    @contextmanager
    def _subscribed(self, execution: SharedExecution) -> Iterator[None]:
        self._executions[execution] += 1
        try:
            yield
        finally:
            self._executions[execution] -= 1
            self._executions += Counter()  # drops executions without a subscriber

    def _ongoing(self) -> AbstractContextManager[None]:
        """Counts the request as ongoing. Raises Overloaded at the gateway's own limits."""
        if self.demand.ongoing >= self._settings.max_ongoing_requests:
            raise self._refusal("max_ongoing_requests")
        buffered = self._unsent_bytes + sum(execution.size for execution in self._executions)
        if buffered > self._settings.max_response_buffer_bytes:
            raise self._refusal("max_response_buffer_bytes")
        return self.demand.request()

    def hold(self, size: int) -> Callable[[], None]:
        """Counts a finished response of so many bytes as buffered. Returns what to call when it has been sent."""
        self._unsent_bytes += size

        def release() -> None:
            self._unsent_bytes -= size

        return release

    def _refusal(self, setting: str) -> Overloaded:
        self._stages.metrics.shed.add(reason=setting)
        return Overloaded("gateway", f"HART_{setting.upper()}", RETRY_SECONDS)


def _as_replayed(event: images_pb2.GenerateEvent) -> images_pb2.GenerateEvent:
    if not event.HasField("finished"):
        return event
    copy = images_pb2.GenerateEvent()
    copy.CopyFrom(event)
    copy.finished.report.replayed = True
    return copy
