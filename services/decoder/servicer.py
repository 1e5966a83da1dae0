"""hart.v1.Decoder, hart.v1.Stage and the Open Inference Protocol's model `decoder`, over one batcher."""

from __future__ import annotations

import time

import numpy as np
from hart.v1 import decoder_pb2, decoder_pb2_grpc, stage_pb2, stage_pb2_grpc

from model.pixels import Pixels
from runtime import tensors
from runtime.deadline import Deadline
from runtime.image_messages import to_wire
from runtime.oip.codec import bytes_array
from runtime.oip.model import DYNAMIC, InferRequest, InferResult, Model, TensorSpec
from runtime.server import stage
from runtime.server.app import App
from runtime.server.rpc_context import RpcContext
from runtime.tasks import together
from runtime.work.batcher import Batcher, BatchResult
from services.decoder.config import DecoderSettings
from services.decoder.engine import Array, DecoderEngine, Job
from services.decoder.image_encoder import ImageEncoder
from services.decoder.requests import OutputOptions, parse_parameters, parse_request

PREVIEW, IMAGE = 0, 1
"""Priorities: an image overtakes waiting previews."""


class DecoderServicer(decoder_pb2_grpc.DecoderServicer, stage_pb2_grpc.StageServicer):
    """Converts between messages and the types of the engine and of the image encoder."""

    def __init__(
        self,
        app: App,
        settings: DecoderSettings,
        engine: DecoderEngine,
        batcher: Batcher[Job, Pixels],
        image_encoder: ImageEncoder,
    ) -> None:
        self._app, self._settings, self._engine = app, settings, engine
        self._batcher, self._image_encoder = batcher, image_encoder

    async def Decode(self, request: decoder_pb2.DecodeRequest, context: RpcContext) -> decoder_pb2.DecodeResponse:
        """Decode one latent to an image file or raw pixels."""
        arrived = time.monotonic()
        stage.label_request(request.request_id)
        options = parse_request(request, self._engine.image_side)
        latent = tensors.to_numpy(request.latent, "latent", dtypes=("FP32",), shape=self._latent_shape)
        outcome = await self._decode(latent, options, Deadline.of(context))
        height, width, _ = outcome.value.shape
        answer = decoder_pb2.DecodeResponse(width=width, height=height, model=self.model)
        if options.format is None:
            answer.pixels.CopyFrom(tensors.from_numpy(outcome.value))
            answer.timing.CopyFrom(stage.timing(outcome, arrived))
        else:
            file = await self._image_encoder.make(outcome.value, options.format.name, options.quality, options.recipe)
            answer.format, answer.image = to_wire(options.format), file.data
            answer.timing.CopyFrom(stage.timing(outcome, arrived))
            answer.timing.queue_seconds += file.queue_seconds
            answer.timing.compute_seconds += file.compute_seconds
        return answer

    def load(self) -> float:
        """The autoscaling signal: the max of the engine's and the image encoder's load."""
        return max(self._batcher.admission.load, self._image_encoder.load)

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: RpcContext
    ) -> stage_pb2.StageDescribeResponse:
        """This stage's limits, load, cost and shapes."""
        engine = self._engine
        answer = stage.describe(
            self._app,
            self._batcher.admission,
            max_batch=self._settings.max_batch,
            limits=stage_pb2.StageLimits(max_tensor_elements=engine.channels * engine.side**2),
            model=self.model,
            shape=stage_pb2.ModelShape(
                scales=engine.scales,
                latent_channels=engine.channels,
                width=engine.image_side,
                height=engine.image_side,
            ),
            device=str(engine.compute),
            precision=engine.compute.precision,
        )
        answer.load.load = self.load()
        answer.load.queued += self._image_encoder.queued
        answer.load.running += self._image_encoder.running
        return answer

    def oip(self) -> Model:
        """`latent` FP32 [n, Z, N, N] to `image` UINT8 [n, H, W, 3], or BYTES [n] with `format`."""
        shape = (DYNAMIC, *self._latent_shape)
        return Model(
            name="decoder",
            inputs=(TensorSpec("latent", ("FP32",), shape, max_size=self._settings.max_batch),),
            outputs=(TensorSpec("image", ("UINT8", "BYTES"), (DYNAMIC, DYNAMIC, DYNAMIC, 3)),),
            infer=self._infer,
            parameters={"format": str, "quality": int, "side": int},
        )

    async def _infer(self, request: InferRequest) -> InferResult:
        options = parse_parameters(request.parameters, self._engine.image_side)
        latents = request.inputs["latent"]
        tensors.require_finite(latents, "inputs[latent]")
        outcomes = await together(*(self._decode(latent, options, request.deadline) for latent in latents))
        if options.format is None:
            return InferResult({"image": np.stack([outcome.value for outcome in outcomes])})
        format, quality = options.format.name, options.quality
        made = await together(*(self._image_encoder.make(outcome.value, format, quality, None) for outcome in outcomes))
        return InferResult({"image": bytes_array([file.data for file in made])})

    async def _decode(self, latent: Array, options: OutputOptions, deadline: Deadline) -> BatchResult[Pixels]:
        self._image_encoder.require_room()
        side = self._engine.side if options.side is None else self._engine.latent_side(options.side)
        priority = IMAGE if side == self._engine.side else PREVIEW
        return await self._batcher.submit(
            Job(latent, side), cost=self._engine.cost(side), deadline=deadline, key=side, priority=priority
        )

    @property
    def _latent_shape(self) -> tuple[int, int, int]:
        return self._engine.channels, self._engine.side, self._engine.side

    @property
    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and digest that responses carry."""
        return stage_pb2.ModelIdentity(name=self._engine.checkpoint.name, digest=self._engine.digest)
