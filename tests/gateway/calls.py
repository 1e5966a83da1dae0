"""A request to the fake cluster, how it is refused, and how a stage fails or waits."""

import asyncio
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hart.v1 import images_pb2


def request(**fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(**{"prompt": "a red heart", "seed": 7, **fields})


async def refused(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, str]:
    """The status; without details where the caller's own clock was the first to say that time is over."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(caught.value)
    for detail in status.details if status else ():
        detail.Unpack(info)
    return caught.value.code(), info, caught.value.details()


def raising(error: Exception, times: int = 1) -> Any:
    left = times

    async def before(_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return before


def holding(backpressure: asyncio.Event) -> Any:
    async def before(_: Any) -> None:
        await backpressure.wait()

    return before
