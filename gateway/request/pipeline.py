"""One request's path through the stages: safety and text encoder, then per image generator and decoder."""

from __future__ import annotations

import asyncio
import logging
import math
from contextlib import aclosing
from dataclasses import dataclass

from hart.v1 import decoder_pb2, images_pb2, safety_pb2, stage_pb2, text_encoder_pb2
from hart.v1.ar_generator_pb2 import GenerateLatentRequest

from common import digests, image_formats, recipe
from common.prompt import has_visible
from common.version import VERSION
from gateway.request.admission import AdmissionController, RequestPermit
from gateway.request.context import RequestContext
from gateway.request.progress import ProgressStream
from gateway.request.rules import preview_side
from gateway.request.shared_execution import Emit
from gateway.request.validation import ImageRequest
from gateway.request.warnings import warnings_of
from gateway.routing.served_model import ServedModel
from gateway.stages.client import Latent, ScaleProgress, Stages
from gateway.stages.timings import CallRecord
from runtime.errors import HartError, Overloaded, PromptUnsafe, StageUnavailable
from runtime.image_messages import recipe_of, to_wire
from runtime.status import as_hart_error
from runtime.tasks import cancel, together

log = logging.getLogger(__name__)
PREVIEW_ENCODING = decoder_pb2.ImageEncoding(format=to_wire(image_formats.JPEG))


@dataclass(frozen=True)
class PreparedPrompt:
    """The prompt's verdict and conditioning."""

    verdict: safety_pb2.Verdict
    encoded: text_encoder_pb2.EncodeResponse
    prompt: str
    """The prompt that is drawn: the operator's replacement for an unsafe one."""
    critical: tuple[CallRecord, ...]

    @property
    def revised_prompt(self) -> str | None:
        """The prompt that is drawn, where it is not the request's."""
        return self.prompt if _replaced(self.verdict) else None


@dataclass(frozen=True)
class ImageResult:
    """A finished image."""

    image: images_pb2.Image
    model: stage_pb2.ModelIdentity
    critical: tuple[CallRecord, ...]
    finished_at: float
    """Seconds since the request's arrival."""


@dataclass(frozen=True)
class GenerationPipeline:
    """Runs one request and emits its events."""

    request: ImageRequest
    context: RequestContext
    emit: Emit
    stages: Stages
    model: ServedModel
    admission: AdmissionController

    async def run(self) -> None:
        """Emits `accepted`, `prepared`, then `progress` and `image`, then `finished`. Raises HartError."""
        with self.admission.acquire(self.request.num_images) as permit:
            self._emit_accepted()
            prepared = await self.prepare()
            self._emit_prepared(prepared)
            images = (self.image(index, prepared, permit) for index in range(self.request.num_images))
            results = await together(*images)
        self._emit_finished(prepared, results)

    # -- the prompt --------------------------------------------------------------------------------------------------

    async def prepare(self) -> PreparedPrompt:
        """Checks and encodes the prompt concurrently. Without a verdict nothing is drawn, whatever fails."""
        checking = asyncio.ensure_future(self._check())
        encoding = asyncio.ensure_future(self._encode(self.request.prompt))
        try:
            verdict, checked = await checking
            if _allowed(verdict):
                encoded, call = await encoding
                slower = max(checked, call, key=lambda one: one.end_seconds)
                return PreparedPrompt(verdict, encoded, self.request.prompt, (slower,))
            if not _replaced(verdict):
                raise PromptUnsafe(verdict.violated, verdict.policy_version)
            await cancel(encoding)
            encoded, call = await self._encode(verdict.replacement_prompt)
            return PreparedPrompt(verdict, encoded, verdict.replacement_prompt, (checked, call))
        finally:
            await cancel(checking, encoding)

    async def _check(self) -> tuple[safety_pb2.Verdict, CallRecord]:
        message = safety_pb2.CheckRequest(request_id=self.request.request_id, prompt=self.request.prompt)
        with self.context.timings.call("safety") as call:
            response = await self.stages.check(message, self.context.deadline, call)
        if not response.HasField("verdict"):
            raise StageUnavailable("safety", "it returned no verdict")
        scores = [one.score for one in response.verdict.scores]
        if not all(map(math.isfinite, scores)):  # every comparison with NaN is false: the verdict may have passed it
            raise as_hart_error(RuntimeError(f"safety: the scores {scores} are not finite"), "safety")
        return response.verdict, call

    async def _encode(self, prompt: str) -> tuple[text_encoder_pb2.EncodeResponse, CallRecord]:
        message = text_encoder_pb2.EncodeRequest(request_id=self.request.request_id, prompt=prompt)
        with self.context.timings.call("text_encoder") as call:
            return await self.stages.encode(message, self.context.deadline, call), call

    # -- one image ---------------------------------------------------------------------------------------------------

    async def image(self, index: int, prepared: PreparedPrompt, permit: RequestPermit) -> ImageResult:
        """Draws image `index`: generator, then decoder. Emits its progress events before the image."""

        async def preview(progress: ScaleProgress) -> images_pb2.Preview | None:
            return await self._preview(index, progress)

        async with (
            permit.image(self.context.deadline) as image_permit,
            ProgressStream(index, self.emit, preview) as progress,
        ):
            latent, generating = await self._generate(index, prepared, progress)
            image_permit.generator_done()
            await progress.flush()
            response, decoding = await self._encode_image(index, latent, prepared)
        image = images_pb2.Image(
            index=index,
            data=response.image,
            format=response.format,
            width=response.width,
            height=response.height,
            seed=self.request.seeds[index],
        )
        self.emit(images_pb2.GenerateEvent(image=image))
        model = self._model(prepared, latent, response)
        return ImageResult(image, model, (generating, decoding), self.context.timings.elapsed)

    async def _generate(
        self, index: int, prepared: PreparedPrompt, progress: ProgressStream
    ) -> tuple[Latent, CallRecord]:
        request, encoded = self.request, prepared.encoded
        message = GenerateLatentRequest(
            request_id=request.request_id,
            context=encoded.context,
            mask=encoded.mask,
            positions=encoded.positions,
            seed=request.seeds[index],
            preview_every=request.preview_every,
            result_only=request.result_only,
            **request.sampling,
        )
        with self.context.timings.call("ar_generator", index) as call:
            events = self.stages.generate(message, self.context.deadline, call, encoded.model.digest)
            async with aclosing(events):
                async for event in events:
                    if isinstance(event, Latent):
                        latent = event
                    else:
                        progress.put(event)
        return latent, call

    async def _encode_image(
        self, index: int, latent: Latent, prepared: PreparedPrompt
    ) -> tuple[decoder_pb2.DecodeResponse, CallRecord]:
        """The image file with its recipe.

        A generator may not report its decoder. If a decoder other than the recipe's then responds, the file is
        requested without a recipe and the recipe is written here.
        """
        request = decoder_pb2.DecodeRequest(
            request_id=self.request.request_id, latent=latent.result.latent, encoding=self.request.encoding
        )
        if not self.request.embed_metadata:
            return await self._decode(index, request, latent.decoder)
        written = self._recipe(index, latent, prepared)
        request.recipe.CopyFrom(written)
        response, call = await self._decode(index, request, latent.decoder)
        if self._model(prepared, latent, response) != written.model:
            request.ClearField("recipe")
            response, call = await self._decode(index, request, latent.decoder)
            written.model.CopyFrom(self._model(prepared, latent, response))
            response.image = recipe.write(response.image, recipe_of(written).to_json())
        return response, call

    def _recipe(self, index: int, latent: Latent, prepared: PreparedPrompt) -> decoder_pb2.Recipe:
        used = latent.result.sampling
        return decoder_pb2.Recipe(
            prompt=prepared.prompt,
            seed=self.request.seeds[index],
            guidance=used.guidance,
            more_smooth=used.more_smooth,
            top_p=used.top_p,
            residual_temperature=used.residual_temperature,
            model=self._model(prepared, latent),
            versions={"hart": VERSION},
        )

    async def _decode(
        self, index: int, request: decoder_pb2.DecodeRequest, digest: str
    ) -> tuple[decoder_pb2.DecodeResponse, CallRecord]:
        # Retry a full decoder until the deadline, because the latent was expensive. RESOURCE_EXHAUSTED without a
        # setting is gRPC's message-size limit: not retryable.
        deadline = self.context.deadline
        while True:
            try:
                with self.context.timings.call("decoder", index) as call:
                    return await self.stages.decode(request, deadline, call, digest), call
            except Overloaded as error:
                if not error.setting or deadline.remaining() <= error.retry_after:
                    raise
                await asyncio.sleep(error.retry_after)

    async def _preview(self, index: int, progress: ScaleProgress) -> images_pb2.Preview | None:
        """The current latent as a small JPEG; None when the decoder fails or is busy."""
        request = decoder_pb2.DecodeRequest(
            request_id=self.request.request_id, latent=progress.progress.latent, encoding=PREVIEW_ENCODING
        )
        shape = self.model.shape()
        if shape.width:  # a foreign server may not report its size
            share = progress.progress.side / shape.scales[-1] if shape.scales else 1.0
            request.side = preview_side(shape.width, share)
        try:
            with self.context.timings.call("decoder", index, preview=True) as call:
                response = await self.stages.decode(request, self.context.deadline, call, progress.decoder)
        except HartError as error:
            log.info("no preview: %s", error)
            self.stages.metrics.shed.add(reason="preview")
            return None
        return images_pb2.Preview(
            data=response.image, format=response.format, width=response.width, height=response.height
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def _emit_accepted(self) -> None:
        accepted = images_pb2.Accepted(
            request_id=self.request.request_id,
            seeds=self.request.seeds,
            trace_id=self.context.trace_id,
            model=self.model.identity(),
            scales=len(self.model.shape().scales),
        )
        self.emit(images_pb2.GenerateEvent(accepted=accepted))

    def _emit_prepared(self, prepared: PreparedPrompt) -> None:
        event = images_pb2.Prepared(
            prompt_tokens=prepared.encoded.prompt_tokens,
            warnings=warnings_of(prepared.verdict, prepared.encoded),
            revised_prompt=prepared.revised_prompt,
        )
        self.emit(images_pb2.GenerateEvent(prepared=event))

    def _emit_finished(self, prepared: PreparedPrompt, results: list[ImageResult]) -> None:
        last = max(results, key=lambda one: one.finished_at)
        report = images_pb2.Report(
            request_id=self.request.request_id,
            model=results[0].model,
            trace_id=self.context.trace_id,
            verdict=prepared.verdict,
            prompt_tokens=prepared.encoded.prompt_tokens,
            prompt_truncated=prepared.encoded.prompt_truncated,
            warnings=warnings_of(prepared.verdict, prepared.encoded),
            timings=self.context.timings.report([*prepared.critical, *last.critical]),
            revised_prompt=prepared.revised_prompt,
        )
        self.emit(images_pb2.GenerateEvent(finished=images_pb2.Finished(report=report)))

    def _model(
        self, prepared: PreparedPrompt, latent: Latent, response: decoder_pb2.DecodeResponse | None = None
    ) -> stage_pb2.ModelIdentity:
        """The model as the stages' responses name it. Before the decoder's response: the decoder that the latent is
        for."""
        generator = latent.result.model
        decoder = response.model.digest if response else latent.decoder or self.model.part("decoder").digest
        digest = digests.combine(
            generator=generator.digest, text_encoder=prepared.encoded.model.digest, decoder=decoder
        )
        return stage_pb2.ModelIdentity(name=generator.name or self.model.identity().name, digest=digest)


def _allowed(verdict: safety_pb2.Verdict) -> bool:
    return verdict.action == safety_pb2.SAFETY_ACTION_ALLOW and not verdict.unsafe


def _replaced(verdict: safety_pb2.Verdict) -> bool:
    return verdict.action == safety_pb2.SAFETY_ACTION_REPLACE and has_visible(verdict.replacement_prompt)
