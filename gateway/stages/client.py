"""Typed calls to the four stages over their replicas, retries included. Knows no order of stages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TypeVar

from hart.v1 import ar_generator_pb2, decoder_pb2, images_pb2, safety_pb2, stage_pb2, text_encoder_pb2
from opentelemetry import trace

from gateway.config import GatewaySettings
from gateway.request.timings import record
from gateway.routing.compatibility import CompatibleReplicas, agree
from gateway.routing.registry import ReplicaRegistry
from gateway.stages import grpc_v1
from gateway.stages.backend import StageBackend
from gateway.stages.oip import OipBackend
from runtime.calls.pool import Pool
from runtime.calls.replica import Replica, ReplicaState
from runtime.calls.retry_budget import RetryBudget
from runtime.deadline import Deadline
from runtime.errors import (
    DeadlineExceeded,
    InvalidRequest,
    NotFound,
    PermissionDenied,
    StageUnavailable,
    Unauthenticated,
)
from runtime.observability.telemetry import Telemetry
from runtime.observability.tracing import Metadata
from runtime.status import as_hart_error

R = TypeVar("R")
M = TypeVar("M", safety_pb2.CheckRequest, text_encoder_pb2.EncodeRequest, decoder_pb2.DecodeRequest)
A = TypeVar("A", safety_pb2.CheckResponse, text_encoder_pb2.EncodeResponse, decoder_pb2.DecodeResponse)
Ask = Callable[[Replica, M, Deadline, Metadata], Awaitable[A]]
Call = images_pb2.StageCall
Tell = Callable[[ar_generator_pb2.LatentProgress, str], None]
"""Told of a scale, and the digest of the decoder that its latent is for."""
Choose = Callable[[CompatibleReplicas], frozenset[str]]
"""Addresses of the replicas that may be asked. Raises StageUnavailable where there are others alone."""
COST = 1.0  # of a call, in outstanding work: one picture's
PATIENCE = 2.0  # seconds that a stage may be without a replica before callers hear UNAVAILABLE
CALLER_ERRORS_FROM_STAGES = (InvalidRequest, NotFound, Unauthenticated, PermissionDenied)
"""Refusals of a message that the gateway wrote: not the caller's fault, and not the caller's to read."""
OIP_METHOD = "inference.GRPCInferenceService/ModelInfer"
OIP_METHODS = {"ar_generator": "inference.GRPCInferenceService/ModelStreamInfer"}
POLL_SECONDS = 0.05  # between looks for a replica that was set aside
FIRST_BACKOFF = 0.02  # seconds, doubled with every attempt, with jitter


@dataclass(frozen=True)
class Latent:
    """What a generator drew."""

    result: ar_generator_pb2.LatentResult
    decoder: str
    """The digest of the decoder that it is for; "" where the generator does not know."""


class Stages:
    """The stages as the pipeline sees them: one call each, whichever replica answers.

    A call that fails with UNAVAILABLE is tried on another replica while deadline, attempts and the stage's retry budget
    last; the request, with its id and seed, is the same. Nothing else is ever tried again here.
    """

    def __init__(
        self, pools: Mapping[str, Pool], registry: ReplicaRegistry, settings: GatewaySettings, telemetry: Telemetry
    ) -> None:
        self.pools = pools
        self._registry = registry
        self.metrics = telemetry.metrics
        self._tracing = telemetry.tracing
        self._protocols: Mapping[str, StageBackend] = {"grpc": grpc_v1, "oip": OipBackend(registry.about)}
        self._attempts = settings.retry_attempts
        self._margin = settings.deadline_margin_seconds
        self._budgets = {
            stage: RetryBudget(settings.retry_ratio, settings.retry_burst, settings.retry_per_second) for stage in pools
        }

    async def check(self, message: safety_pb2.CheckRequest, deadline: Deadline, call: Call) -> safety_pb2.CheckResponse:
        """The safety stage's verdict."""
        return await self._unary(
            "safety", "hart.v1.Safety/Check", lambda calls: calls.check, message, deadline, call, None
        )

    async def encode(
        self, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, call: Call
    ) -> text_encoder_pb2.EncodeResponse:
        """The prompt's conditioning, by a text encoder that a generator was made with."""
        return await self._unary(
            "text_encoder",
            "hart.v1.TextEncoder/Encode",
            lambda calls: calls.encode,
            message,
            deadline,
            call,
            lambda compatible: compatible.encoders(compatible.text_encoder()),
        )

    async def decode(
        self, message: decoder_pb2.DecodeRequest, deadline: Deadline, call: Call, digest: str
    ) -> decoder_pb2.DecodeResponse:
        """The picture of a latent that is for the decoder of this digest ("": for any)."""
        return await self._unary(
            "decoder",
            "hart.v1.Decoder/Decode",
            lambda calls: calls.decode,
            message,
            deadline,
            call,
            lambda compatible: compatible.decoders(digest),
            digest,
        )

    async def generate(
        self,
        message: ar_generator_pb2.GenerateLatentRequest,
        deadline: Deadline,
        call: Call,
        tell: Tell,
        text_encoder: str,
    ) -> Latent:
        """The latent of what the text encoder of this digest wrote. `tell` is called with each scale's progress in
        ascending order, once each, whatever fails; where the message is quiet, when all are drawn."""
        told = -1

        async def draw(replica: Replica, allowed: Deadline, metadata: Metadata) -> Latent:
            nonlocal told
            model_of = self._registry.model_of(replica)
            decoder = model_of.required_digest("decoder")
            events = self._protocols[replica.endpoint.protocol].generate(replica, message, allowed, metadata)
            async with aclosing(events) as stream:
                async for event in stream:
                    call.transfer_bytes += event.ByteSize()
                    if event.HasField("progress") and event.progress.scale > told:
                        told = event.progress.scale
                        tell(event.progress, decoder)
                    elif event.HasField("result"):
                        result: ar_generator_pb2.LatentResult = event.result
                        _require("ar_generator", result.model.digest, model_of.digest)
                        _note(call)
                        for progress in _untold(result, told):
                            tell(progress, decoder)
                        return Latent(result, decoder)
            raise StageUnavailable("ar_generator", "the stream ended before the latent came")

        call.transfer_bytes = message.ByteSize()
        latent = await self._retried(
            "ar_generator",
            "hart.v1.ArGenerator/Generate",
            deadline,
            call,
            draw,
            lambda compatible: compatible.generators(text_encoder),
        )
        self._settle("ar_generator", call, latent.result.timing)
        return latent

    async def _unary(
        self,
        stage: str,
        method: str,
        of: Callable[[StageBackend], Ask[M, A]],
        message: M,
        deadline: Deadline,
        call: Call,
        choose: Choose | None,
        digest: str = "",
    ) -> A:
        async def ask(replica: Replica, allowed: Deadline, metadata: Metadata) -> A:
            answer = await of(self._protocols[replica.endpoint.protocol])(replica, message, allowed, metadata)
            _require(stage, answer.model.digest, digest)
            call.transfer_bytes = message.ByteSize() + answer.ByteSize()
            _note(call)
            return answer

        answer = await self._retried(stage, method, deadline, call, ask, choose)
        self._settle(stage, call, answer.timing)
        return answer

    def _settle(self, stage: str, call: Call, timing: stage_pb2.Timing) -> None:
        record(call, timing)
        self.metrics.transfer_bytes.record(call.transfer_bytes, **{"from": "gateway", "to": stage})

    async def _retried(
        self,
        stage: str,
        method: str,
        deadline: Deadline,
        call: Call,
        ask: Callable[[Replica, Deadline, Metadata], Awaitable[R]],
        choose: Choose | None,
    ) -> R:
        failed: set[str] = set()
        while True:
            allowed = deadline.earlier(self._margin)  # anew each time: a repeat that joined may have brought more time
            allowed.require(stage)
            among = await self._among(stage, allowed, choose)
            try:
                answer = await self._attempt(stage, method, allowed, failed, among, ask)
            except DeadlineExceeded:
                if deadline.earlier(self._margin).at <= allowed.at:
                    raise
            except StageUnavailable:
                if not await self._may_retry(stage, call, allowed):
                    raise
            else:
                self._budgets[stage].succeeded()
                return answer

    async def _among(self, stage: str, allowed: Deadline, choose: Choose | None) -> frozenset[str] | None:
        """Addresses of the ready replicas that may be asked; None: of all. Where none of those that are ready may, one
        that was set aside is waited for."""
        pool = self.pools[stage]
        patience = Deadline.after(min(PATIENCE, allowed.remaining() / 2))
        while True:
            await pool.wait_ready(patience.remaining())
            try:
                return choose(await self._registry.compatible()) if choose else None
            except StageUnavailable:
                if patience.expired or all(r.state is not ReplicaState.FAILED for r in pool.replicas):
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def _attempt(
        self,
        stage: str,
        method: str,
        allowed: Deadline,
        failed: set[str],
        among: frozenset[str] | None,
        ask: Callable[..., Awaitable[R]],
    ) -> R:
        async with self.pools[stage].replica(COST, avoid=failed, among=among) as replica:
            failed.add(replica.address)
            called = method if replica.endpoint.protocol == "grpc" else OIP_METHODS.get(stage, OIP_METHOD)
            with self._tracing.call(called, stage, {"server.address": replica.address}) as (_, metadata):
                try:
                    return await ask(replica, allowed, metadata)
                except CALLER_ERRORS_FROM_STAGES as error:
                    raise as_hart_error(
                        RuntimeError(f"{stage} at {replica.address} refused: {error}"), stage
                    ) from error

    async def _may_retry(self, stage: str, call: Call, allowed: Deadline) -> bool:
        pause = FIRST_BACKOFF * 2**call.retries * random.uniform(0.5, 1.5)
        if call.retries + 1 >= self._attempts or allowed.remaining() <= pause or not self._budgets[stage].spend():
            return False
        call.retries += 1
        self.metrics.retries.add(stage=stage)
        await asyncio.sleep(pause)
        return True


def _require(stage: str, digest: str, wanted: str) -> None:
    if not agree(digest, wanted):
        raise StageUnavailable(stage, f"the model {digest} answered, where {wanted} was asked")


def _note(call: Call) -> None:
    trace.get_current_span().set_attribute("hart.transfer.bytes", call.transfer_bytes)


def _untold(result: ar_generator_pb2.LatentResult, told: int) -> list[ar_generator_pb2.LatentProgress]:
    """Progress of the scales after `told`, which a quiet generator reports with its result."""
    scales = result.timing.scales
    return [
        ar_generator_pb2.LatentProgress(scale=one.scale, side=one.side, scales=len(scales))
        for one in scales
        if one.scale > told
    ]
