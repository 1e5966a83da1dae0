"""Turns the client's events into frames for a page. Knows no page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from hart import Accepted, AsyncClient, Event, Finished, Image, Prepared, Preview, Progress, Starting
from hart.request import Options
from hart.v1 import images_pb2


@dataclass(frozen=True)
class Frame:
    """The state of a request at one moment."""

    images: tuple[Preview | Image | None, ...] = ()
    """The newest preview or image by index; None before the first preview."""
    drawn: int = 0
    """Scales drawn so far, of all images."""
    scales: int = 0
    """Scales to draw, of all images; 0 before the request is accepted."""
    report: images_pb2.Report | None = None
    """With the last frame."""

    def after(self, event: Event) -> Frame:
        """The frame after an event."""
        match event:
            case Accepted(seeds=seeds, scales=scales):
                return replace(self, images=(None,) * len(seeds), scales=scales * len(seeds))
            case Starting() | Prepared():
                return self
            case Progress(image_index=index, preview=preview):
                return replace(self._with(index, preview), drawn=self.drawn + 1)
            case Image(index=index):
                return self._with(index, event)
            case Finished(report=report):
                return replace(self, report=report)

    def _with(self, index: int, image: Preview | Image | None) -> Frame:
        """A late preview does not replace the finished image."""
        if image is None or (isinstance(self.images[index], Image) and isinstance(image, Preview)):
            return self
        return replace(self, images=(*self.images[:index], image, *self.images[index + 1 :]))


async def draw(client: AsyncClient, prompt: str, options: Options) -> AsyncGenerator[Frame, None]:
    """Draw with a preview of every scale, a frame per event; raises HartError. Closing it cancels the request."""
    frame, chosen = Frame(), Options(**options)
    chosen["preview_every"] = 1
    async with aclosing(client.stream(prompt, **chosen)) as events:
        async for event in events:
            frame = frame.after(event)
            yield frame
