"""hart.v1.TextEncoder, hart.v1.Stage and the Open Inference Protocol's model `text_encoder`, over one batcher."""

from __future__ import annotations

import time

import numpy as np
from hart.v1 import stage_pb2, stage_pb2_grpc, text_encoder_pb2, text_encoder_pb2_grpc

from common import limits
from runtime import prompt, tensors
from runtime.deadline import Deadline
from runtime.oip.model import DYNAMIC, InferRequest, InferResult, Model, TensorSpec
from runtime.server import stage
from runtime.server.app import App
from runtime.server.rpc_context import RpcContext
from runtime.tasks import together
from runtime.work.batcher import Batcher
from services.text_encoder.cache import Cache
from services.text_encoder.config import TextEncoderSettings
from services.text_encoder.engine import Encoded, TextEncoderEngine


class TextEncoderServicer(text_encoder_pb2_grpc.TextEncoderServicer, stage_pb2_grpc.StageServicer):
    """Converts between messages and the engine's types, and serves repeated prompts from the cache."""

    def __init__(
        self, app: App, settings: TextEncoderSettings, engine: TextEncoderEngine, batcher: Batcher[str, Encoded]
    ) -> None:
        self._app, self._settings, self._engine, self._batcher = app, settings, engine, batcher
        self.cache: Cache[str, Encoded] = Cache(settings.cache_bytes)

    async def Encode(
        self, request: text_encoder_pb2.EncodeRequest, context: RpcContext
    ) -> text_encoder_pb2.EncodeResponse:
        """The conditioning of one prompt."""
        arrived = time.monotonic()
        stage.label_request(request.request_id)
        text = prompt.checked(request.prompt)
        encoded, timing = await self._encode(text, Deadline.of(context))
        timing.total_seconds = time.monotonic() - arrived
        return text_encoder_pb2.EncodeResponse(
            context=tensors.from_numpy(encoded.context),
            mask=tensors.from_numpy(encoded.mask),
            positions=tensors.from_numpy(encoded.positions),
            prompt_tokens=encoded.prompt_tokens,
            prompt_truncated=encoded.truncated,
            unfamiliar_words=self._engine.vocabulary.unfamiliar(text),
            model=self.model,
            timing=timing,
        )

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: RpcContext
    ) -> stage_pb2.StageDescribeResponse:
        """This stage's limits, load, cost and shapes."""
        engine = self._engine
        return stage.describe(
            self._app,
            self._batcher.admission,
            max_batch=self._settings.max_batch,
            limits=stage_pb2.StageLimits(max_prompt_characters=limits.MAX_PROMPT_CHARACTERS),
            model=self.model,
            shape=stage_pb2.ModelShape(context_tokens=engine.context_tokens, context_width=engine.context_width),
            device=str(engine.compute),
            precision=engine.compute.precision,
            example_prompts=engine.checkpoint.known_prompts(),
        )

    def oip(self) -> Model:
        """`prompt` BYTES [n] to `context` [n, T, D], `mask` BOOL [n, T] and `positions` INT64 [n, T]."""
        tokens, width = self._engine.context_tokens, self._engine.context_width
        context = "FP16" if self._engine.compute.precision == "float16" else "FP32"
        return Model(
            name="text_encoder",
            inputs=(TensorSpec("prompt", ("BYTES",), (DYNAMIC,), max_size=self._settings.max_batch),),
            outputs=(
                TensorSpec("context", (context,), (DYNAMIC, tokens, width)),
                TensorSpec("mask", ("BOOL",), (DYNAMIC, tokens)),
                TensorSpec("positions", ("INT64",), (DYNAMIC, tokens)),
            ),
            infer=self._infer,
        )

    async def _infer(self, request: InferRequest) -> InferResult:
        texts = prompt.decoded(request.inputs["prompt"], "inputs[prompt]", self._settings.max_batch)
        found = [encoded for encoded, _ in await together(*(self._encode(t, request.deadline) for t in texts))]
        names = ("context", "mask", "positions")
        return InferResult({name: np.stack([getattr(encoded, name) for encoded in found]) for name in names})

    async def _encode(self, text: str, deadline: Deadline) -> tuple[Encoded, stage_pb2.Timing]:
        cached = self.cache.get(text)
        if cached is not None:
            self._app.telemetry.metrics.cache_hits.add()
            return cached, stage_pb2.Timing(cached=True)
        outcome = await self._batcher.submit(text, deadline=deadline)
        self.cache.put(text, outcome.value, outcome.value.size + 4 * len(text))
        return outcome.value, stage.timing(outcome, 0)

    @property
    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and digest that responses carry."""
        return stage_pb2.ModelIdentity(name=self._engine.checkpoint.name, digest=self._engine.digest)
