"""A request as a page shows it: the client's events become frames. Knows no page."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, replace

from hart import Accepted, AsyncClient, Event, Finished, Image, Preview, Progress, Starting
from hart.request import Options
from hart.v1 import images_pb2


@dataclass(frozen=True)
class Frame:
    """What there is to see at one moment."""

    pictures: tuple[Preview | Image | None, ...] = ()
    """The newest of each picture asked for; None before its first preview."""
    drawn: int = 0
    """Scales drawn so far, of all pictures."""
    scales: int = 0
    """Scales to draw, of all pictures; 0 before the request is accepted."""
    report: images_pb2.Report | None = None
    """With the last frame."""

    def after(self, event: Event) -> Frame:
        """The frame that an event leads to."""
        match event:
            case Accepted(seeds=seeds, scales=scales):
                return replace(self, pictures=(None,) * len(seeds), scales=scales * len(seeds))
            case Starting():
                return self
            case Progress(image_index=index, preview=preview):
                return replace(self._with(index, preview), drawn=self.drawn + 1)
            case Image(index=index):
                return self._with(index, event)
            case Finished(report=report):
                return replace(self, report=report)

    def _with(self, index: int, picture: Preview | Image | None) -> Frame:
        """A preview that comes late does not cover the finished picture."""
        if picture is None or (isinstance(self.pictures[index], Image) and isinstance(picture, Preview)):
            return self
        return replace(self, pictures=(*self.pictures[:index], picture, *self.pictures[index + 1 :]))


async def draw(client: AsyncClient, prompt: str, options: Options) -> AsyncGenerator[Frame, None]:
    """Draw with a preview of every scale, a frame per event; raises HartError. Closing it cancels the request."""
    frame, wanted = Frame(), Options(**options)
    wanted["preview_every"] = 1
    async with aclosing(client.stream(prompt, **wanted)) as events:
        async for event in events:
            frame = frame.after(event)
            yield frame
