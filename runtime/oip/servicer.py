"""inference.GRPCInferenceService over model descriptions."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Protocol, TypeAlias

import grpc
from opentelemetry import trace
from tritonclient.grpc import service_pb2, service_pb2_grpc

from common.version import VERSION
from runtime import errors, status
from runtime.deadline import Deadline
from runtime.observability import tracing
from runtime.observability.telemetry import Telemetry
from runtime.oip import checks, codec
from runtime.oip.model import InferRequest, InferResult, Model, TensorSpec
from runtime.server.rpc_context import RpcContext

FINAL = "triton_final_response"
STATUS = "hart_status"  # in a stream's error response: the google.rpc.Status in base64
MAX_PER_STREAM = 64
Answers: TypeAlias = "asyncio.Queue[service_pb2.ModelStreamInferResponse | None]"
"""Of a stream. None ends it."""


class Host(Protocol):
    """The parts of the process that the servicer uses."""

    models: dict[str, Model]
    ready: bool
    draining: asyncio.Event
    stage: str
    telemetry: Telemetry


def add_models(host: Host) -> tuple[Callable[[OipServicer, grpc.aio.Server], None], OipServicer]:
    """The arguments of `App.add`."""
    return service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server, OipServicer(host)


class OipServicer(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """The protocol's methods and Triton's ModelStreamInfer. Other extensions are UNIMPLEMENTED."""

    def __init__(self, host: Host) -> None:
        self._host = host

    @property
    def _models(self) -> Mapping[str, Model]:
        return self._host.models

    async def ServerLive(
        self, request: service_pb2.ServerLiveRequest, context: RpcContext
    ) -> service_pb2.ServerLiveResponse:
        """True while the process responds."""
        return service_pb2.ServerLiveResponse(live=True)

    async def ServerReady(
        self, request: service_pb2.ServerReadyRequest, context: RpcContext
    ) -> service_pb2.ServerReadyResponse:
        """True after warm-up, until the process drains."""
        return service_pb2.ServerReadyResponse(ready=self._host.ready)

    async def ModelReady(
        self, request: service_pb2.ModelReadyRequest, context: RpcContext
    ) -> service_pb2.ModelReadyResponse:
        """True after warm-up until the process drains. Raises NotFound for an unknown model."""
        checks.find(self._models, request.name, request.version)
        return service_pb2.ModelReadyResponse(ready=self._host.ready)

    async def ServerMetadata(
        self, request: service_pb2.ServerMetadataRequest, context: RpcContext
    ) -> service_pb2.ServerMetadataResponse:
        """Name, version and extensions of the server."""
        extensions = ["model_stream_infer"] if any(m.stream for m in self._models.values()) else []
        return service_pb2.ServerMetadataResponse(
            name=f"hart-{self._host.stage}", version=VERSION, extensions=extensions
        )

    async def ModelMetadata(
        self, request: service_pb2.ModelMetadataRequest, context: RpcContext
    ) -> service_pb2.ModelMetadataResponse:
        """Names, datatypes and shapes of a model's tensors."""
        model = checks.find(self._models, request.name, request.version)
        message = service_pb2.ModelMetadataResponse(name=model.name, versions=model.versions, platform=model.platform)
        message.inputs.extend(_metadata(spec) for spec in model.inputs)
        message.outputs.extend(_metadata(spec) for spec in model.outputs)
        return message

    async def ModelConfig(
        self, request: service_pb2.ModelConfigRequest, context: RpcContext
    ) -> service_pb2.ModelConfigResponse:
        """The configuration that Triton's clients read before streaming: `decoupled` for a model with many
        responses."""
        model = checks.find(self._models, request.name, request.version)
        message = service_pb2.ModelConfigResponse()
        message.config.name = model.name
        message.config.backend = model.platform
        message.config.model_transaction_policy.decoupled = model.stream is not None
        return message

    async def ModelInfer(
        self, request: service_pb2.ModelInferRequest, context: RpcContext
    ) -> service_pb2.ModelInferResponse:
        """One response; for a streaming model, the last one."""
        model = checks.find(self._models, request.model_name, request.model_version)
        found = checks.read(model, request, Deadline.of(context))
        result: InferResult | None = None
        async with contextlib.aclosing(_results(model, found)) as results:
            async for found_result, _ in results:
                result = found_result
        assert result is not None  # noqa: S101 - _results yields or raises
        return _response(model, request, result)

    async def ModelStreamInfer(
        self, request_iterator: AsyncIterator[service_pb2.ModelInferRequest], context: RpcContext
    ) -> AsyncIterator[service_pb2.ModelStreamInferResponse]:
        """Responses of many requests, interleaved. A failed request yields an error response and does not end the
        stream. While the process drains, the stream ends after the last running request."""
        answers: Answers = asyncio.Queue(MAX_PER_STREAM)
        stream = _Stream(answers, self._host, Deadline.of(context))
        reader = asyncio.create_task(stream.read(request_iterator))
        try:
            while (answer := await answers.get()) is not None:
                yield answer
            await reader  # raises the reader's error, e.g. for bytes that do not parse
        finally:
            reader.cancel()
            stream.cancel()
            while not answers.empty():  # else the reader blocks when it puts its end marker
                answers.get_nowait()


class _Stream:
    """The requests of one ModelStreamInfer call."""

    def __init__(self, answers: Answers, host: Host, deadline: Deadline) -> None:
        self._answers = answers
        self._host = host
        self._deadline = deadline
        self._running: set[asyncio.Task[None]] = set()

    async def read(self, requests: AsyncIterator[service_pb2.ModelInferRequest]) -> None:
        """Start each request on arrival. After the last one, wait for running requests, then put None."""
        draining = self._host.draining
        drained = asyncio.create_task(draining.wait())
        source = aiter(requests)
        try:
            while not draining.is_set():
                following = asyncio.ensure_future(anext(source))
                try:
                    await asyncio.wait({following, drained}, return_when=asyncio.FIRST_COMPLETED)
                    if not following.done():
                        break
                    await self._start(following.result())
                except StopAsyncIteration:
                    break
                finally:
                    following.cancel()
            await asyncio.gather(*self._running)
        finally:
            drained.cancel()
            await self._answers.put(None)

    async def _start(self, request: service_pb2.ModelInferRequest) -> None:
        if len(self._running) >= MAX_PER_STREAM:
            await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
        task = asyncio.create_task(self._answer(request))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _answer(self, request: service_pb2.ModelInferRequest) -> None:
        begun, code = time.monotonic(), grpc.StatusCode.OK
        try:
            model = checks.find(self._host.models, request.model_name, request.model_version)
            found = checks.read(model, request, self._deadline)
            async with contextlib.aclosing(_results(model, found)) as results:
                async for result, final in results:
                    message = _response(model, request, result)
                    codec.set_parameter(message.parameters[FINAL], final)
                    await self._answers.put(service_pb2.ModelStreamInferResponse(infer_response=message))
        except Exception as error:
            known = status.as_hart_error(error, self._host.stage)
            code = known.code
            tracing.mark(trace.get_current_span(), known)  # the stream's own status does not include it
            await self._answers.put(_failure(request, known))
        self._host.telemetry.metrics.count(code, time.monotonic() - begun)

    def cancel(self) -> None:
        """Cancel running requests: the client has left."""
        for task in self._running:
            task.cancel()


async def _results(model: Model, request: InferRequest) -> AsyncGenerator[tuple[InferResult, bool], None]:
    """Yield each response with a flag that marks the last one. One response is held back to detect the last one."""
    if model.infer is not None:
        yield await model.infer(request), True
        return
    assert model.stream is not None  # noqa: S101 - Model requires one of the two
    held: InferResult | None = None
    async with contextlib.aclosing(model.stream(request)) as stream:
        async for result in stream:
            if result.parameters.get(FINAL) is True:
                yield result, True
                return
            if held is not None:
                yield held, False
            held = result
    if held is None:
        raise errors.StageUnavailable(model.name, "the stream ended without a response")
    yield held, True


def _response(
    model: Model, request: service_pb2.ModelInferRequest, result: InferResult
) -> service_pb2.ModelInferResponse:
    names = checks.requested_outputs(model, request)
    message = codec.response(model.name, request.id, result.outputs, names)
    for name, value in result.parameters.items():
        codec.set_parameter(message.parameters[name], value)
    return message


def _failure(request: service_pb2.ModelInferRequest, error: errors.HartError) -> service_pb2.ModelStreamInferResponse:
    ending = service_pb2.ModelInferResponse(model_name=request.model_name, id=request.id)
    codec.set_parameter(ending.parameters[FINAL], True)
    encoded = base64.b64encode(status.to_proto(error).SerializeToString()).decode()
    codec.set_parameter(ending.parameters[STATUS], encoded)
    return service_pb2.ModelStreamInferResponse(
        error_message=f"[{error.code.name}] {error.message}", infer_response=ending
    )


def _metadata(spec: TensorSpec) -> service_pb2.ModelMetadataResponse.TensorMetadata:
    return service_pb2.ModelMetadataResponse.TensorMetadata(
        name=spec.name, datatype=spec.datatypes[0], shape=spec.shape
    )
