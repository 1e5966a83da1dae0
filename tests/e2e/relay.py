"""A gateway behind one that fails: each call is first answered with UNAVAILABLE, `failures` times, then relayed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager

import grpc
from hart.v1 import images_pb2, images_pb2_grpc


class Relay(images_pb2_grpc.ImagesServicer):
    """Relays GenerateStream, with the deadline, the status and the details as they are."""

    def __init__(self, endpoint: str) -> None:
        self._images = images_pb2_grpc.ImagesStub(grpc.insecure_channel(endpoint))
        self.failures = 0
        self.calls = 0
        """Attempts that arrived."""
        self.deadlines: list[float] = []
        """Seconds that each attempt had."""
        self._hold = False
        self._cancelled = threading.Event()

    @contextmanager
    def held(self) -> Iterator[threading.Event]:
        """Calls inside get no answer. The event is set when a caller cancels one."""
        self._hold, self._cancelled = True, threading.Event()
        yield self._cancelled
        self._hold = False

    def GenerateStream(
        self, request: images_pb2.GenerateRequest, context: grpc.ServicerContext
    ) -> Iterator[images_pb2.GenerateEvent]:
        self.deadlines.append(context.time_remaining())
        if self._hold:
            cancelled = self._cancelled
            context.add_callback(cancelled.set)
            self.calls += 1
            cancelled.wait(context.time_remaining())
            return
        self.calls += 1
        if self.failures:
            self.failures -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "no replica is ready")
        call = self._images.GenerateStream(request, timeout=context.time_remaining())
        context.add_callback(lambda: _cancel(call))
        try:
            yield from call
        except grpc.RpcError as error:
            context.set_trailing_metadata(tuple((item.key, item.value) for item in error.trailing_metadata()))
            context.abort(error.code(), error.details() or "")


def _cancel(call: grpc.Call) -> None:
    call.cancel()


@contextmanager
def relaying(endpoint: str) -> Iterator[tuple[Relay, str]]:
    """A running relay, and its address."""
    relay = Relay(endpoint)  # type: ignore[abstract]  # only the method that the examples call
    server = grpc.server(futures.ThreadPoolExecutor(4))
    images_pb2_grpc.add_ImagesServicer_to_server(relay, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield relay, f"127.0.0.1:{port}"
    server.stop(0).wait()
