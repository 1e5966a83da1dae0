"""Helpers of the gateway's tests: requests, refusals, and hooks that make a fake stage fail or wait."""

import asyncio
from collections.abc import Awaitable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hart.v1 import images_pb2

from tests.gateway.support import Hook


def request(**fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(**{"prompt": "a red heart", "seed": 7, **fields})


async def refused(call: Awaitable[object]) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, str]:
    """Status code, details and text of a failed call; no details if the client's own deadline ended it."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(caught.value)
    for detail in status.details if status else ():
        detail.Unpack(info)
    return caught.value.code(), info, caught.value.details() or ""


def raising(error: Exception, times: int = 1) -> Hook:
    """A hook that raises the error the first `times` times."""
    left = times

    async def before(_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return before


def holding(release: asyncio.Event) -> Hook:
    """A hook that waits for the event."""

    async def before(_: Any) -> None:
        await release.wait()

    return before
