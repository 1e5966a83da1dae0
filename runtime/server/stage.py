"""A stage's load, cost and timing as hart.v1 messages."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from hart.v1 import stage_pb2
from opentelemetry import trace

from common.version import VERSION
from runtime.printable import escaped
from runtime.server.app import App
from runtime.work.admission import Admission
from runtime.work.batcher import BatchResult


def label_request(request_id: str) -> None:
    """Set the request id as an attribute of the current span."""
    if request_id:
        trace.get_current_span().set_attribute("hart.request.id", escaped(request_id[:128]))


def warming(
    app: App, admission: Admission, load: Callable[[], Iterable[tuple[float, float]]]
) -> Callable[[], Awaitable[None]]:
    """A function for `App.on_start`. It runs `load` on the device thread and records the (cost, seconds) pairs."""

    async def warm() -> None:
        for cost_measured, seconds in await app.device_thread.run(load):
            admission.observe(cost_measured, seconds)

    return warm


def load(admission: Admission, *, draining: bool = False) -> stage_pb2.StageLoad:
    """The admission's current load."""
    return stage_pb2.StageLoad(
        load=admission.load,
        queued=admission.queued,
        running=admission.running,
        queued_cost_seconds=admission.queued_seconds(),
        running_cost_seconds=admission.running_seconds(),
        estimated_wait_seconds=admission.estimated_wait(),
        draining=draining,
    )


def cost(admission: Admission) -> stage_pb2.StageCost:
    """Measured seconds: of one request alone, and of batches by size."""
    return stage_pb2.StageCost(
        request_seconds=admission.estimator.typical(1.0), batch_seconds=admission.estimator.table()
    )


def timing(outcome: BatchResult[Any], arrived_at: float) -> stage_pb2.Timing:
    """The timing of a batched request that arrived at `arrived_at` (monotonic seconds)."""
    return stage_pb2.Timing(
        queue_seconds=outcome.queue_seconds,
        compute_seconds=outcome.compute_seconds,
        total_seconds=time.monotonic() - arrived_at,
        batch_size=outcome.batch_size,
    )


def describe(app: App, admission: Admission, *, max_batch: int, **fields: Any) -> stage_pb2.StageDescribeResponse:
    """The description of this stage: the runtime's fields and the service's own `fields` (model, shape, …)."""
    limits = stage_pb2.StageLimits(
        queue_limit=admission.queue_limit,
        concurrency=int(admission.capacity),
        max_batch=max_batch,
        max_message_bytes=app.settings.max_message_bytes,
    )
    limits.MergeFrom(fields.pop("limits", stage_pb2.StageLimits()))
    return stage_pb2.StageDescribeResponse(
        stage=app.stage,
        ready=app.ready,
        limits=limits,
        load=load(admission, draining=app.draining.is_set()),
        cost=cost(admission),
        version=VERSION,
        uptime_seconds=time.monotonic() - app.started_at,
        **fields,
    )
