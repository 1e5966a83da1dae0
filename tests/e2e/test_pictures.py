"""The complete cluster, as a client sees it: images, recipes, previews, reports."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import hart
import numpy as np
import pytest
from hart import errors
from hart.v1 import images_pb2, safety_pb2
from PIL import Image

from benchmarks.harness.checkpoint import PROMPTS, UNSAFE_PROMPT
from benchmarks.harness.processes import STAGES, Cluster, Process
from common.seeds import seed_of_image, seed_of_request_id
from model.params import SamplingParams
from model.pipeline import GeneratedImage, Pipeline

EXIF_DESCRIPTION = 0x010E
OPTIONS = [
    {},
    {"guidance": 0.0},
    {"guidance": 20.0},
    {"more_smooth": False},
    {"top_p": 0.5},
    {"more_smooth": False, "top_p": 1.0, "guidance": 1.5},
]


def pixels(file: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file)) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def recipe(file: bytes) -> dict[str, Any]:
    with Image.open(io.BytesIO(file)) as image:
        text = image.info.get("recipe") or image.getexif().get(EXIF_DESCRIPTION)
    return json.loads(text) if text else {}


def generated_locally(pipeline: Pipeline, prompt: str, seed: int, **options: Any) -> GeneratedImage:
    return pipeline.draw(prompt, seed, SamplingParams(**options))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_cluster_and_local_pipeline_give_the_same_pixels(
    client: hart.Client, local_pipeline: Pipeline, options: dict[str, Any]
) -> None:
    for seed in (7, 2**64 - 1):
        drawn = client.generate("a red heart", seed=seed, **options)[0]
        alone = generated_locally(local_pipeline, "a red heart", seed, **options)
        assert np.abs(pixels(drawn.data) - alone.pixels).max() <= 2


@pytest.mark.parametrize("options", OPTIONS[:4], ids=str)
def test_oip_gateway_gives_the_same_image(client: hart.Client, oip_gateway: Process, options: dict[str, Any]) -> None:
    with hart.Client(oip_gateway.address) as other:
        for format in ("png", "jpeg", "webp"):
            first = client.generate("a blue house", seed=11, format=format, **options)
            second = other.generate("a blue house", seed=11, format=format, **options)
            assert np.abs(pixels(first[0].data) - pixels(second[0].data)).max() <= 2
            assert first.report.model == second.report.model
            differing = {"versions"}
            one, two = recipe(first[0].data), recipe(second[0].data)
            assert {k: v for k, v in one.items() if k not in differing} == {
                k: v for k, v in two.items() if k not in differing
            }


def test_oip_gateway_streams_the_same_progress_and_previews(oip_gateway: Process, client: hart.Client) -> None:
    with hart.Client(oip_gateway.address) as other:
        for seed in range(30):  # an image overtakes its late previews: with so small a model, often all of them
            events = [list(c.stream("a blue house", seed=seed, preview_every=1)) for c in (client, other)]
            progress = [[e for e in es if isinstance(e, hart.Progress)] for es in events]
            scales = [[(e.scale, e.side, e.scales) for e in es] for es in progress]
            assert scales[0] == scales[1]
            pairs = [(one.preview, two.preview) for one, two in zip(*progress, strict=True)]
            shown = [(one, two) for one, two in pairs if one and two]
            assert all(np.abs(pixels(one.data) - pixels(two.data)).max() <= 2 for one, two in shown)
            if shown:
                return
    pytest.fail("no scale was previewed by both gateways")


def test_oip_gateway_refuses_an_unsafe_prompt(oip_gateway: Process) -> None:
    with hart.Client(oip_gateway.address) as other, pytest.raises(errors.PromptUnsafe) as caught:
        other.generate(UNSAFE_PROMPT)
    assert UNSAFE_PROMPT not in str(caught.value)


def test_seeds_equal_those_of_the_local_pipeline(local_pipeline: Pipeline, client: hart.Client) -> None:
    drawn = client.generate("a green tree", seed=5, num_images=8)
    assert [image.seed for image in drawn] == [seed_of_image(5, index) for index in range(8)]
    assert [image.index for image in drawn] == list(range(8))


def test_one_of_several_images_can_be_reproduced_alone(client: hart.Client) -> None:
    many = client.generate("a yellow sun", seed=5, num_images=4)
    for image in many:
        alone = client.generate("a yellow sun", seed=image.seed)[0]
        assert np.abs(pixels(alone.data) - pixels(image.data)).max() <= 2


def test_images_of_a_request_are_spread_over_the_replicas(cluster: Cluster, client: hart.Client) -> None:
    before = [_served(process) for process in cluster.stages["ar_generator"]]
    client.generate("a red heart", seed=5, num_images=8)
    after = [_served(process) for process in cluster.stages["ar_generator"]]
    assert all(now > then for now, then in zip(after, before, strict=True))


def _served(process: Any) -> float:
    """The process's finished calls of ArGenerator.Generate."""
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{process.metrics_port}/metrics") as page:
        text = page.read().decode()
    lines = [line for line in text.splitlines() if line.startswith("hart_queue_duration_seconds_count")]
    return sum(float(line.split()[-1]) for line in lines)


@pytest.mark.parametrize("format", ["png", "jpeg", "webp"])
def test_every_format_embeds_its_recipe_by_default(client: hart.Client, format: str) -> None:
    drawn = client.generate("a red heart", seed=7, format=format, guidance=2.0, top_p=0.25)
    image = drawn[0]
    assert image.format == format
    with Image.open(io.BytesIO(image.data)) as opened:
        assert opened.format == format.upper()
        assert opened.size == (image.width, image.height)
    found = recipe(image.data)
    assert (found["prompt"], found["seed"], found["guidance"], found["top_p"]) == ("a red heart", 7, 2.0, 0.25)
    assert (found["model"], found["digest"]) == (drawn.report.model.name, drawn.report.model.digest)
    assert recipe(client.generate("a red heart", seed=7, format=format, embed_metadata=False)[0].data) == {}


def test_quality_changes_the_file_size(client: hart.Client) -> None:
    coarse, fine = (
        client.generate("a red heart", seed=7, format="jpeg", quality=quality, embed_metadata=False)[0].data
        for quality in (1, 100)
    )
    assert len(coarse) < len(fine)


def test_digest_equals_that_of_the_local_pipeline(client: hart.Client, local_pipeline: Pipeline) -> None:
    assert client.generate("a red heart").report.model.digest == local_pipeline.checkpoint.digest
    assert client.describe().models[0].model.digest == local_pipeline.checkpoint.digest


def test_stream_events_are_in_order(client: hart.Client) -> None:
    events = list(client.stream("a red heart", seed=7, num_images=3, preview_every=1))
    accepted, finished = events[0], events[-1]
    assert isinstance(accepted, hart.Accepted)
    assert isinstance(finished, hart.Finished)
    assert isinstance(events[1], hart.Prepared)
    assert events[1].prompt_tokens == finished.report.prompt_tokens
    assert accepted.seeds == tuple(seed_of_image(7, index) for index in range(3))
    for index in range(3):
        progress = [e for e in events if isinstance(e, hart.Progress) and e.image_index == index]
        assert [e.scale for e in progress] == list(range(accepted.scales))
        shown = [event.preview for event in progress if event.preview]  # the image overtakes previews that are late
        assert all(pixels(preview.data).shape == (preview.height, preview.width, 3) for preview in shown)
        at = next(i for i, e in enumerate(events) if isinstance(e, hart.Image) and e.index == index)
        assert all(events.index(e) < at for e in progress)
    assert any(isinstance(e, hart.Progress) and e.preview for e in events)
    assert finished.report.trace_id == accepted.trace_id
    alone = client.generate("a red heart", seed=7, num_images=3)
    streamed = {e.index: e.data for e in events if isinstance(e, hart.Image)}
    assert all(np.abs(pixels(image.data) - pixels(streamed[image.index])).max() <= 2 for image in alone)


def test_batch_peers_do_not_change_an_image(client: hart.Client) -> None:
    def draw(number: int) -> bytes:
        return client.generate(PROMPTS[number % 4], seed=number)[0].data

    alone = [draw(number) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(draw, range(8)))
    assert all(np.abs(pixels(a) - pixels(b)).max() <= 2 for a, b in zip(alone, together, strict=True))


def test_request_id_gives_the_same_image_at_any_gateway(cluster: Cluster, client: hart.Client) -> None:
    with cluster.another_gateway() as gateway, hart.Client(gateway.address) as other:
        first = client.generate("a red heart", request_id="everywhere")
        second = other.generate("a red heart", request_id="everywhere")
    assert first[0].seed == second[0].seed == seed_of_request_id("everywhere")
    assert first[0].data == second[0].data
    assert not second.report.replayed


def test_repeated_request_id_is_replayed(client: hart.Client) -> None:
    first = client.generate("a red heart", request_id="again")
    second = client.generate("a red heart", request_id="again")
    assert (first.report.replayed, second.report.replayed) == (False, True)
    assert first[0].data == second[0].data
    with pytest.raises(errors.InvalidRequest) as caught:
        client.generate("a red heart", request_id="again", guidance=1)
    assert "request_id" in caught.value.fields


def test_unsafe_prompt_is_refused_before_the_generator(cluster: Cluster, client: hart.Client) -> None:
    generators = cluster.stages["ar_generator"]
    before = [_served(process) for process in generators]
    for call in (client.generate, lambda prompt: list(client.stream(prompt))):
        with pytest.raises(errors.PromptUnsafe) as caught:
            call(UNSAFE_PROMPT)
        assert caught.value.policy_version == "tiny-1"
        assert UNSAFE_PROMPT not in str(caught.value)
    assert [_served(process) for process in generators] == before
    for process in cluster.processes():
        assert UNSAFE_PROMPT not in process.log.read_text()


def test_safe_prompt_is_reported_with_its_verdict(client: hart.Client) -> None:
    verdict = client.generate("a red heart").report.verdict
    assert verdict.action == safety_pb2.SAFETY_ACTION_ALLOW
    assert [score.policy for score in verdict.scores] == ["dangerous_content", "harassment"]
    assert all(0 <= score.score <= score.threshold for score in verdict.scores)


def test_words_out_of_vocabulary_are_named(client: hart.Client) -> None:
    warnings = client.generate("a red zyzzyva").report.warnings
    found = [warning for warning in warnings if warning.code == images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY]
    assert [list(warning.words) for warning in found] == [["zyzzyva"]]


def test_long_prompt_is_truncated_with_a_warning(client: hart.Client) -> None:
    report = client.generate("red heart " * 150).report
    assert report.prompt_truncated
    assert images_pb2.WARNING_CODE_PROMPT_TRUNCATED in [warning.code for warning in report.warnings]


def test_stage_and_gateway_times_add_up_to_wall_time(client: hart.Client) -> None:
    timings = client.generate("a red heart", num_images=3).report.timings
    critical = [call for call in timings.calls if call.critical]
    stages = sum(call.queue_seconds + call.compute_seconds for call in critical)
    assert stages + timings.gateway_seconds == pytest.approx(timings.wall_seconds)
    assert timings.gateway_seconds > 0
    assert {call.stage for call in timings.calls} == set(STAGES)
    generating = next(call for call in critical if call.stage == "ar_generator")
    assert [scale.scale for scale in generating.scales] == list(range(len(generating.scales)))
    assert sum(scale.duration_seconds for scale in generating.scales) <= generating.duration_seconds


def test_describe_reports_shape_prompts_policies_and_limits(cluster: Cluster, client: hart.Client) -> None:
    described = client.describe()
    shape = described.models[0].shape
    assert list(shape.scales) == [1, 2, 3, 4]
    assert (shape.width, shape.height, shape.context_tokens) == (8, 8, 8)
    assert list(described.models[0].example_prompts) == list(PROMPTS)
    assert list(described.policies) == ["dangerous_content", "harassment"]
    response = client.generate("a red heart", num_images=8, format="png")
    assert sum(len(image.data) for image in response) < described.limits.max_response_bytes
    model = described.models[0].model.name
    assert client.generate("a red heart", model=model).report.model.name == model


def test_status_counts_replicas(cluster: Cluster, client: hart.Client) -> None:
    wanted = {name: (len(cluster.stages[name]),) * 2 for name in STAGES}
    end = time.monotonic() + 60
    while True:  # a replica that misses a probe is not ready for a moment
        stages = {stage.stage: stage for stage in client.status().stages}
        if (counted := {name: (stage.replicas, stage.ready) for name, stage in stages.items()}) == wanted:
            break
        assert time.monotonic() < end, counted
        time.sleep(0.1)
    assert list(stages) == list(STAGES)
    assert all(stage.load < 1 for stage in stages.values())


async def test_asyncio_client_gives_the_same_image(cluster: Cluster, client: hart.Client) -> None:
    async with hart.AsyncClient(cluster.endpoint) as other:
        answer = await other.generate("a red heart", seed=7)
        events = [event async for event in other.stream("a red heart", seed=7)]
    image = next(event for event in events if isinstance(event, hart.Image))
    assert answer[0].data == image.data == client.generate("a red heart", seed=7)[0].data


def test_unsafe_prompt_is_replaced_if_so_configured(
    cluster: Cluster, client: hart.Client, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    settings = {"checkpoint": str(tiny_checkpoint), "unsafe_action": "replace", "replacement_prompt": "a red heart"}
    safety = Process("safety", tmp_path, settings).start()
    try:
        safety.await_ready()
        with cluster.another_gateway(safety=safety.address) as gateway, hart.Client(gateway.address) as other:
            answer = other.generate(UNSAFE_PROMPT, seed=7)
            safe = other.generate("a red heart", seed=7)
    finally:
        safety.stop()
    assert answer[0].data == safe[0].data
    assert recipe(answer[0].data)["prompt"] == "a red heart"
    assert answer.report.verdict.action == safety_pb2.SAFETY_ACTION_REPLACE
    assert [warning.code for warning in answer.report.warnings] == [images_pb2.WARNING_CODE_PROMPT_REPLACED]
    assert not safe.report.warnings
