"""A request's way through fake stages on real sockets: order, failure, repeats, deadlines, time."""

import asyncio
import time
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hart.v1 import decoder_pb2, images_pb2, safety_pb2

from gateway.digests import combine
from gateway.seeds import seed_of_image
from runtime.errors import InvalidRequest, Overloaded, StageUnavailable
from tests.gateway.support import SCALES, Front, front, until

UNSAFE = safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_REFUSE, policy_version="p1", violated=["harm"])


def request(**fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(**{"prompt": "a red heart", "seed": 7, **fields})


async def refused(call: Any) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, str]:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    info = error_details_pb2.ErrorInfo()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
    return caught.value.code(), info, caught.value.details()


def raising(error: Exception, times: int = 1) -> Any:
    left = times

    async def before(_: Any) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise error

    return before


def holding(gate: asyncio.Event) -> Any:
    async def before(_: Any) -> None:
        await gate.wait()

    return before


async def anext_all(call: Any) -> list[images_pb2.GenerateEvent]:
    return [event async for event in call]


# -- the picture -----------------------------------------------------------------------------------------------------


async def test_pictures_come_with_their_seeds_and_a_report():
    async with front() as running:
        answer = await running.stub.Generate(request(images=3, format=decoder_pb2.IMAGE_FORMAT_JPEG))
    assert [image.index for image in answer.images] == [0, 1, 2]
    assert [image.seed for image in answer.images] == [seed_of_image(7, index) for index in range(3)]
    assert all(image.format == decoder_pb2.IMAGE_FORMAT_JPEG and image.width == 64 for image in answer.images)
    report = answer.report
    digest = combine(
        generator="digest of ar_generator", text_encoder="digest of text_encoder", decoder="digest of decoder"
    )
    assert (report.model.name, report.model.digest) == ("tiny", digest)
    assert (report.prompt_tokens, report.repeated, len(report.trace_id)) == (2, False, 32)


async def test_every_setting_reaches_the_stages():
    async with front() as running:
        message = request(
            prompt=" blue ", guidance=0, smooth=False, top_p=0.5, preview_every=2, request_id="id-1",
            format=decoder_pb2.IMAGE_FORMAT_WEBP, quality=33,
        )  # fmt: skip
        [_ async for _ in running.stub.GenerateStream(message)]
        assert running.stage("safety").received[0].prompt == "blue"
        assert running.stage("text_encoder").received[0].prompt == "blue"
        drawn = running.stage("ar_generator").received[0]
        assert (drawn.guidance, drawn.smooth, drawn.top_p) == (0, False, 0.5)
        assert (drawn.HasField("guidance"), drawn.seed, drawn.preview_every, drawn.request_id) == (True, 7, 2, "id-1")
        decoded = next(r for r in running.stage("decoder").received if not r.HasField("side"))
        assert (decoded.encoding.format, decoded.encoding.quality) == (decoder_pb2.IMAGE_FORMAT_WEBP, 33)
        recipe = decoded.recipe
        assert (recipe.prompt, recipe.seed, recipe.guidance, recipe.smooth, recipe.top_p) == ("blue", 7, 0, False, 0.5)
        assert recipe.model.digest


async def test_the_generator_is_quiet_where_the_caller_hears_of_no_scales():
    async with front() as running:
        await running.stub.Generate(request())
        [_ async for _ in running.stub.GenerateStream(request())]
        assert [message.quiet for message in running.stage("ar_generator").received] == [True, False]


async def test_a_stream_that_joins_a_quiet_picture_hears_of_every_scale_once():
    async with front() as running:
        await running.stub.Generate(request(request_id="one"))
        events = [event async for event in running.stub.GenerateStream(request(request_id="one"))]
    progress = [event.progress for event in events if event.HasField("progress")]
    assert [(one.scale, one.side, one.scales) for one in progress] == [(0, 1, 3), (1, 2, 3), (2, 4, 3)]
    assert events[-2].HasField("image")


async def test_without_metadata_no_recipe_is_written():
    async with front() as running:
        await running.stub.Generate(request(metadata=False))
        assert not running.stage("decoder").received[0].HasField("recipe")


async def test_notices_tell_of_unfamiliar_words_and_cut_prompts():
    async with front() as running:
        report = (await running.stub.Generate(request(prompt="a long zyzzyva"))).report
    codes = [notice.code for notice in report.notices]
    assert codes == [images_pb2.NOTICE_CODE_PROMPT_TRUNCATED, images_pb2.NOTICE_CODE_PROMPT_UNFAMILIAR]
    assert list(report.notices[1].words) == ["zyzzyva"]
    assert report.prompt_truncated


async def test_events_come_in_order_with_previews_on_the_way():
    async with front() as running:
        stream = running.stub.GenerateStream(request(images=2, preview_every=2))
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
    assert (preview.format, preview.width) == (decoder_pb2.IMAGE_FORMAT_JPEG, 16)


def _of(event: images_pb2.GenerateEvent) -> int | None:
    if event.HasField("progress"):
        return event.progress.image
    return event.image.index if event.HasField("image") else None


async def test_a_busy_decoder_costs_a_preview_and_never_the_picture():
    async with front() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "HART_QUEUE_LIMIT", 0.01), times=2)
        events = [event async for event in running.stub.GenerateStream(request(preview_every=1))]
    assert sum(e.progress.HasField("preview") for e in events) < len(SCALES)
    assert sum(e.HasField("image") for e in events) == 1


# -- safety ----------------------------------------------------------------------------------------------------------


async def test_an_unsafe_prompt_is_refused_and_nothing_is_drawn():
    async with front() as running:
        running.stage("safety").verdict = UNSAFE
        code, info, text = await refused(running.stub.Generate(request(prompt="something bad")))
        assert (code, info.reason, info.domain) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_UNSAFE", "hart")
        assert "harm" in text
        assert "something bad" not in text + str(info)
        assert not running.stage("ar_generator").received
        assert not running.stage("decoder").received


async def test_nothing_is_drawn_before_the_verdict():
    async with front() as running:
        gate = asyncio.Event()
        running.stage("safety").before = holding(gate)
        call = running.stub.Generate(request())
        await until(lambda: running.stage("text_encoder").received)
        await asyncio.sleep(0.1)
        assert not running.stage("ar_generator").received
        gate.set()
        await call
        assert running.stage("ar_generator").received


@pytest.mark.parametrize(
    "verdict",
    [
        safety_pb2.Verdict(unsafe=True),
        safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_ALLOW),
        safety_pb2.Verdict(),
        safety_pb2.Verdict(unsafe=True, action=safety_pb2.SAFETY_ACTION_REPLACE, replacement_prompt=" "),
    ],
    ids=["unspecified", "contradiction", "empty", "replaced by nothing"],
)
async def test_an_unclear_verdict_refuses(verdict):
    async with front() as running:
        running.stage("safety").verdict = verdict
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "PROMPT_UNSAFE")
        assert not running.stage("ar_generator").received


async def test_without_safety_there_is_no_picture():
    async with front() as running:
        await running.end(running.stage("safety"))
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.UNAVAILABLE, "safety")
        assert not running.stage("ar_generator").received


async def test_a_stage_that_is_long_gone_is_told_at_once_and_one_that_has_just_gone_is_waited_for(monkeypatch):
    monkeypatch.setattr("gateway.stages.PATIENCE", 1.0)
    async with front() as running:
        await running.end(running.stage("safety"))
        began = time.monotonic()
        assert (await refused(running.stub.Generate(request())))[0] is grpc.StatusCode.UNAVAILABLE
        first = time.monotonic() - began
        assert (await refused(running.stub.Generate(request())))[0] is grpc.StatusCode.UNAVAILABLE
        second = time.monotonic() - began - first
        assert second < first / 2


async def test_a_replaced_prompt_is_what_is_drawn_and_what_the_recipe_holds():
    async with front() as running:
        running.stage("safety").verdict = safety_pb2.Verdict(
            unsafe=True, action=safety_pb2.SAFETY_ACTION_REPLACE, replacement_prompt="a red heart", violated=["harm"]
        )
        report = (await running.stub.Generate(request(prompt="something bad"))).report
        assert running.stage("text_encoder").received[-1].prompt == "a red heart"
        assert running.stage("decoder").received[0].recipe.prompt == "a red heart"
        assert report.notices[0].code == images_pb2.NOTICE_CODE_PROMPT_REPLACED
        assert report.verdict.unsafe
        assert "something bad" not in str(report)


# -- failure ---------------------------------------------------------------------------------------------------------


async def test_a_failed_attempt_is_made_on_another_replica_with_the_same_seed():
    async with front(replicas={"ar_generator": 2}) as running:
        for fake in running.stages["ar_generator"]:
            fake.before = raising(StageUnavailable("ar_generator", "dying"))
        answer = await running.stub.Generate(request())
        seen = [r for fake in running.stages["ar_generator"] for r in fake.received]
        assert len(seen) == 3
        assert {(r.seed, r.request_id) for r in seen} == {(7, answer.report.request_id)}
        call = next(c for c in answer.report.timings.calls if c.stage == "ar_generator")
        assert call.retries == 2


async def test_progress_never_goes_back_when_a_replica_dies_on_the_way():
    async with front(replicas={"ar_generator": 2}) as running:
        died: list[Any] = []

        async def die_once(_: Any, scale: int) -> None:
            if scale == 2 and not died:
                died.append(scale)
                raise StageUnavailable("ar_generator", "dying")

        for fake in running.stages["ar_generator"]:
            fake.at_scale = die_once
        events = [event async for event in running.stub.GenerateStream(request())]
        assert died
        assert [e.progress.scale for e in events if e.HasField("progress")] == [0, 1, 2]
        assert sum(len(fake.received) for fake in running.stages["ar_generator"]) == 2


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator"])
async def test_overload_is_passed_on_at_once_and_not_tried_again(stage):
    async with front(replicas={stage: 2}) as running:
        for fake in running.stages[stage]:
            fake.before = raising(Overloaded(stage, "HART_QUEUE_LIMIT", 3.0), times=100)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["knob"]) == (stage, "HART_QUEUE_LIMIT")
        assert sum(len(fake.received) for fake in running.stages[stage]) == 1


async def test_a_latent_waits_for_a_full_decoder_while_there_is_time():
    async with front() as running:
        running.stage("decoder").before = raising(Overloaded("decoder", "HART_QUEUE_LIMIT", 0.02), times=3)
        await running.stub.Generate(request())
        assert len(running.stage("ar_generator").received) == 1
        assert len(running.stage("decoder").received) == 4


async def test_retries_end_with_the_stages_budget():
    async with front(retry_burst=2, retry_ratio=0, retry_per_second=0) as running:
        running.stage("decoder").before = raising(StageUnavailable("decoder", "dying"), times=100)
        codes = [(await refused(running.stub.Generate(request(seed=seed))))[0] for seed in range(3)]
        assert codes == [grpc.StatusCode.UNAVAILABLE] * 3
        assert len(running.stage("decoder").received) <= 3 + 2


async def test_while_the_decoder_stands_still_no_more_pictures_are_begun_than_there_are_places():
    async with front(max_latents=2, describe_seconds=0.05) as running:
        running.stage("ar_generator").room = 20  # and one in work: three places
        await asyncio.sleep(0.3)
        gate = asyncio.Event()
        running.stage("decoder").before = holding(gate)
        calls = [running.stub.Generate(request(seed=seed, images=2)) for seed in range(4)]
        await until(lambda: len(running.stage("text_encoder").received) == 4)
        await asyncio.sleep(0.2)
        assert len(running.stage("ar_generator").received) == 3
        gate.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 8


async def test_time_that_runs_out_in_line_for_a_place_names_the_decoder():
    async with front(max_latents=1) as running:
        gate = asyncio.Event()
        running.stage("decoder").before = holding(gate)
        first = running.stub.Generate(request())
        await until(lambda: running.stage("decoder").received)
        code, info, _ = await refused(running.stub.Generate(request(seed=8), timeout=0.4))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "decoder")
        assert len(running.stage("ar_generator").received) == 1
        gate.set()
        await first


async def test_while_latents_wait_for_the_decoder_no_further_picture_is_begun():
    async with front(max_latents=2) as running:
        gate = asyncio.Event()
        running.stage("decoder").before = holding(gate)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(2)]
        await until(lambda: len(running.stage("decoder").received) == 2)
        calls += [running.stub.Generate(request(seed=seed)) for seed in range(2, 5)]
        await until(lambda: len(running.stage("text_encoder").received) == 5)
        await asyncio.sleep(0.1)
        assert len(running.stage("ar_generator").received) == 2
        gate.set()
        await asyncio.gather(*calls)
        assert len(running.stage("ar_generator").received) == 5


async def test_what_the_generators_cannot_hold_is_refused_before_it_costs_a_verdict():
    async with front(describe_seconds=0.05) as running:
        gate = asyncio.Event()
        running.stage("ar_generator").room = 2  # and one in work
        running.stage("ar_generator").before = holding(gate)
        await asyncio.sleep(0.3)
        calls = [running.stub.Generate(request(seed=seed)) for seed in range(3)]
        await until(lambda: len(running.stage("ar_generator").received) == 3)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert (info.metadata["stage"], info.metadata["knob"]) == ("ar_generator", "HART_QUEUE_LIMIT")
        assert len(running.stage("safety").received) == 3
        gate.set()
        await asyncio.gather(*calls)
        await running.stub.Generate(request(images=8))


async def test_an_internal_error_tells_its_id_and_nothing_else():
    async with front() as running:
        running.stage("decoder").before = raising(RuntimeError("secret path /etc/shadow"))
        code, info, text = await refused(running.stub.Generate(request()))
        assert (code, info.reason) == (grpc.StatusCode.INTERNAL, "INTERNAL")
        assert info.metadata["error_id"]
        assert "shadow" not in text


async def test_a_stages_refusal_of_what_the_gateway_wrote_is_not_the_callers_fault():
    async with front() as running:
        running.stage("decoder").before = raising(InvalidRequest.field("latent.data", "must hold finite numbers only"))
        code, info, text = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.INTERNAL, "decoder")
        assert "latent" not in text


async def test_more_requests_than_the_gateway_takes_are_refused():
    async with front(max_requests=1) as running:
        gate = asyncio.Event()
        running.stage("safety").before = holding(gate)
        held = running.stub.Generate(request())
        await until(lambda: running.stage("safety").received)
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["knob"]) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "HART_MAX_REQUESTS")
        gate.set()
        await held


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator", "decoder"])
async def test_the_status_names_the_stage_where_time_ran_out(stage):
    async with front() as running:
        running.stage(stage).before = holding(asyncio.Event())
        code, info, _ = await refused(running.stub.Generate(request(), timeout=0.5))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, stage)
        await until(lambda: running.stage(stage).cancelled == 1)


async def test_stages_get_what_is_left_less_the_gateways_margin():
    async with front(margin_seconds=0.5, default_deadline_seconds=20, max_deadline_seconds=30) as running:
        await running.stub.Generate(request())
        await running.stub.Generate(request(), timeout=10)
        await running.stub.Generate(request(), timeout=100)
        for left, limit in zip(running.stage("decoder").left, (19.5, 9.5, 29.5), strict=True):
            assert limit - 3 < left <= limit + 0.1


async def test_the_critical_calls_and_the_gateways_own_time_make_up_the_wall():
    async with front() as running:
        timings = (await running.stub.Generate(request(images=2))).report.timings
    critical = [call for call in timings.calls if call.critical]
    assert [call.stage for call in critical if call.stage in ("ar_generator", "decoder")] == ["ar_generator", "decoder"]
    assert len([call for call in critical if call.stage in ("safety", "text_encoder")]) == 1
    assert critical[-1].image == critical[-2].image
    stages = sum(call.queue_seconds + call.compute_seconds for call in critical)
    assert stages + timings.gateway_seconds == pytest.approx(timings.wall_seconds)
    assert timings.gateway_seconds > 0
    assert all(0 < call.seconds <= timings.wall_seconds for call in timings.calls)
    assert [call.start_seconds for call in timings.calls] == sorted(call.start_seconds for call in timings.calls)
    assert all(call.transfer_bytes > 0 for call in timings.calls)


# -- cancel and repeat -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["safety", "text_encoder", "ar_generator", "decoder"])
async def test_a_cancel_reaches_the_stage_that_works(stage):
    async with front() as running:
        running.stage(stage).before = holding(asyncio.Event())
        call = running.stub.Generate(request())
        await until(lambda: running.stage(stage).received)
        call.cancel()
        await until(lambda: running.stage(stage).cancelled == 1)
        await until(lambda: all(r.outstanding == 0 for r in pools(running)))


def pools(running: Front) -> list[Any]:
    import gc

    from runtime.replica import Replica

    return [o for o in gc.get_objects() if isinstance(o, Replica)]


async def test_the_same_id_twice_is_one_pictures_work():
    async with front() as running:
        gate = asyncio.Event()
        running.stage("ar_generator").before = holding(gate)
        calls = [running.stub.Generate(request(request_id="one")) for _ in range(3)]
        await until(lambda: running.stage("ar_generator").received)
        await asyncio.sleep(0.05)
        gate.set()
        answers = await asyncio.gather(*calls)
        later = await running.stub.Generate(request(request_id="one"))
        events = [event async for event in running.stub.GenerateStream(request(request_id="one"))]
        assert len(running.stage("ar_generator").received) == 1
        assert len({answer.images[0].data for answer in [*answers, later]}) == 1
        assert sorted(answer.report.repeated for answer in answers) == [False, True, True]
        assert later.report.repeated
        assert [e.progress.scale for e in events if e.HasField("progress")] == [0, 1, 2]
        code, _, text = await refused(running.stub.Generate(request(request_id="one", guidance=1)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "request_id" in text


async def test_a_repeat_goes_on_when_the_first_caller_goes_away():
    async with front() as running:
        gate = asyncio.Event()
        running.stage("ar_generator").before = holding(gate)
        first = running.stub.Generate(request(request_id="one"))
        await until(lambda: running.stage("ar_generator").received)
        second = running.stub.Generate(request(request_id="one"))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.sleep(0.1)
        gate.set()
        assert (await second).images
        assert running.stage("ar_generator").cancelled == 0


@pytest.mark.parametrize("stage", ["safety", "ar_generator", "decoder"])
async def test_a_repeat_with_more_time_gets_its_picture_when_the_first_callers_time_is_over(stage):
    async with front(margin_seconds=0.3) as running:  # so that the gateway's answer comes before the caller gives up
        gate = asyncio.Event()
        running.stage(stage).before = holding(gate)
        first = running.stub.Generate(request(request_id="one"), timeout=1.0)
        await until(lambda: running.stage(stage).received)
        second = running.stub.GenerateStream(request(request_id="one"), timeout=20)
        events = asyncio.ensure_future(anext_all(second))
        code, info, _ = await refused(first)
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, stage)
        gate.set()
        found = await events
        assert [e.progress.scale for e in found if e.HasField("progress")] == [0, 1, 2]
        assert found[-1].finished.report.repeated
        assert len(running.stage("text_encoder").received) == 1, "the work went on, it was not begun again"


async def test_a_repeat_with_less_time_waits_no_longer_than_its_own():
    async with front() as running:
        gate = asyncio.Event()
        running.stage("decoder").before = holding(gate)
        first = running.stub.Generate(request(request_id="one"), timeout=20)
        await until(lambda: running.stage("decoder").received)
        code, info, _ = await refused(running.stub.Generate(request(request_id="one"), timeout=0.3))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.DEADLINE_EXCEEDED, "decoder")
        gate.set()
        assert (await first).images


async def test_a_failure_is_tried_afresh_under_the_same_id():
    async with front() as running:
        running.stage("decoder").before = raising(RuntimeError("once"))
        await refused(running.stub.Generate(request(request_id="one")))
        assert (await running.stub.Generate(request(request_id="one"))).images


# -- what is told ----------------------------------------------------------------------------------------------------


async def test_describe_and_status_come_from_the_stages():
    async with front(replicas={"ar_generator": 2}) as running:
        described = await running.stub.Describe(images_pb2.DescribeRequest())
        model = described.models[0]
        assert (model.model.name, list(model.shape.scales), model.shape.width) == ("tiny", list(SCALES), 64)
        assert (model.shape.context_tokens, list(model.example_prompts)) == (3, ["a red heart"])
        assert (described.policy_version, list(described.policies)) == ("p1", ["harm"])
        assert described.limits.max_answer_bytes > 8 * 64 * 64 * 3
        assert described.defaults.guidance == 4.5
        status = await running.stub.Status(images_pb2.StatusRequest())
        assert [stage.stage for stage in status.stages] == ["safety", "text_encoder", "ar_generator", "decoder"]
        assert [(stage.replicas, stage.ready) for stage in status.stages] == [(1, 1), (1, 1), (2, 2), (1, 1)]


async def test_the_gateway_serves_while_a_stage_is_missing():
    async with front() as running:
        await running.end(running.stage("decoder"))
        code, info, _ = await refused(running.stub.Generate(request()))
        assert (code, info.metadata["stage"]) == (grpc.StatusCode.UNAVAILABLE, "decoder")
        status = await running.stub.Status(images_pb2.StatusRequest())
        assert [stage.ready for stage in status.stages] == [1, 1, 1, 0]
        assert running.app.ready


async def test_one_trace_holds_the_request_and_its_calls():
    async with front() as running:
        report = (await running.stub.Generate(request())).report
        spans = {span.name: span for span in running.spans.get_finished_spans()}
        root = spans["hart.v1.Images/Generate"]
        assert f"{root.context.trace_id:032x}" == report.trace_id
        for name in ("Safety/Check", "TextEncoder/Encode", "ArGenerator/Generate", "Decoder/Decode"):
            assert spans[f"hart.v1.{name}"].parent.span_id == root.context.span_id
        assert root.attributes["gen_ai.request.model"] == "tiny"
        assert root.attributes["gen_ai.output.type"] == "image"
        assert not any("red heart" in str(span.attributes) for span in spans.values())
