"""demo.drawing: the frames of the page during a request."""

from __future__ import annotations

from contextlib import aclosing

import grpc
import pytest
from hart import Accepted, AsyncClient, Finished, Image, Preview, Progress, PromptUnsafe
from hart.v1 import images_pb2

from demo.drawing import Frame, draw
from tests.client.conftest import SCALES, Failure, Gateway
from tests.client.conftest import gateway as gateway


def preview() -> Preview:
    return Preview(b"small", "jpeg", 2, 2)


def image(index: int) -> Image:
    return Image(b"large", "png", 8, 8, index, seed=index)


async def test_every_event_gives_a_frame_up_to_the_finished_images(gateway: Gateway) -> None:
    async with AsyncClient(gateway.endpoint) as client:
        frames = [frame async for frame in draw(client, "x", {"num_images": 2, "seed": 5})]
    scales = 2 * len(SCALES)
    accepted, prepared, *drawn = frames
    assert accepted == prepared == Frame(images=(None, None), scales=scales)
    assert [frame.drawn for frame in drawn] == [*range(1, scales + 1), *[scales] * 3]
    assert [type(one) for one in drawn[0].images] == [Preview, type(None)]
    assert [type(one) for one in drawn[scales - 1].images] == [Preview, Preview]
    assert [one.seed for one in frames[-1].images if isinstance(one, Image)] == [5, 6]
    assert frames[-2].report is None
    assert frames[-1].report is not None
    assert frames[-1].report.prompt_tokens == 3


async def test_chosen_options_are_sent(gateway: Gateway) -> None:
    async with AsyncClient(gateway.endpoint) as client:
        _ = [frame async for frame in draw(client, "x", {"guidance": 2.0, "more_smooth": False})]
    (request,) = gateway.requests
    assert (request.prompt, request.guidance, request.more_smooth, request.preview_every) == ("x", 2.0, False, 1)


async def test_closed_generator_cancels_on_the_server(gateway: Gateway) -> None:
    gateway.hang = True
    async with AsyncClient(gateway.endpoint) as client:
        async with aclosing(draw(client, "x", {})) as frames:
            await anext(frames)
        assert gateway.cancelled.wait(60)


async def test_failures_are_the_errors_of_the_client(gateway: Gateway) -> None:
    gateway.failure = Failure(grpc.StatusCode.PERMISSION_DENIED, "not you")
    async with AsyncClient(gateway.endpoint) as client:
        with pytest.raises(Exception, match="not you") as caught:
            _ = [frame async for frame in draw(client, "x", {})]
    assert type(caught.value).__name__ == "PermissionDenied"
    assert not isinstance(caught.value, PromptUnsafe)


def test_late_preview_does_not_replace_its_image() -> None:
    frame = Frame()
    for event in (
        Accepted("id", (0, 1), 2, "", "m", "d"),
        Progress(0, 0, 1, 2, preview()),
        image(0),
        Progress(0, 1, 2, 2, preview()),
        Progress(1, 0, 1, 2),
    ):
        frame = frame.after(event)
    assert frame == Frame(images=(image(0), None), drawn=3, scales=4)
    report = images_pb2.Report(request_id="id")
    assert frame.after(Finished(report)).report is report
