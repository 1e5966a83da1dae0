"""The stages as the pipeline calls them: one typed call each, over whichever replica and protocol."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass

from hart.v1 import ar_generator_pb2, decoder_pb2, safety_pb2, stage_pb2, text_encoder_pb2

from gateway.config import GatewaySettings
from gateway.routing.compatibility import agree
from gateway.routing.registry import ReplicaRegistry
from gateway.stages import grpc_v1
from gateway.stages.backend import StageBackend
from gateway.stages.oip import OipBackend
from gateway.stages.retry import RETRYABLE, Attempt, Choose, Retry, RetryPolicy, StageTarget
from gateway.stages.rpc import CHECK, DECODE, ENCODE, GENERATE, A, M, Rpc, UnaryRpc
from gateway.stages.timings import CallRecord
from runtime.calls.pool import Pool
from runtime.calls.retry_budget import RetryBudget
from runtime.deadline import Deadline
from runtime.errors import StageUnavailable
from runtime.observability.telemetry import Telemetry


@dataclass(frozen=True)
class ScaleProgress:
    """A scale that a generator has drawn."""

    progress: ar_generator_pb2.LatentProgress
    decoder: str
    """The digest of the decoder that its latent is for; "" while unknown."""

    @property
    def has_latent(self) -> bool:
        """True where a preview can be decoded."""
        return self.progress.HasField("latent")


@dataclass(frozen=True)
class Latent:
    """A generator's result."""

    result: ar_generator_pb2.LatentResult
    decoder: str
    """The digest of the decoder that it is for; "" while unknown."""


class Stages:
    """One method per stage.

    A call that fails with UNAVAILABLE is retried on another replica within deadline, attempts and the stage's retry
    budget, with the same request id and seed. Nothing else is retried here.
    """

    def __init__(
        self, pools: Mapping[str, Pool], registry: ReplicaRegistry, settings: GatewaySettings, telemetry: Telemetry
    ) -> None:
        self.pools = pools
        self._registry = registry
        self.metrics = telemetry.metrics
        self._backends: Mapping[str, StageBackend] = {
            "grpc": grpc_v1,
            "oip": OipBackend(registry.about, marked=settings.mark_ai_generated),
        }
        self._targets = {
            stage: StageTarget(pool, registry, _policy(settings), telemetry.tracing, telemetry.metrics)
            for stage, pool in pools.items()
        }

    async def check(
        self, message: safety_pb2.CheckRequest, deadline: Deadline, call: CallRecord
    ) -> safety_pb2.CheckResponse:
        """The safety stage's verdict."""
        return await self._unary(CHECK, message, self._retry(CHECK, deadline, call), call)

    async def encode(
        self, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, call: CallRecord
    ) -> text_encoder_pb2.EncodeResponse:
        """The prompt's conditioning, from a text encoder that a ready generator was trained with."""
        retry = self._retry(ENCODE, deadline, call, lambda replicas: replicas.encoders(replicas.text_encoder()))
        return await self._unary(ENCODE, message, retry, call)

    async def decode(
        self, message: decoder_pb2.DecodeRequest, deadline: Deadline, call: CallRecord, digest: str
    ) -> decoder_pb2.DecodeResponse:
        """The image of a latent, from a decoder with this digest ("" for any)."""
        retry = self._retry(DECODE, deadline, call, lambda replicas: replicas.decoders(digest))
        return await self._unary(DECODE, message, retry, call, digest)

    async def generate(
        self,
        message: ar_generator_pb2.GenerateLatentRequest,
        deadline: Deadline,
        call: CallRecord,
        text_encoder: str,
    ) -> AsyncGenerator[ScaleProgress | Latent, None]:
        """Each scale once, in ascending order, whatever fails; then the latent.

        `text_encoder`: the digest of the text encoder whose output the message carries. With `result_only` the scales
        follow from the result. Close the generator to cancel the call.
        """
        retry = self._retry(GENERATE, deadline, call, lambda replicas: replicas.generators(text_encoder))
        call.transfer_bytes = message.ByteSize()
        last_scale = -1
        while True:
            try:
                async with retry.attempt() as attempt, aclosing(self._attempt(message, attempt, call)) as events:
                    async for event in events:
                        if isinstance(event, ScaleProgress):
                            if event.progress.scale > last_scale:
                                last_scale = event.progress.scale
                                yield event
                            continue
                        for progress in _scales_of(event.result, after=last_scale):
                            yield ScaleProgress(progress, event.decoder)
                        latent = event
                break
            except RETRYABLE as error:
                await retry.after(error)
        retry.succeeded()
        self._record(GENERATE, call, latent.result.timing)
        yield latent

    async def _attempt(
        self, message: ar_generator_pb2.GenerateLatentRequest, attempt: Attempt, call: CallRecord
    ) -> AsyncGenerator[ScaleProgress | Latent, None]:
        replica = attempt.replica
        model = self._registry.model_of(replica)
        decoder = model.required_digest("decoder")
        backend = self._backends[replica.endpoint.protocol]
        async with aclosing(backend.generate(replica, message, attempt.deadline, attempt.metadata)) as events:
            async for event in events:
                call.transfer_bytes += event.ByteSize()
                if event.HasField("progress"):
                    yield ScaleProgress(event.progress, decoder)
                elif event.HasField("result"):
                    _require_model(GENERATE, event.result.model.digest, model.digest)
                    attempt.span.set_attribute("hart.transfer.bytes", call.transfer_bytes)
                    yield Latent(event.result, decoder)
                    return
        raise StageUnavailable(GENERATE.stage, "the stream ended before the latent arrived")

    async def _unary(self, rpc: UnaryRpc[M, A], message: M, retry: Retry, call: CallRecord, digest: str = "") -> A:
        while True:
            try:
                async with retry.attempt() as attempt:
                    invoke = rpc.invoke(self._backends[attempt.replica.endpoint.protocol])
                    response = await invoke(attempt.replica, message, attempt.deadline, attempt.metadata)
                    _require_model(rpc, response.model.digest, digest)
                    call.transfer_bytes = message.ByteSize() + response.ByteSize()
                    attempt.span.set_attribute("hart.transfer.bytes", call.transfer_bytes)
                break
            except RETRYABLE as error:
                await retry.after(error)
        retry.succeeded()
        self._record(rpc, call, response.timing)
        return response

    def _retry(self, rpc: Rpc, deadline: Deadline, call: CallRecord, choose: Choose | None = None) -> Retry:
        return Retry(rpc, self._targets[rpc.stage], deadline, call, choose)

    def _record(self, rpc: Rpc, call: CallRecord, timing: stage_pb2.Timing) -> None:
        call.timing = timing
        self.metrics.transfer_bytes.record(call.transfer_bytes, **{"from": "gateway", "to": rpc.stage})


def _policy(settings: GatewaySettings) -> RetryPolicy:
    budget = RetryBudget(settings.retry_ratio, settings.retry_burst, settings.retry_per_second)
    return RetryPolicy(settings.retry_attempts, settings.deadline_margin_seconds, budget)


def _require_model(rpc: Rpc, digest: str, expected: str) -> None:
    if not agree(digest, expected):
        raise StageUnavailable(rpc.stage, f"replica answered with model {digest}, expected {expected}")


def _scales_of(result: ar_generator_pb2.LatentResult, after: int) -> Iterator[ar_generator_pb2.LatentProgress]:
    """The scales after `after`, as a generator lists them with its result."""
    scales = result.timing.scales
    for scale in scales:
        if scale.scale > after:
            yield ar_generator_pb2.LatentProgress(scale=scale.scale, side=scale.side, scales=len(scales))
