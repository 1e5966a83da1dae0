"""A request's way through the stages. Knows their order, and nothing of replicas, retries or callers."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextvars import copy_context
from dataclasses import dataclass

from hart.v1 import decoder_pb2, images_pb2, safety_pb2, stage_pb2, tensor_pb2, text_encoder_pb2
from hart.v1.ar_generator_pb2 import GenerateLatentRequest, LatentProgress

from gateway import digests, recipe
from gateway.request.admission import AdmissionController, DecodeBackpressure
from gateway.request.shared_execution import Emit
from gateway.request.timings import RequestTimings
from gateway.request.validation import ImageRequest
from gateway.request.warnings import warnings_of
from gateway.routing.cluster_view import ClusterView
from gateway.stages.client import Latent, Stages
from runtime.deadline import Deadline
from runtime.errors import HartError, Overloaded, PromptUnsafe, StageUnavailable
from runtime.observability.tracing import current_trace_id
from runtime.prompt import has_visible
from runtime.status import as_hart_error
from runtime.tasks import cancel, together
from runtime.version import VERSION

log = logging.getLogger(__name__)
Call = images_pb2.StageCall
PREVIEW_DIVISOR = 4  # a preview has about a quarter of the picture's side,
MIN_PREVIEW_SIDE = 128  # but so many pixels where there are: a decoder makes nothing of a latent of two by two
PREVIEW_ENCODING = decoder_pb2.ImageEncoding(format=decoder_pb2.IMAGE_FORMAT_JPEG)


def preview_side(width: int) -> int:
    """Pixels along a side of the preview of a picture that is so wide."""
    return min(width, max(MIN_PREVIEW_SIDE, width // PREVIEW_DIVISOR))


@dataclass(frozen=True)
class PreparedPrompt:
    """What became of the prompt before anything is drawn."""

    verdict: safety_pb2.Verdict
    encoded: text_encoder_pb2.EncodeResponse
    prompt: str
    """The one that is drawn: the replacement, where an unsafe one was replaced."""
    critical: tuple[Call, ...]


@dataclass(frozen=True)
class ImageResult:
    """A finished picture."""

    image: images_pb2.Image
    model: stage_pb2.ModelIdentity
    critical: tuple[Call, ...]
    ended_at: float
    """Seconds since the request's arrival."""


@dataclass(frozen=True)
class GenerationPipeline:
    """One request in work."""

    request: ImageRequest
    deadline: Deadline
    timings: RequestTimings
    emit: Emit
    stages: Stages
    cluster: ClusterView
    admission: AdmissionController
    backpressure: DecodeBackpressure

    async def run(self) -> None:
        """Draw everything. Emits `accepted`, then `progress` and `image`, then `finished`."""
        with self.admission.admitted(self.request.num_images) as latent_came:
            self._accept()
            prepared = await self.read()
            pictures = (self.picture(index, prepared, latent_came) for index in range(self.request.num_images))
            drawn = await together(*pictures)
        self._finish(prepared, drawn)

    # -- the prompt --------------------------------------------------------------------------------------------------

    async def read(self) -> PreparedPrompt:
        """Judge and encode the prompt side by side. No verdict, no reading: whatever fails, nothing is drawn."""
        checking = asyncio.ensure_future(self._check())
        encoding = asyncio.ensure_future(self._encode(self.request.prompt))
        try:
            verdict, checked = await checking
            if _allowed(verdict):
                encoded, call = await encoding
                return PreparedPrompt(verdict, encoded, self.request.prompt, (max(checked, call, key=_end),))
            if not _replaced(verdict):
                raise PromptUnsafe(verdict.violated, verdict.policy_version)
            await cancel(encoding)
            encoded, call = await self._encode(verdict.replacement_prompt)
            return PreparedPrompt(verdict, encoded, verdict.replacement_prompt, (checked, call))
        finally:
            await cancel(checking, encoding)

    async def _check(self) -> tuple[safety_pb2.Verdict, Call]:
        message = safety_pb2.CheckRequest(request_id=self.request.request_id, prompt=self.request.prompt)
        with self.timings.call("safety") as call:
            answer = await self.stages.check(message, self.deadline, call)
        if not answer.HasField("verdict"):
            raise StageUnavailable("safety", "it gave no verdict")
        scores = [one.score for one in answer.verdict.scores]
        if not all(map(math.isfinite, scores)):  # no comparison with NaN is true: whoever made it may have passed it
            raise as_hart_error(RuntimeError(f"safety: the scores {scores} are not finite"), "safety")
        return answer.verdict, call

    async def _encode(self, prompt: str) -> tuple[text_encoder_pb2.EncodeResponse, Call]:
        message = text_encoder_pb2.EncodeRequest(request_id=self.request.request_id, prompt=prompt)
        with self.timings.call("text_encoder") as call:
            return await self.stages.encode(message, self.deadline, call), call

    # -- a picture ---------------------------------------------------------------------------------------------------

    async def picture(self, index: int, prepared: PreparedPrompt, latent_came: Callable[[], None]) -> ImageResult:
        """Draw picture `index`: scales, then pixels. Its progress is told in order, previews and all, before it."""
        async with self.backpressure.place(self.deadline) as now_at_the_decoder:

            def came() -> None:
                now_at_the_decoder()
                latent_came()

            return await self._draw(index, prepared, came)

    async def _draw(self, index: int, prepared: PreparedPrompt, latent_came: Callable[[], None]) -> ImageResult:
        telling = ProgressStream(self, index)
        try:
            with self.timings.call("ar_generator", index) as generating:
                latent = await self._generate(index, prepared, generating, telling)
            latent_came()
            answer, decoding = await self._file(index, latent, prepared)
            await telling.told()
        finally:
            await telling.stop()
        image = images_pb2.Image(
            index=index,
            data=answer.image,
            format=answer.format,
            width=answer.width,
            height=answer.height,
            seed=self.request.seeds[index],
        )
        self.emit(images_pb2.GenerateEvent(image=image))
        return ImageResult(image, self._model(prepared, latent, answer), (generating, decoding), self.timings.elapsed)

    async def _generate(self, index: int, prepared: PreparedPrompt, call: Call, telling: ProgressStream) -> Latent:
        request, encoded = self.request, prepared.encoded
        message = GenerateLatentRequest(
            request_id=request.request_id,
            context=encoded.context,
            mask=encoded.mask,
            positions=encoded.positions,
            seed=request.seeds[index],
            guidance=request.guidance,
            more_smooth=request.more_smooth,
            top_p=request.top_p,
            preview_every=request.preview_every,
            result_only=request.result_only,
        )
        return await self.stages.generate(message, self.deadline, call, telling.tell, encoded.model.digest)

    def _decode_request(
        self, index: int, latent: Latent, prepared: PreparedPrompt, model: stage_pb2.ModelIdentity
    ) -> decoder_pb2.DecodeRequest:
        request = self.request
        message = decoder_pb2.DecodeRequest(
            request_id=request.request_id, latent=latent.result.latent, encoding=request.encoding
        )
        if request.embed_metadata:
            message.recipe.CopyFrom(
                decoder_pb2.Recipe(
                    prompt=prepared.prompt,
                    seed=request.seeds[index],
                    guidance=request.guidance,
                    more_smooth=request.more_smooth,
                    top_p=request.top_p,
                    model=model,
                    versions={"hart": VERSION},
                )
            )
        return message

    async def _file(
        self, index: int, latent: Latent, prepared: PreparedPrompt
    ) -> tuple[decoder_pb2.DecodeResponse, Call]:
        """The picture's file, with its recipe. Should another decoder answer than the recipe says, which can be
        where the generator does not know its own, the file comes without, and it is written here."""
        message = self._decode_request(index, latent, prepared, self._model(prepared, latent))
        answer, call = await self._decode(index, message, latent.decoder)
        if message.HasField("recipe") and self._model(prepared, latent, answer) != message.recipe.model:
            written = message.recipe
            message.ClearField("recipe")
            answer, call = await self._decode(index, message, latent.decoder)
            written.model.CopyFrom(self._model(prepared, latent, answer))
            answer.image = recipe.write(answer.image, written)
        return answer, call

    async def _decode(
        self, index: int, message: decoder_pb2.DecodeRequest, digest: str
    ) -> tuple[decoder_pb2.DecodeResponse, Call]:
        # A latent is dear: a full decoder is asked again while there is time, where other stages' refusals end it. One
        # that names no knob is no queue: gRPC itself refuses so what is too large, and will again.
        while True:
            try:
                with self.timings.call("decoder", index) as call:
                    return await self.stages.decode(message, self.deadline, call, digest), call
            except Overloaded as error:
                if not error.setting or self.deadline.remaining() <= error.retry_after:
                    raise
                await asyncio.sleep(error.retry_after)

    async def preview(self, index: int, latent: tensor_pb2.Tensor, digest: str) -> images_pb2.Preview | None:
        """The latent so far as a small JPEG, by the decoder of this digest; None where it has none to give, be it too
        busy, away or unable: a preview never costs the picture."""
        message = decoder_pb2.DecodeRequest(
            request_id=self.request.request_id, latent=latent, encoding=PREVIEW_ENCODING
        )
        if width := self.cluster.shape().width:  # another's server may not tell; then a preview is as large as it comes
            message.side = preview_side(width)
        try:
            with self.timings.call("decoder", index, preview=True) as call:
                answer = await self.stages.decode(message, self.deadline, call, digest)
        except HartError as error:
            log.info("no preview: %s", error)
            self.stages.metrics.shed.add(reason="preview")
            return None
        return images_pb2.Preview(data=answer.image, format=answer.format, width=answer.width, height=answer.height)

    # -- what the caller is told -------------------------------------------------------------------------------------

    def _accept(self) -> None:
        accepted = images_pb2.Accepted(
            request_id=self.request.request_id,
            seeds=self.request.seeds,
            trace_id=current_trace_id(),
            model=self.cluster.model(),
            scales=len(self.cluster.shape().scales),
        )
        self.emit(images_pb2.GenerateEvent(accepted=accepted))

    def _model(
        self, prepared: PreparedPrompt, latent: Latent, answer: decoder_pb2.DecodeResponse | None = None
    ) -> stage_pb2.ModelIdentity:
        """Who drew: by what the stages' answers said; before the decoder answered, the one that the latent is for."""
        drawn = latent.result.model
        decoder = answer.model.digest if answer else latent.decoder or self.cluster.identity("decoder").digest
        digest = digests.combine(generator=drawn.digest, text_encoder=prepared.encoded.model.digest, decoder=decoder)
        return stage_pb2.ModelIdentity(name=drawn.name or self.cluster.model().name, digest=digest)

    def _finish(self, prepared: PreparedPrompt, drawn: list[ImageResult]) -> None:
        last = max(drawn, key=lambda one: one.ended_at)
        report = images_pb2.Report(
            request_id=self.request.request_id,
            model=drawn[0].model,
            trace_id=current_trace_id(),
            verdict=prepared.verdict,
            prompt_tokens=prepared.encoded.prompt_tokens,
            prompt_truncated=prepared.encoded.prompt_truncated,
            warnings=warnings_of(prepared.verdict, prepared.encoded),
            timings=self.timings.report([*prepared.critical, *last.critical]),
        )
        self.emit(images_pb2.GenerateEvent(finished=images_pb2.Finished(report=report)))


class ProgressStream:
    """A picture's progress events, told in order; a preview is decoded on the way, one at a time."""

    def __init__(self, drawing: GenerationPipeline, index: int) -> None:
        self._drawing = drawing
        self._index = index
        self._tasks: list[asyncio.Task[None]] = []
        self._context = copy_context()  # the request's: a preview is no child of the generator's span

    def tell(self, progress: LatentProgress, decoder: str) -> None:
        """Emit when everything before it has been told."""
        before = self._tasks[-1] if self._tasks else None
        self._tasks.append(asyncio.create_task(self._tell(progress, decoder, before), context=self._context))

    async def _tell(self, progress: LatentProgress, decoder: str, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await before
        event = images_pb2.Progress(
            image_index=self._index, scale=progress.scale, side=progress.side, scales=progress.scales
        )
        if progress.HasField("latent"):
            preview = await self._drawing.preview(self._index, progress.latent, decoder)
            if preview is not None:
                event.preview.CopyFrom(preview)
        self._drawing.emit(images_pb2.GenerateEvent(progress=event))

    async def told(self) -> None:
        """Return when everything was told."""
        if self._tasks:
            await self._tasks[-1]

    async def stop(self) -> None:
        """Tell no more."""
        await cancel(*self._tasks)  # each: one that has not begun would not pass it on to those before it


def _allowed(verdict: safety_pb2.Verdict) -> bool:
    return verdict.action == safety_pb2.SAFETY_ACTION_ALLOW and not verdict.unsafe


def _replaced(verdict: safety_pb2.Verdict) -> bool:
    return verdict.action == safety_pb2.SAFETY_ACTION_REPLACE and has_visible(verdict.replacement_prompt)


def _end(call: Call) -> float:
    return call.start_seconds + call.duration_seconds
