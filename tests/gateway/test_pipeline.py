"""gateway.request.pipeline: requested settings, images, events and their order. Fake stages on real sockets."""

from typing import Any

import pytest
from hart.v1 import decoder_pb2, images_pb2

from common.digests import combine
from common.seeds import seed_of_image
from runtime.errors import DeadlineExceeded, InvalidRequest, Overloaded, StageUnavailable
from tests.gateway.calls import request
from tests.gateway.support import SCALES, running_gateway


async def test_images_carry_their_seeds_and_a_report() -> None:
    async with running_gateway() as running:
        answer = await running.stub.Generate(request(num_images=3, format=decoder_pb2.IMAGE_FORMAT_JPEG))
    assert [image.index for image in answer.images] == [0, 1, 2]
    assert [image.seed for image in answer.images] == [seed_of_image(7, index) for index in range(3)]
    assert all(image.format == decoder_pb2.IMAGE_FORMAT_JPEG and image.width == 64 for image in answer.images)
    report = answer.report
    digest = combine(
        generator="digest of ar_generator", text_encoder="digest of text_encoder", decoder="digest of decoder"
    )
    assert (report.model.name, report.model.digest) == ("tiny", digest)
    assert (report.prompt_tokens, report.replayed, len(report.trace_id)) == (2, False, 32)


async def test_every_setting_reaches_the_stages() -> None:
    async with running_gateway() as running:
        message = request(
            prompt=" blue ", guidance=0, more_smooth=False, top_p=0.5, preview_every=2, request_id="id-1",
            format=decoder_pb2.IMAGE_FORMAT_WEBP, quality=33,
        )  # fmt: skip
        [_ async for _ in running.stub.GenerateStream(message)]
        assert running.stage("safety").received[0].prompt == "blue"
        assert running.stage("text_encoder").received[0].prompt == "blue"
        drawn = running.stage("ar_generator").received[0]
        assert (drawn.guidance, drawn.more_smooth, drawn.top_p) == (0, False, 0.5)
        assert (drawn.HasField("guidance"), drawn.seed, drawn.preview_every, drawn.request_id) == (True, 7, 2, "id-1")
        decoded = next(r for r in running.stage("decoder").received if not r.HasField("side"))
        assert (decoded.encoding.format, decoded.encoding.quality) == (decoder_pb2.IMAGE_FORMAT_WEBP, 33)
        recipe = decoded.recipe
        assert (recipe.prompt, recipe.seed, recipe.guidance, recipe.more_smooth, recipe.top_p) == (
            "blue",
            7,
            0,
            False,
            0.5,
        )
        assert recipe.model.digest


async def test_unary_generate_requests_the_result_only() -> None:
    async with running_gateway() as running:
        await running.stub.Generate(request())
        [_ async for _ in running.stub.GenerateStream(request())]
        assert [message.result_only for message in running.stage("ar_generator").received] == [True, False]


async def test_stream_that_joins_a_unary_request_gets_each_scale_once() -> None:
    async with running_gateway() as running:
        await running.stub.Generate(request(request_id="one"))
        events = [event async for event in running.stub.GenerateStream(request(request_id="one"))]
    progress = [event.progress for event in events if event.HasField("progress")]
    assert [(one.scale, one.side, one.scales) for one in progress] == [(0, 1, 3), (1, 2, 3), (2, 4, 3)]
    assert events[-2].HasField("image")


async def test_without_metadata_no_recipe_is_written() -> None:
    async with running_gateway() as running:
        await running.stub.Generate(request(embed_metadata=False))
        assert not running.stage("decoder").received[0].HasField("recipe")


async def test_unknown_words_and_truncation_become_warnings() -> None:
    async with running_gateway() as running:
        report = (await running.stub.Generate(request(prompt="a long zyzzyva"))).report
    codes = [warning.code for warning in report.warnings]
    assert codes == [images_pb2.WARNING_CODE_PROMPT_TRUNCATED, images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY]
    assert list(report.warnings[1].words) == ["zyzzyva"]
    assert report.prompt_truncated


async def test_stream_events_are_in_order_with_previews() -> None:
    async with running_gateway() as running:
        running.stage("ar_generator").scale_seconds = 0.1
        stream = running.stub.GenerateStream(request(num_images=2, preview_every=2))
        events = [event async for event in stream]
    assert events[0].HasField("accepted")
    assert list(events[0].accepted.seeds) == [7, seed_of_image(7, 1)]
    assert (events[0].accepted.scales, len(events[0].accepted.trace_id)) == (len(SCALES), 32)
    assert events[-1].HasField("finished")
    for index in range(2):
        mine = [event for event in events if _of(event) == index]
        assert [e.progress.scale for e in mine[:-1]] == [0, 1, 2]
        assert [e.progress.HasField("preview") for e in mine[:-1]] == [False, True, False]
        assert mine[-1].HasField("image")
    preview = next(e.progress.preview for e in events if e.progress.HasField("preview"))
    assert (preview.format, preview.width) == (decoder_pb2.IMAGE_FORMAT_JPEG, 64)


async def test_previews_of_a_decoder_of_unknown_size_are_full_size() -> None:
    def without_size(servers: Any) -> None:
        for fake in (*servers["ar_generator"], *servers["decoder"]):
            fake.side = 0

    async with running_gateway(prepare=without_size) as running:
        running.stage("ar_generator").scale_seconds = 0.1
        events = [event async for event in running.stub.GenerateStream(request(preview_every=1))]
        assert not any(asked.HasField("side") for asked in running.stage("decoder").received)
    assert sum(e.progress.HasField("preview") for e in events) == len(SCALES) - 1  # the image overtakes the last one


def _of(event: images_pb2.GenerateEvent) -> int | None:
    if event.HasField("progress"):
        return event.progress.image_index
    return event.image.index if event.HasField("image") else None


@pytest.mark.parametrize(
    "error",
    [
        Overloaded("decoder", "HART_MAX_QUEUED_REQUESTS", 0.01), StageUnavailable("decoder", "dying"),
        DeadlineExceeded("decoder"), InvalidRequest.field("side", "must be something else"), RuntimeError("broken"),
    ],
    ids=str,
)  # fmt: skip
async def test_failed_preview_never_fails_the_image(error: Exception) -> None:
    async def before(message: Any) -> None:
        if message.HasField("side"):
            raise error

    async with running_gateway(retry_attempts=1) as running:
        running.stage("decoder").before = before
        events = [event async for event in running.stub.GenerateStream(request(preview_every=1))]
    progress = [e.progress for e in events if e.HasField("progress")]
    assert [(one.scale, one.HasField("preview")) for one in progress] == [(0, False), (1, False), (2, False)]
    assert sum(e.HasField("image") for e in events) == 1
