"""The blocking client. hart.request, hart.results, hart.errors and hart.channel are shared with the asyncio client."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar, Unpack

import grpc

from hart import errors, request
from hart.channel import DEFAULT_ENDPOINT, DEFAULT_MESSAGE_BYTES, TLS, Connection
from hart.results import Event, GenerateResult, event_of
from hart.v1 import images_pb2, images_pb2_grpc

T = TypeVar("T")


class Client:
    """Generates images on a cluster. Thread-safe; a context manager closes it.

    `endpoint` is host:port. `api_key` is sent as a bearer token. `tls` is a `hart.TLS`, or None for plaintext. Sending
    a key over plaintext to another machine requires `insecure=True`. Timeouts are in seconds; None uses the server's
    default (60 s). A failed call raises a `hart.HartError`. A call on a closed client raises ValueError.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        api_key: str | None = None,
        tls: TLS | None = None,
        *,
        insecure: bool = False,
    ) -> None:
        self._connection = Connection(endpoint, api_key, tls, insecure)
        self._message_bytes = DEFAULT_MESSAGE_BYTES
        self._channels: list[grpc.Channel] = []
        self._closed = False
        self._open()

    def _open(self) -> None:
        self._channels.append(self._connection.open(self._message_bytes))
        self._newest = images_pb2_grpc.ImagesStub(self._channels[-1])

    @property
    def _stub(self) -> images_pb2_grpc.ImagesStub:
        if self._closed:
            raise ValueError("the client is closed")
        return self._newest

    def generate(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[request.Options]
    ) -> GenerateResult:
        """Return all images of a request when they are done; options as in `hart.request.Options`."""
        message = request.build(prompt, options)
        return GenerateResult.of(self._call(self._stub.Generate, message, timeout, message.request_id))

    def stream(
        self, prompt: str, *, timeout: float | None = None, **options: Unpack[request.Options]
    ) -> Generator[Event, None, None]:
        """Yield the events of a request as they arrive. Closing the iterator cancels the request on the server."""
        message = request.build(prompt, options)
        timeout = request.timeout_of(timeout)
        return self._events(message, timeout)

    def _events(self, message: images_pb2.GenerateRequest, timeout: float | None) -> Generator[Event, None, None]:
        call: Any = self._stub.GenerateStream(message, timeout=timeout, metadata=self._connection.metadata())
        try:
            for event in map(event_of, call):
                if event is not None:
                    yield event
        except grpc.RpcError as error:
            raise errors.from_rpc(error, message.request_id, self._connection.proxy) from None
        finally:
            call.cancel()  # A no-op once the stream has ended.

    def describe(self, *, timeout: float | None = 10) -> images_pb2.DescribeResponse:
        """Models, limits and defaults. Later calls accept responses up to the `max_response_bytes` returned."""
        response = self._call(self._stub.Describe, images_pb2.DescribeRequest(), timeout)
        if response.limits.max_response_bytes > self._message_bytes:
            self._message_bytes = response.limits.max_response_bytes
            self._open()
        return response

    def status(self, *, timeout: float | None = 10) -> images_pb2.StatusResponse:
        """The replicas and load of every stage."""
        return self._call(self._stub.Status, images_pb2.StatusRequest(), timeout)

    def _call(self, method: Callable[..., T], message: Any, timeout: float | None, request_id: str = "") -> T:
        timeout = request.timeout_of(timeout)
        # A future, so that an interrupt while waiting also cancels the request on the server.
        call: Any = method.future(message, timeout=timeout, metadata=self._connection.metadata())  # type: ignore[attr-defined]
        try:
            response: T = call.result()
        except grpc.FutureCancelledError:
            raise errors.Cancelled("the call was cancelled", grpc.StatusCode.CANCELLED, request_id) from None
        except grpc.RpcError as error:
            raise errors.from_rpc(error, request_id, self._connection.proxy) from None
        finally:
            call.cancel()
        return response

    def close(self) -> None:
        """Cancel every call and close the connections."""
        self._closed = True
        for channel in self._channels:
            channel.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
