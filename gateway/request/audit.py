"""The audit line of a generation request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

from hart.v1 import images_pb2

from gateway.stages.timings import RequestTimings
from runtime.errors import HartError
from runtime.observability import logs


@contextmanager
def audited(
    message: images_pb2.GenerateRequest, caller: str, timings: RequestTimings, end_user: str = ""
) -> Iterator[None]:
    """Logs how the block ended: caller, request id, images, preview_every, code, seconds. Never the prompt.

    `end_user`: the caller's own user, hashed by `user_hash`; "" where the API has none.
    """
    code = "OK"
    user = {"user": end_user} if end_user else {}
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
            **user,
        )


def user_hash(caller: str, end_user: str) -> str:
    """A caller's end user as 16 hexadecimal digits, which differ between callers; "" for ""."""
    return hashlib.sha256(f"{caller}\n{end_user}".encode()).hexdigest()[:16] if end_user else ""
