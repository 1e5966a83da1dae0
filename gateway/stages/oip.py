"""The stage calls over the Open Inference Protocol, to our own stages or to Triton and KServe.

The protocol's responses carry neither models nor policies: the replica's description has them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import numpy as np
from hart.v1 import ar_generator_pb2, decoder_pb2, safety_pb2, stage_pb2, tensor_pb2, text_encoder_pb2

from common import limits, provenance, recipe
from common.image_header import inspect
from runtime import tensors
from runtime.calls.replica import Replica
from runtime.deadline import Deadline
from runtime.errors import HartError, StageUnavailable
from runtime.image_messages import from_wire, recipe_of, to_wire
from runtime.observability.tracing import Metadata
from runtime.oip.client import OipClient
from runtime.oip.codec import bytes_array
from runtime.oip.model import Array, InferResult, Parameter
from runtime.status import as_hart_error

Known = Callable[[str, Replica], stage_pb2.StageDescribeResponse]


class OipBackend:
    """The four calls as messages of hart.v1. `known(stage, replica)`: the replica's last description. `marked`: image
    files without the mark of generated images get it."""

    def __init__(self, known: Known, *, marked: bool = True) -> None:
        self._known = known
        self._marked = marked

    async def check(
        self, replica: Replica, message: safety_pb2.CheckRequest, deadline: Deadline, metadata: Metadata
    ) -> safety_pb2.CheckResponse:
        """The verdict. An unsafe prompt is refused: the protocol has no replacement prompt."""
        inputs = {"prompt": bytes_array([message.prompt.encode()])}
        begun = time.monotonic()
        result = await self._infer(replica, "safety", inputs, {}, deadline, metadata)
        unsafe = bool(_output(result, "unsafe", "safety").any())
        scores = _output(result, "score", "safety").reshape(-1).tolist()
        if not np.isfinite(scores).all():
            raise _broken("safety", f"scores {scores} are not finite")
        known = self._known("safety", replica)
        named = len(known.policies) == len(scores)
        names = known.policies if named else [f"policy {index}" for index in range(len(scores))]
        verdict = safety_pb2.Verdict(
            unsafe=unsafe,
            action=safety_pb2.SAFETY_ACTION_REFUSE if unsafe else safety_pb2.SAFETY_ACTION_ALLOW,
            policy_version=known.policy_version,
            scores=[safety_pb2.PolicyScore(policy=n, score=s) for n, s in zip(names, scores, strict=True)],
        )
        if unsafe:
            verdict.violated.append(names[int(np.argmax(scores))] if scores else "safety")
        return safety_pb2.CheckResponse(verdict=verdict, model=known.model, timing=_timing(begun))

    async def encode(
        self, replica: Replica, message: text_encoder_pb2.EncodeRequest, deadline: Deadline, metadata: Metadata
    ) -> text_encoder_pb2.EncodeResponse:
        """The conditioning. The protocol reports neither truncation nor out-of-vocabulary words."""
        inputs = {"prompt": bytes_array([message.prompt.encode()])}
        begun = time.monotonic()
        result = await self._infer(replica, "text_encoder", inputs, {}, deadline, metadata)
        mask = _output(result, "mask", "text_encoder")[0]
        return text_encoder_pb2.EncodeResponse(
            context=_wire(_output(result, "context", "text_encoder")[0]),
            mask=_wire(mask),
            positions=_wire(_output(result, "positions", "text_encoder")[0]),
            prompt_tokens=int(mask.sum()),
            model=self._known("text_encoder", replica).model,
            timing=_timing(begun),
        )

    async def generate(
        self,
        replica: Replica,
        message: ar_generator_pb2.GenerateLatentRequest,
        deadline: Deadline,
        metadata: Metadata,
    ) -> AsyncGenerator[ar_generator_pb2.GenerateLatentEvent, None]:
        """Progress per scale, then the latent. Closing the generator cancels the call."""
        fields = ("context", "mask", "positions")
        inputs = {name: tensors.to_numpy(getattr(message, name), name)[None] for name in fields}
        parameters: dict[str, Parameter] = {
            "seed": str(message.seed),
            "preview_every": int(message.preview_every),
            **{name: getattr(message, name) for name in limits.SAMPLING_FIELDS if message.HasField(name)},
        }
        client = OipClient(replica.channel, replica.endpoint.model, "ar_generator")
        answers = client.stream(inputs, parameters, deadline=deadline, metadata=metadata, request_id=message.request_id)
        begun = time.monotonic()
        known = self._known("ar_generator", replica)
        sides = known.shape.scales
        async with aclosing(answers) as stream:
            async for result, final in stream:
                scale = int(_output(result, "scale", "ar_generator").reshape(-1)[0])
                latent = _wire(result.outputs["latent"][0]) if "latent" in result.outputs else None
                progress = ar_generator_pb2.LatentProgress(
                    scale=scale, side=sides[scale] if 0 <= scale < len(sides) else 0, scales=len(sides)
                )
                if latent is not None and message.preview_every and (scale + 1) % message.preview_every == 0:
                    progress.latent.CopyFrom(latent)
                yield ar_generator_pb2.GenerateLatentEvent(progress=progress)
                if final:
                    if latent is None:
                        raise StageUnavailable("ar_generator", "the stream ended before the latent arrived")
                    ending = ar_generator_pb2.LatentResult(
                        latent=latent,
                        model=known.model,
                        timing=_timing(begun),
                        sampling=_sampling(message, known.sampling_defaults),
                    )
                    yield ar_generator_pb2.GenerateLatentEvent(result=ending)

    async def decode(
        self, replica: Replica, message: decoder_pb2.DecodeRequest, deadline: Deadline, metadata: Metadata
    ) -> decoder_pb2.DecodeResponse:
        """The image file. The recipe is written here: the protocol has no field for it."""
        parameters: dict[str, Parameter] = {"format": from_wire(message.encoding.format).name}
        if message.encoding.HasField("quality"):
            parameters["quality"] = message.encoding.quality
        if message.HasField("side"):
            parameters["side"] = message.side
        inputs = {"latent": tensors.to_numpy(message.latent, "latent")[None]}
        begun = time.monotonic()
        result = await self._infer(replica, "decoder", inputs, parameters, deadline, metadata)
        data = bytes(_output(result, "image", "decoder").reshape(-1)[0])
        try:
            header = inspect(data)
            if self._marked and not provenance.is_marked(data):
                data = provenance.mark(data)
            if message.HasField("recipe"):
                data = recipe.write(data, recipe_of(message.recipe).to_json())
        except ValueError as error:
            raise as_hart_error(error, "decoder") from error
        return decoder_pb2.DecodeResponse(
            image=data,
            format=to_wire(header.format),
            width=header.width,
            height=header.height,
            model=self._known("decoder", replica).model,
            timing=_timing(begun),
        )

    async def _infer(
        self,
        replica: Replica,
        stage: str,
        inputs: dict[str, Array],
        parameters: dict[str, Parameter],
        deadline: Deadline,
        metadata: Metadata,
    ) -> InferResult:
        client = OipClient(replica.channel, replica.endpoint.model, stage)
        return await client.infer(inputs, parameters, deadline=deadline, metadata=metadata)


def _sampling(
    message: ar_generator_pb2.GenerateLatentRequest, defaults: stage_pb2.SamplingParams
) -> stage_pb2.SamplingParams:
    """The request's values over the replica's defaults: the protocol does not return what was used."""
    used = stage_pb2.SamplingParams()
    used.CopyFrom(defaults)
    for name in limits.SAMPLING_FIELDS:
        if message.HasField(name):
            setattr(used, name, getattr(message, name))
    return used


def _output(result: InferResult, name: str, stage: str) -> Array:
    found = result.outputs.get(name)
    if found is None or not found.size:
        raise _broken(stage, f"the answer has no output {name!r}")
    return found


def _broken(stage: str, text: str) -> HartError:
    return as_hart_error(RuntimeError(f"{stage}: {text}"), stage)


def _wire(array: Array) -> tensor_pb2.Tensor:
    return tensors.from_numpy(np.ascontiguousarray(array))


def _timing(begun: float) -> stage_pb2.Timing:
    # The protocol reports no queue time: the whole call counts as compute.
    seconds = time.monotonic() - begun
    return stage_pb2.Timing(compute_seconds=seconds, total_seconds=seconds, batch_size=1)
