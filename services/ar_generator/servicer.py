"""hart.v1.ArGenerator, hart.v1.Stage and the Open Inference Protocol's model `ar_generator`, over one scheduler."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import numpy as np
from hart.v1 import ar_generator_pb2, ar_generator_pb2_grpc, stage_pb2, stage_pb2_grpc

from runtime import tensors
from runtime.deadline import Deadline
from runtime.oip.model import InferRequest, InferResult, Model, TensorSpec
from runtime.server import stage
from runtime.server.app import App
from runtime.server.rpc_context import RpcContext
from services.ar_generator.active_request import ActiveRequest, Admitted
from services.ar_generator.engine import Array, GeneratorEngine
from services.ar_generator.requests import FLOATS, parse_infer_request, parse_request, to_proto
from services.ar_generator.scheduler import Scheduler


class ArGeneratorServicer(ar_generator_pb2_grpc.ArGeneratorServicer, stage_pb2_grpc.StageServicer):
    """Converts between messages and the types of the scheduler and of the engine."""

    def __init__(self, app: App, engine: GeneratorEngine, scheduler: Scheduler) -> None:
        self._app, self._engine, self._scheduler = app, engine, scheduler

    async def Generate(
        self, request: ar_generator_pb2.GenerateLatentRequest, context: RpcContext
    ) -> AsyncGenerator[ar_generator_pb2.GenerateLatentEvent, None]:
        """Generate one latent, scale by scale."""
        stage.label_request(request.request_id)
        parsed = parse_request(request, self._context_shape, self._engine.scales, self._engine.defaults)
        last = self._engine.scales - 1
        async with aclosing(self._scheduler.draw(parsed, Deadline.of(context))) as events:
            async for active, event in events:
                if isinstance(event, Admitted):
                    if not parsed.result_only:
                        yield self._admitted(event)
                    continue
                if not parsed.result_only:
                    yield self._progress(event.scale, event.latent if parsed.previews(event.scale) else None)
                if event.scale == last and event.latent is not None:
                    yield self._result(active, event.latent)

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: RpcContext
    ) -> stage_pb2.StageDescribeResponse:
        """This stage's limits, load, cost per scale and shapes."""
        engine, scheduler = self._engine, self._scheduler
        tokens, width = self._context_shape
        answer = stage.describe(
            self._app,
            scheduler.admission,
            max_batch=max(engine.max_batch_per_scale),
            limits=stage_pb2.StageLimits(max_tensor_elements=tokens * width),
            model=self.model,
            shape=stage_pb2.ModelShape(
                scales=engine.config.patch_nums,
                context_tokens=tokens,
                context_width=width,
                latent_channels=engine.channels,
            ),
            device=str(engine.compute),
            precision=engine.compute.precision,
            example_prompts=engine.checkpoint.known_prompts(),
            required_digests=engine.required_digests,
            sampling_defaults=to_proto(engine.defaults),
        )
        answer.cost.scales.extend(
            stage_pb2.ScaleCost(side=side, batch_seconds=table, max_batch=widest)
            for side, table, widest in zip(
                engine.config.patch_nums, scheduler.scale_times.tables(), engine.max_batch_per_scale, strict=True
            )
        )
        return answer

    def oip(self) -> Model:
        """`context` [1, T, D], `mask` [1, T], `positions` [1, T] to a stream of `scale` INT32 [1] and, in
        previews and in the last response, `latent` FP32 [1, Z, N, N]."""
        tokens, width = self._context_shape
        side = self._engine.config.side
        return Model(
            name="ar_generator",
            inputs=(
                TensorSpec("context", FLOATS, (1, tokens, width)),
                TensorSpec("mask", ("BOOL",), (1, tokens)),
                TensorSpec("positions", ("INT64",), (1, tokens)),
            ),
            outputs=(
                TensorSpec("scale", ("INT32",), (1,)),
                TensorSpec("latent", ("FP32",), (1, self._engine.channels, side, side)),
            ),
            stream=self._stream,
            parameters={
                "seed": str,
                "guidance": float,
                "more_smooth": bool,
                "top_p": float,
                "residual_temperature": float,
                "preview_every": int,
            },
        )

    async def _stream(self, request: InferRequest) -> AsyncGenerator[InferResult, None]:
        parsed = parse_infer_request(request, self._engine.scales, self._engine.defaults)
        async with aclosing(self._scheduler.draw(parsed, request.deadline)) as events:
            async for _, event in events:
                if isinstance(event, Admitted):
                    continue
                outputs = {"scale": np.array([event.scale], np.int32)}
                if event.latent is not None:
                    outputs["latent"] = event.latent[None]
                yield InferResult(outputs)

    def _admitted(self, event: Admitted) -> ar_generator_pb2.GenerateLatentEvent:
        admitted = ar_generator_pb2.Admitted(queue_seconds=event.queue_seconds, scales=self._engine.scales)
        return ar_generator_pb2.GenerateLatentEvent(admitted=admitted)

    def _progress(self, scale: int, latent: Array | None) -> ar_generator_pb2.GenerateLatentEvent:
        progress = ar_generator_pb2.LatentProgress(
            scale=scale,
            side=self._engine.config.patch_nums[scale],
            scales=self._engine.scales,
            latent=None if latent is None else tensors.from_numpy(latent),
        )
        return ar_generator_pb2.GenerateLatentEvent(progress=progress)

    def _result(self, active: ActiveRequest, latent: Array) -> ar_generator_pb2.GenerateLatentEvent:
        result = ar_generator_pb2.LatentResult(
            latent=tensors.from_numpy(latent),
            model=self.model,
            timing=self._timing(active),
            sampling=to_proto(active.request.params),
        )
        return ar_generator_pb2.GenerateLatentEvent(result=result)

    def _timing(self, active: ActiveRequest) -> stage_pb2.Timing:
        """Queue time is all time without compute: before the slot and between scales."""
        total = time.monotonic() - active.ticket.arrived_at
        computed = sum(one.seconds for one in active.times)
        scales = [
            stage_pb2.ScaleTiming(
                scale=one.scale,
                side=self._engine.config.patch_nums[one.scale],
                start_seconds=one.start_seconds,
                duration_seconds=one.seconds,
                batch_size=one.batch_size,
            )
            for one in active.times
        ]
        return stage_pb2.Timing(
            queue_seconds=max(0.0, total - computed),
            compute_seconds=computed,
            total_seconds=total,
            batch_size=max(one.batch_size for one in active.times),
            scales=scales,
        )

    @property
    def _context_shape(self) -> tuple[int, int]:
        return self._engine.config.context_token, self._engine.config.context_dim

    @property
    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and digest that responses carry."""
        return stage_pb2.ModelIdentity(name=self._engine.checkpoint.name, digest=self._engine.digest)
