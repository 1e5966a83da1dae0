"""gateway.request.progress: events in order, previews that never hold up the image."""

import asyncio

from hart.v1 import ar_generator_pb2, images_pb2

from gateway.request.progress import ProgressStream
from gateway.stages.client import ScaleProgress


def scale(number: int, *, latent: bool = True) -> ScaleProgress:
    progress = ar_generator_pb2.LatentProgress(scale=number, side=number + 1, scales=9)
    if latent:
        progress.latent.SetInParent()
    return ScaleProgress(progress, "")


class Decoder:
    """Decodes previews once `free` is set; records the requested and the cancelled scales."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.cancelled: list[int] = []
        self.free = asyncio.Event()
        self.began = asyncio.Event()

    async def __call__(self, progress: ScaleProgress) -> images_pb2.Preview:
        self.asked.append(progress.progress.scale)
        self.began.set()
        try:
            await self.free.wait()
        except asyncio.CancelledError:
            self.cancelled.append(progress.progress.scale)
            raise
        return images_pb2.Preview(data=b"x")


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def shown(events: list[images_pb2.GenerateEvent]) -> list[tuple[int, bool]]:
    return [(event.progress.scale, event.progress.HasField("preview")) for event in events]


async def test_events_come_in_order_with_their_previews() -> None:
    events: list[images_pb2.GenerateEvent] = []
    decoder = Decoder()
    decoder.free.set()
    async with ProgressStream(3, events.append, decoder) as progress:
        for number in range(4):
            progress.put(scale(number, latent=number % 2 == 0))
            await settled()
        assert shown(events) == [(0, True), (1, False), (2, True), (3, False)]
        assert {event.progress.image_index for event in events} == {3}


async def test_newest_latent_wins_over_older_ones_that_wait() -> None:
    events: list[images_pb2.GenerateEvent] = []
    decoder = Decoder()
    async with ProgressStream(0, events.append, decoder) as progress:
        for number in range(4):
            progress.put(scale(number))
            await settled()
        assert shown(events) == []
        decoder.free.set()
        await settled()
        assert shown(events) == [(0, True), (1, False), (2, False), (3, True)]
        assert decoder.asked == [0, 3]


async def test_flush_sends_pending_events_without_waiting_for_a_preview() -> None:
    events: list[images_pb2.GenerateEvent] = []
    decoder = Decoder()
    async with ProgressStream(0, events.append, decoder) as progress:
        progress.put(scale(0))
        await decoder.began.wait()
        progress.put(scale(1))
        await asyncio.wait_for(progress.flush(), 5)
        assert shown(events) == [(0, False), (1, False)]
    assert decoder.cancelled == [0]


async def test_image_that_fails_cancels_its_preview() -> None:
    decoder = Decoder()
    async with ProgressStream(0, lambda event: None, decoder) as progress:
        progress.put(scale(0))
        await decoder.began.wait()
    assert decoder.cancelled == [0]
