"""Folds the client's events of a request into frames for display."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from hart import Accepted, AsyncClient, Event, Finished, Image, Preview, Progress, Starting
from hart.request import Options
from hart.v1 import images_pb2


@dataclass(frozen=True)
class Frame:
    """The state of a request at one moment."""

    images: tuple[Preview | Image | None, ...] = ()
    """Per image, the final image or the newest preview; None before the first preview."""
    drawn: int = 0
    """Finished scales, over all images."""
    scales: int = 0
    """Total scales, over all images; 0 before the request is accepted."""
    report: images_pb2.Report | None = None
    """None before the last frame."""

    def after(self, event: Event) -> Frame:
        """The next frame, after an event."""
        match event:
            case Accepted(seeds=seeds, scales=scales):
                return replace(self, images=(None,) * len(seeds), scales=scales * len(seeds))
            case Starting():
                return self
            case Progress(image_index=index, preview=preview):
                return replace(self._with(index, preview), drawn=self.drawn + 1)
            case Image(index=index):
                return self._with(index, event)
            case Finished(report=report):
                return replace(self, report=report)

    def _with(self, index: int, image: Preview | Image | None) -> Frame:
        """The frame with a new image or preview. A late preview does not replace a final image."""
        if image is None or (isinstance(self.images[index], Image) and isinstance(image, Preview)):
            return self
        return replace(self, images=(*self.images[:index], image, *self.images[index + 1 :]))


async def draw(client: AsyncClient, prompt: str, options: Options) -> AsyncGenerator[Frame, None]:
    """Yield a frame per event, with a preview of every scale. Closing it cancels the request. Raises HartError."""
    frame, with_previews = Frame(), Options(**options)
    with_previews["preview_every"] = 1
    async with aclosing(client.stream(prompt, **with_previews)) as events:
        async for event in events:
            frame = frame.after(event)
            yield frame
