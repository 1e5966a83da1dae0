"""hart.v1.Safety, hart.v1.Stage and the Open Inference Protocol's model `safety`, over one batcher."""

from __future__ import annotations

import time

import numpy as np
from hart.v1 import safety_pb2, safety_pb2_grpc, stage_pb2, stage_pb2_grpc

from common import limits
from runtime import prompt
from runtime.deadline import Deadline
from runtime.oip.model import DYNAMIC, InferRequest, InferResult, Model, TensorSpec
from runtime.server import stage
from runtime.server.app import App
from runtime.server.rpc_context import RpcContext
from runtime.tasks import together
from runtime.work.batcher import Batcher
from services.safety.config import SafetySettings
from services.safety.engine import Judgement, SafetyEngine

ACTIONS = {
    "refuse": safety_pb2.SAFETY_ACTION_REFUSE,
    "replace": safety_pb2.SAFETY_ACTION_REPLACE,
}


class SafetyServicer(safety_pb2_grpc.SafetyServicer, stage_pb2_grpc.StageServicer):
    """Converts between messages and the engine's types. The settings determine the action for an unsafe prompt."""

    def __init__(
        self, app: App, settings: SafetySettings, engine: SafetyEngine, batcher: Batcher[str, Judgement]
    ) -> None:
        self._app, self._settings, self._engine, self._batcher = app, settings, engine, batcher

    async def Check(self, request: safety_pb2.CheckRequest, context: RpcContext) -> safety_pb2.CheckResponse:
        """The verdict on one prompt."""
        arrived = time.monotonic()
        stage.label_request(request.request_id)
        text = prompt.checked(request.prompt)
        outcome = await self._batcher.submit(text, deadline=Deadline.of(context))
        self._count(outcome.value)
        return safety_pb2.CheckResponse(
            verdict=self._verdict(outcome.value), model=self.model, timing=stage.timing(outcome, arrived)
        )

    async def Describe(
        self, request: stage_pb2.StageDescribeRequest, context: RpcContext
    ) -> stage_pb2.StageDescribeResponse:
        """This stage's limits, load, cost and policies."""
        return stage.describe(
            self._app,
            self._batcher.admission,
            max_batch=self._settings.max_batch,
            limits=stage_pb2.StageLimits(max_prompt_characters=limits.MAX_PROMPT_CHARACTERS),
            model=self.model,
            device=str(self._engine.compute),
            precision=self._engine.compute.precision,
            policies=self._engine.policies.names,
            policy_version=self._engine.policies.version,
        )

    def oip(self) -> Model:
        """`prompt` BYTES [n] to `score` FP32 [n, policies] and `unsafe` BOOL [n]."""
        policies = len(self._engine.policies.names)
        return Model(
            name="safety",
            inputs=(TensorSpec("prompt", ("BYTES",), (DYNAMIC,), max_size=self._settings.max_batch),),
            outputs=(TensorSpec("score", ("FP32",), (DYNAMIC, policies)), TensorSpec("unsafe", ("BOOL",), (DYNAMIC,))),
            infer=self._infer,
        )

    async def _infer(self, request: InferRequest) -> InferResult:
        texts = prompt.decoded(request.inputs["prompt"], "inputs[prompt]", self._settings.max_batch)
        outcomes = await together(*(self._batcher.submit(text, deadline=request.deadline) for text in texts))
        for outcome in outcomes:
            self._count(outcome.value)
        scores = np.array([outcome.value.scores for outcome in outcomes], np.float32)
        unsafe = np.array([bool(outcome.value.violated) for outcome in outcomes])
        return InferResult({"score": scores, "unsafe": unsafe})

    @property
    def model(self) -> stage_pb2.ModelIdentity:
        """The model by the name and digest that responses carry."""
        return stage_pb2.ModelIdentity(name=self._engine.checkpoint.name, digest=self._engine.digest)

    def _verdict(self, judgement: Judgement) -> safety_pb2.Verdict:
        policies = self._engine.policies
        scores = [
            safety_pb2.PolicyScore(policy=name, score=score, threshold=policies.threshold)
            for name, score in zip(policies.names, judgement.scores, strict=True)
        ]
        unsafe = bool(judgement.violated)
        verdict = safety_pb2.Verdict(
            unsafe=unsafe,
            action=ACTIONS[self._settings.unsafe_action] if unsafe else safety_pb2.SAFETY_ACTION_ALLOW,
            policy_version=policies.version,
            scores=scores,
            violated=judgement.violated,
        )
        if verdict.action == safety_pb2.SAFETY_ACTION_REPLACE:
            verdict.replacement_prompt = self._settings.replacement_prompt
        return verdict

    def _count(self, judgement: Judgement) -> None:
        verdicts = self._app.telemetry.metrics.verdicts
        for policy in judgement.violated:
            verdicts.add(verdict="unsafe", policy=policy)
        if not judgement.violated:
            verdicts.add(verdict="safe", policy="")
