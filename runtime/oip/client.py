"""A client of one model on an Open Inference Protocol server: this project's, Triton or KServe."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncGenerator, Mapping, Sequence

import grpc
from google.rpc import status_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from runtime import errors, status
from runtime.channel import drain_call
from runtime.deadline import Deadline
from runtime.observability.tracing import Metadata
from runtime.oip import codec
from runtime.oip.model import Array, InferResult, Parameter
from runtime.oip.servicer import FINAL, STATUS

MAX_ELEMENTS = 2**28
_MODEL_GONE = re.compile(r"unknown model|no available versions|[Ss]tub process .* not healthy")
"""Triton's messages, with varying codes, while a model reloads or after its Python process died."""


class OipClient:
    """Calls `model` over a channel that the caller owns. Errors carry the name `stage`."""

    def __init__(self, channel: grpc.aio.Channel, model: str, stage: str) -> None:
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        self._model = model
        self._stage = stage

    async def ready(self, seconds: float) -> bool:
        """True if the model is ready. Raises grpc.RpcError if the server does not respond."""
        request = service_pb2.ModelReadyRequest(name=self._model)
        return bool((await self._stub.ModelReady(request, timeout=seconds)).ready)

    async def metadata(self, seconds: float) -> service_pb2.ModelMetadataResponse:
        """The server's ModelMetadataResponse."""
        return await self._stub.ModelMetadata(service_pb2.ModelMetadataRequest(name=self._model), timeout=seconds)

    async def infer(
        self,
        inputs: Mapping[str, Array],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        deadline: Deadline,
        metadata: Metadata = (),
        request_id: str = "",
    ) -> InferResult:
        """Call ModelInfer. Raises the domain error of the server's status."""
        request = _request(self._model, inputs, parameters or {}, request_id)
        try:
            answer = await self._stub.ModelInfer(request, timeout=deadline.timeout(), metadata=metadata)
        except grpc.RpcError as error:
            raise self._error(error) from error
        return self._result(answer)

    async def stream(
        self,
        inputs: Mapping[str, Array],
        parameters: Mapping[str, Parameter] | None = None,
        *,
        deadline: Deadline,
        metadata: Metadata = (),
        request_id: str = "",
    ) -> AsyncGenerator[tuple[InferResult, bool], None]:
        """Yield each response with a flag that marks the last one. Raises like `infer`, and StageUnavailable if the
        stream ends before the last response."""
        request = _request(self._model, inputs, parameters or {}, request_id)
        # The request stream stays open until the last response: some servers cancel a half-closed stream.
        call = self._stub.ModelStreamInfer(timeout=deadline.timeout(), metadata=metadata)
        whole = False
        try:
            await call.write(request)
            while True:
                answer = await call.read()
                if answer is grpc.aio.EOF:
                    raise errors.StageUnavailable(self._stage, "the stream ended before the last response")
                if answer.error_message:
                    raise self._stream_error(answer)
                final = answer.infer_response.parameters[FINAL].bool_param
                whole = bool(final)
                if answer.infer_response.outputs or not final:
                    yield self._result(answer.infer_response), final
                if final:
                    return
        except grpc.RpcError as error:
            raise self._error(error) from error
        finally:
            drain_call(call) if whole else call.cancel()

    def _error(self, error: grpc.RpcError) -> errors.HartError:
        if _MODEL_GONE.search(error.details() or ""):
            return self._gone()
        return status.from_rpc_error(error, self._stage)

    def _gone(self) -> errors.HartError:
        return errors.StageUnavailable(self._stage, "its server no longer serves the model")

    def _stream_error(self, answer: service_pb2.ModelStreamInferResponse) -> errors.HartError:
        encoded = answer.infer_response.parameters[STATUS].string_param
        if encoded:
            return status.from_proto(status_pb2.Status.FromString(base64.b64decode(encoded)), self._stage)
        if _MODEL_GONE.search(answer.error_message):
            return self._gone()
        return errors.Internal(status.new_error_id(), stage=self._stage)

    def _result(self, answer: service_pb2.ModelInferResponse) -> InferResult:
        try:
            outputs = {t.name: self._output(t, answer.raw_output_contents, i) for i, t in enumerate(answer.outputs)}
        except errors.InvalidRequest as error:  # an error of the server, not of the caller
            raise errors.Internal(status.new_error_id(), stage=self._stage) from error
        return InferResult(outputs, codec.parameters(answer.parameters))

    def _output(
        self, tensor: service_pb2.ModelInferResponse.InferOutputTensor, raw: Sequence[bytes], index: int
    ) -> Array:
        shape = tuple(tensor.shape)
        field = f"outputs[{tensor.name}]"
        codec.element_count(shape, field, MAX_ELEMENTS)
        if index < len(raw):
            return codec.decode_raw(raw[index], tensor.datatype, shape, field)
        return codec.decode_typed(tensor.contents, tensor.datatype, shape, field)


def _request(
    model: str, inputs: Mapping[str, Array], parameters: Mapping[str, Parameter], request_id: str
) -> service_pb2.ModelInferRequest:
    message = service_pb2.ModelInferRequest(model_name=model, id=request_id)
    for name, array in inputs.items():
        datatype, raw = codec.encode(array)
        message.inputs.add(name=name, datatype=datatype, shape=array.shape)
        message.raw_input_contents.append(raw)
    for name, value in parameters.items():
        codec.set_parameter(message.parameters[name], value)
    return message
