"""Counts what each caller uses: requests, images, pixels. Also the times that callers perceive."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
from hart.v1 import images_pb2

from gateway.request.context import RequestContext
from gateway.request.shared_execution import Emit
from runtime.errors import HartError
from runtime.observability import semconv
from runtime.observability.metrics import Metrics

ANONYMOUS, OTHER = "anonymous", "other"
"""Labels of callers without a name, and of those above the max of labels."""


class Usage:
    """Measures requests. The first `max_callers` names get a label of their own, so that series stay bounded."""

    def __init__(self, metrics: Metrics, max_callers: int) -> None:
        self._metrics = metrics
        self._max_callers = max_callers
        self._callers: set[str] = set()

    def label(self, caller: str) -> str:
        """The caller's label."""
        if not caller:
            return ANONYMOUS
        if caller not in self._callers and len(self._callers) >= self._max_callers:
            return OTHER
        self._callers.add(caller)
        return caller

    def refused(self, caller: str) -> None:
        """Count a request that a limit of its caller refused."""
        code = grpc.StatusCode.RESOURCE_EXHAUSTED
        self._metrics.caller_requests.add(caller=self.label(caller), code=code.name)

    @contextmanager
    def request(self, caller: str, model: str) -> Iterator[None]:
        """Count the request of the block by its caller and by how it ended, and record its duration."""
        begun, code = time.monotonic(), grpc.StatusCode.OK
        try:
            yield
        except HartError as error:
            code = error.code
            raise
        except (asyncio.CancelledError, GeneratorExit):
            code = grpc.StatusCode.CANCELLED
            raise
        except BaseException:
            code = grpc.StatusCode.INTERNAL
            raise
        finally:
            self._metrics.caller_requests.add(caller=self.label(caller), code=code.name)
            self._metrics.gen_ai_seconds.record(time.monotonic() - begun, **_labels(model, code))

    def counting(self, emit: Emit, context: RequestContext) -> Emit:
        """`emit`, which also counts images and the first preview of the request."""
        caller, previewed = self.label(context.caller), False

        def emit_and_count(event: images_pb2.GenerateEvent) -> None:
            nonlocal previewed
            if event.HasField("image"):
                self._metrics.images.add(caller=caller)
                self._metrics.pixels.add(event.image.width * event.image.height, caller=caller)
            elif event.HasField("progress") and event.progress.HasField("preview") and not previewed:
                previewed = True
                self._metrics.first_preview_seconds.record(context.timings.elapsed)
            emit(event)

        return emit_and_count


def _labels(model: str, code: grpc.StatusCode) -> dict[str, str]:
    labels = {
        semconv.GEN_AI_OPERATION_NAME: semconv.GENERATE_CONTENT,
        semconv.GEN_AI_PROVIDER_NAME: semconv.PROVIDER,
        semconv.GEN_AI_REQUEST_MODEL: model,
    }
    return labels if code is grpc.StatusCode.OK else {**labels, semconv.ERROR_TYPE: code.name}
