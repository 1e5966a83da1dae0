"""An image's progress events, in order, with previews that never delay the image."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from hart.v1 import images_pb2

from gateway.request.rules import decodes_preview
from gateway.request.shared_execution import Emit
from gateway.stages.client import ScaleProgress
from runtime.tasks import cancel

DecodePreview = Callable[[ScaleProgress], Awaitable[images_pb2.Preview | None]]


class ProgressStream:
    """Sends the events of one image from one task, in ascending order of scale.

    The task decodes one preview at a time and skips a preview while a newer latent waits. `flush` drops the previews
    that are not decoded yet: an image never waits for them.
    """

    def __init__(self, image_index: int, emit: Emit, decode_preview: DecodePreview) -> None:
        self._image_index = image_index
        self._emit = emit
        self._decode_preview = decode_preview
        self._pending: deque[ScaleProgress] = deque()
        self._arrived = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._consume())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    def put(self, progress: ScaleProgress) -> None:
        """Send this event after those before it."""
        self._pending.append(progress)
        self._arrived.set()

    async def flush(self) -> None:
        """Send every event that is left, without waiting for a preview."""
        await self._stop()
        while self._pending:
            self._send(None)

    async def _stop(self) -> None:
        if self._task is not None:
            await cancel(self._task)

    async def _consume(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._pending:
                self._send(await self._preview())

    async def _preview(self) -> images_pb2.Preview | None:
        head, *later = self._pending
        last_scale = head.progress.scale == head.progress.scales - 1
        if not decodes_preview(head.has_latent, (other.has_latent for other in later), last_scale=last_scale):
            return None
        return await self._decode_preview(head)

    def _send(self, preview: images_pb2.Preview | None) -> None:
        progress = self._pending.popleft().progress
        event = images_pb2.Progress(
            image_index=self._image_index, scale=progress.scale, side=progress.side, scales=progress.scales
        )
        if preview is not None:
            event.preview.CopyFrom(preview)
        self._emit(images_pb2.GenerateEvent(progress=event))
