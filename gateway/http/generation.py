"""`POST /v1/images/generations`: translates between the OpenAI images API and the executor's events."""

from __future__ import annotations

import base64
import time
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from hart.v1 import decoder_pb2, images_pb2

from gateway.access import rate_limits
from gateway.config import GatewaySettings
from gateway.http.exchange import Exchange
from gateway.http.generation_request import GenerationRequest, parse
from gateway.http.responses import CompletedEvent, ImageData, ImagesResponse, OutputFormat, PartialImageEvent, Usage
from gateway.request.audit import user_hash
from gateway.request.executor import RequestExecutor
from gateway.routing.served_model import ServedModel
from runtime.deadline import Deadline
from runtime.errors import HartError
from runtime.image_messages import from_wire
from runtime.observability.tracing import current_trace_id

Events = AsyncGenerator[images_pb2.GenerateEvent, None]
IDEMPOTENCY_HEADER, REQUEST_ID_HEADER = "idempotency-key", "x-request-id"
_FORMATS: dict[str, OutputFormat] = {"PNG": "png", "JPEG": "jpeg", "WEBP": "webp"}


@dataclass
class Generation:
    """Serves the requests of all callers."""

    settings: GatewaySettings
    executor: RequestExecutor
    model: ServedModel

    async def __call__(self, exchange: Exchange) -> None:
        """Serve one request. Raises HartError."""
        exchange.set_header(REQUEST_ID_HEADER, current_trace_id())
        try:
            request, message = await self._read(exchange)
        except HartError as error:
            rate_limits.rejected(exchange.info(rate_limits.GENERATE), error)
            raise
        if message.HasField("request_id"):
            exchange.set_header(REQUEST_ID_HEADER, message.request_id)
        async with exchange.cancelled_if_client_leaves(), aclosing(self._events(exchange, request, message)) as events:
            if request.streams:
                await self._stream(exchange, request, events)
            else:
                await self._respond(exchange, events)

    async def _read(self, exchange: Exchange) -> tuple[GenerationRequest, images_pb2.GenerateRequest]:
        exchange.read_deadline()
        request = parse(await exchange.body())
        await self.model.require()
        key = exchange.request.headers.get(IDEMPOTENCY_HEADER)
        return request, request.to_message(key, self.model.shape())

    def _events(self, exchange: Exchange, request: GenerationRequest, message: images_pb2.GenerateRequest) -> Events:
        caller = rate_limits.current.get()
        settings = self.settings
        return self.executor.events(
            message,
            caller=caller,
            deadline=Deadline.of(
                exchange, default=settings.absent_deadline_seconds, maximum=settings.max_deadline_seconds
            ),
            streams=request.streams,
            end_user=user_hash(caller, request.end_user),
        )

    async def _respond(self, exchange: Exchange, events: Events) -> None:
        images: list[images_pb2.Image] = []
        report = images_pb2.Report()
        async for event in events:
            if event.HasField("image"):
                images.append(event.image)
            elif event.HasField("finished"):
                report = event.finished.report
        images.sort(key=lambda image: image.index)
        exchange.set_header(REQUEST_ID_HEADER, report.request_id)
        body = self._response(images, report).to_json()
        release = self.executor.hold(len(body))
        try:
            await exchange.respond(200, body)
        finally:
            release()

    def _response(self, images: list[images_pb2.Image], report: images_pb2.Report) -> ImagesResponse:
        revised = report.revised_prompt if report.HasField("revised_prompt") else None
        data = [ImageData(b64_json=_base64(image.data), seed=image.seed, revised_prompt=revised) for image in images]
        return ImagesResponse(
            created=int(time.time()),
            data=data,
            output_format=_format(images[0].format),
            size=_size(images[0]),
            usage=Usage.of(report.prompt_tokens, len(images) * self._drawn_tokens()),
            model=report.model.name,
            warnings=_texts(report) or None,
        )

    async def _stream(self, exchange: Exchange, request: GenerationRequest, events: Events) -> None:
        """Sends the events. The response begins when the prompt was allowed, or when the request has to wait for a
        stage to start: an error before has a status of its own."""
        stream = _EventStream(request.partial_images or 0, self._drawn_tokens())
        async for event in events:
            match event.WhichOneof("event"):
                case "accepted":
                    stream.seeds = list(event.accepted.seeds)
                    exchange.set_header(REQUEST_ID_HEADER, event.accepted.request_id)
                case "prepared":
                    stream.prepared = event.prepared
            if not exchange.started and not event.HasField("accepted"):
                await exchange.start_events()
            for sent in stream.translate(event):
                await exchange.send_event(sent.type, sent.to_json())
        await exchange.end()

    def _drawn_tokens(self) -> int:
        return sum(side * side for side in self.model.shape().scales)


@dataclass
class _EventStream:
    """The events of one request in this API's form."""

    partial_images: int
    drawn_tokens: int
    """Per image."""
    seeds: list[int] = field(default_factory=list)
    prepared: images_pb2.Prepared = field(default_factory=images_pb2.Prepared)
    _sent: Counter[int] = field(default_factory=Counter)
    _completed: int = 0

    def translate(self, event: images_pb2.GenerateEvent) -> list[PartialImageEvent | CompletedEvent]:
        """At most one event."""
        if event.HasField("image"):
            return [self._image(event.image)]
        if event.HasField("progress") and event.progress.HasField("preview"):
            progress = event.progress
            last = progress.scale + 1 >= progress.scales  # the image itself follows
            if not last and self._sent[progress.image_index] < self.partial_images:
                return [self._partial(progress.image_index, progress.preview)]
        return []

    def _partial(self, index: int, preview: images_pb2.Preview) -> PartialImageEvent:
        self._sent[index] += 1
        return PartialImageEvent(
            b64_json=_base64(preview.data),
            created_at=int(time.time()),
            output_format=_format(preview.format),
            size=_size(preview),
            image_index=index,
            seed=self.seeds[index],
            partial_image_index=self._sent[index] - 1,
        )

    def _image(self, image: images_pb2.Image) -> CompletedEvent:
        prepared = self.prepared
        self._completed += 1
        return CompletedEvent(
            b64_json=_base64(image.data),
            created_at=int(time.time()),
            output_format=_format(image.format),
            size=_size(image),
            image_index=image.index,
            seed=image.seed,
            usage=Usage.of(prepared.prompt_tokens if self._completed == 1 else 0, self.drawn_tokens),
            revised_prompt=prepared.revised_prompt if prepared.HasField("revised_prompt") else None,
            warnings=_texts(prepared) or None,
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _format(value: decoder_pb2.ImageFormat.ValueType) -> OutputFormat:
    return _FORMATS[from_wire(value).name]


def _size(file: images_pb2.Image | images_pb2.Preview) -> str:
    return f"{file.width}x{file.height}"


def _texts(message: images_pb2.Report | images_pb2.Prepared) -> list[str]:
    return [warning.text for warning in message.warnings]
