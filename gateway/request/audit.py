"""The audit line of a generation request."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from hart.v1 import images_pb2

from gateway.stages.timings import RequestTimings
from runtime.errors import HartError
from runtime.observability import logs


@contextmanager
def audited(message: images_pb2.GenerateRequest, caller: str, timings: RequestTimings) -> Iterator[None]:
    """Logs how the block ended: caller, request id, images, preview_every, code, seconds. Never the prompt."""
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
            caller=caller,
            request_id=message.request_id[:128],
            images=message.num_images or 1,
            preview_every=message.preview_every,
            code=code,
            seconds=round(timings.elapsed, 3),
        )
