"""A decoder with a fake engine on a real server in this process, without torch."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import status_pb2
from hart.v1 import decoder_pb2, decoder_pb2_grpc, stage_pb2
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from runtime import tensors
from runtime.deadline import Deadline
from runtime.observability.telemetry import Telemetry
from runtime.oip.model import DYNAMIC, InferRequest, InferResult, Model, TensorSpec
from runtime.server.app import App
from runtime.settings import ProcessSettings
from runtime.work.batcher import Batcher


class Engine:
    """Returns each latent's sum. `seconds` is the time per batch, `fail` maps sums to errors to raise."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.batches: list[int] = []
        self.fail: dict[float, Exception] = {}
        self.release = threading.Event()
        self.release.set()

    def run(self, latents: Sequence[np.ndarray]) -> list[float]:
        self.batches.append(len(latents))
        self.release.wait(120)  # longer than the timeout of `until`
        time.sleep(self.seconds)
        sums = [float(x.sum()) for x in latents]
        for value in sums:
            if value in self.fail:
                raise self.fail[value]
        return sums


class Servicer(decoder_pb2_grpc.DecoderServicer):
    def __init__(self, batcher: Batcher[Any, float]) -> None:
        self._batcher = batcher

    async def Decode(
        self, request: decoder_pb2.DecodeRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> decoder_pb2.DecodeResponse:
        latent = tensors.to_numpy(request.latent, "latent", dtypes=("FP32",), shape=(None, None, None))
        outcome = await self._batcher.submit(latent, deadline=Deadline.of(context))
        timing = stage_pb2.Timing(batch_size=outcome.batch_size, compute_seconds=outcome.compute_seconds)
        return decoder_pb2.DecodeResponse(image=str(outcome.value).encode(), timing=timing)


def request(value: float = 1.0) -> decoder_pb2.DecodeRequest:
    return decoder_pb2.DecodeRequest(latent=tensors.from_numpy(np.full((1, 2, 2), value / 4, np.float32)))


def sum_model(batcher: Batcher[Any, float]) -> Model:
    async def infer(asked: InferRequest) -> InferResult:
        outcome = await batcher.submit(asked.inputs["latent"], deadline=asked.deadline)
        return InferResult({"sum": np.array([outcome.value], np.float32)})

    return Model(
        name="decoder",
        inputs=(TensorSpec("latent", ("FP32",), (DYNAMIC, 4)),),
        outputs=(TensorSpec("sum", ("FP32",), (1,)),),
        infer=infer,
        parameters={"scale": float},
    )


def count_model() -> Model:
    async def stream(asked: InferRequest) -> AsyncGenerator[InferResult, None]:
        for i in range(int(asked.inputs["n"][0])):
            await asyncio.sleep(0.001)
            yield InferResult({"i": np.array([i], np.int32), "text": np.array([b"%d" % i], object)})

    return Model(
        name="count",
        inputs=(TensorSpec("n", ("INT32",), (1,)),),
        outputs=(TensorSpec("i", ("INT32",), (1,)), TensorSpec("text", ("BYTES",), (1,))),
        stream=stream,
    )


class Running(SimpleNamespace):
    app: App
    engine: Engine
    spans: InMemorySpanExporter
    channel: grpc.aio.Channel
    stub: decoder_pb2_grpc.DecoderAsyncStub
    batcher: Batcher[Any, float]
    starting: asyncio.Task[None]


Launch = Callable[..., Awaitable[Running]]


async def start(
    settings: ProcessSettings | None = None,
    *,
    ratio: float = 1.0,
    queue_limit: int = 4,
    max_batch: int = 2,
    before_start: Callable[[App], object] | None = None,
    wait: bool = True,
) -> Running:
    spans = InMemorySpanExporter()
    telemetry = Telemetry("decoder", trace_ratio=ratio, span_exporter=spans)
    app = App(settings or ProcessSettings(port=0), "decoder", telemetry)
    engine = Engine()
    batcher = app.batcher(engine.run, queue_limit=queue_limit, max_batch=max_batch)
    app.add(decoder_pb2_grpc.add_DecoderServicer_to_server, Servicer(batcher))
    app.add_model(sum_model(batcher))
    app.add_model(count_model())
    if before_start:
        before_start(app)
    starting = asyncio.create_task(app.start())
    if wait:
        await starting
    else:
        while not app.port:
            await asyncio.sleep(0.01)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{app.port}")
    stub = decoder_pb2_grpc.DecoderStub(channel)
    return Running(app=app, engine=engine, spans=spans, channel=channel, stub=stub, batcher=batcher, starting=starting)


async def end(running: Running) -> None:
    running.engine.release.set()
    await running.channel.close()
    await running.app.stop()


class Proxy:
    """A TCP proxy that can pause (`flowing.clear()`) or cut every connection."""

    def __init__(self, target: int) -> None:
        self._target = target
        self.flowing = asyncio.Event()
        self.flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        self.cut()

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, far_writer}
        await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.flowing.wait()
            writer.write(data)
            await writer.drain()
        writer.close()


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait until the condition holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def refusal(call: Any) -> tuple[grpc.StatusCode, status_pb2.Status, str]:
    """Status code, details and text of a failed call."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    proto = status_pb2.Status()
    for key, value in caught.value.trailing_metadata():
        if key == "grpc-status-details-bin":
            proto.ParseFromString(value)
    return caught.value.code(), proto, caught.value.details() or ""


def detail(proto: status_pb2.Status, kind: Callable[[], Any]) -> Any:
    """The detail of this kind."""
    found = kind()
    assert any(d.Unpack(found) for d in proto.details), f"no {kind} in {proto}"
    return found
