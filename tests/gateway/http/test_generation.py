"""The OpenAI images API: what a request returns, streams, and has in common with gRPC (gateway.http.generation)."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hart.v1 import safety_pb2

from gateway.http.generation_request import preview_every
from tests.gateway.calls import request
from tests.gateway.http.support import PATH, error_of, http_front
from tests.gateway.support import SCALES, FakeStage, running_gateway

DRAWN_TOKENS = sum(side * side for side in SCALES)


def allow(action: int, **fields: Any) -> Any:
    def prepare(stages: dict[str, list[FakeStage]]) -> None:
        stages["safety"][0].verdict = safety_pb2.Verdict(action=action, policy_version="p1", **fields)  # type: ignore[arg-type]

    return prepare


async def test_images_are_returned_in_base64_with_seed_size_and_usage() -> None:
    async with http_front() as http:
        response = await http.generate(n=2)
        body = response.json()
        over_grpc = await http.front.stub.Generate(request(num_images=2))
    assert response.status_code == 200
    assert [base64.b64decode(one["b64_json"]) for one in body["data"]] == [one.data for one in over_grpc.images]
    assert [one["seed"] for one in body["data"]] == [one.seed for one in over_grpc.images]
    assert "revised_prompt" not in body["data"][0]
    assert (body["output_format"], body["background"], body["size"], body["model"]) == (
        "png",
        "opaque",
        "64x64",
        "tiny",
    )
    assert body["usage"] == {
        "input_tokens": 2,
        "input_tokens_details": {"text_tokens": 2, "image_tokens": 0},
        "output_tokens": 2 * DRAWN_TOKENS,
        "total_tokens": 2 + 2 * DRAWN_TOKENS,
    }
    assert response.headers["x-request-id"]


async def test_every_field_reaches_the_stages() -> None:
    async with http_front() as http:
        fields: dict[str, Any] = {"guidance": 3, "more_smooth": False, "top_p": 0.5, "residual_temperature": 0.25}
        fields |= {"output_format": "jpeg", "output_compression": 40, "embed_metadata": False}
        fields |= {"size": "64x64", "quality": "auto", "background": "auto", "moderation": "auto", "model": "tiny"}
        response = await http.generate(**fields, response_format="b64_json")
        drawn = http.front.stage("ar_generator").received[0]
        decoded = http.front.stage("decoder").received[0]
    assert response.json()["output_format"] == "jpeg"
    assert (drawn.guidance, drawn.more_smooth, drawn.top_p, drawn.residual_temperature) == (3, False, 0.5, 0.25)
    assert decoded.encoding.quality == 40
    assert not decoded.HasField("recipe")


async def test_null_means_absent() -> None:
    async with http_front() as http:
        response = await http.generate(n=None, size=None, stream=None, partial_images=None, guidance=None, user=None)
    assert response.status_code == 200
    assert len(response.json()["data"]) == 1


async def test_a_replaced_prompt_is_named_with_each_image() -> None:
    prepare = allow(safety_pb2.SAFETY_ACTION_REPLACE, unsafe=True, replacement_prompt="a flower")
    async with http_front(prepare=prepare) as http:
        whole = (await http.generate(n=2)).json()
        streamed = await http.events()
    assert [one["revised_prompt"] for one in whole["data"]] == ["a flower", "a flower"]
    assert streamed[-1][1]["revised_prompt"] == "a flower"
    assert "unsafe" in whole["warnings"][0]


async def test_warnings_are_sentences_in_the_response() -> None:
    async with http_front() as http:
        body = (await http.generate(prompt="zyx")).json()
    assert "zyx" in body["warnings"][0]


async def test_an_idempotency_key_makes_a_repeat_harmless_and_gives_the_seed() -> None:
    async with http_front() as http:
        key = {"Idempotency-Key": "one"}
        first = await http.generate(key, seed=None)
        second = await http.generate(key, seed=None)
        other = await http.generate(key, seed=None, prompt="another")
        drawn = len(http.front.stage("ar_generator").received)
        over_grpc = await http.front.stub.Generate(request(request_id="one", seed=None))
    assert first.json()["data"] == second.json()["data"]
    assert first.headers["x-request-id"] == "one"
    assert drawn == 1
    assert first.json()["data"][0]["seed"] == over_grpc.images[0].seed
    assert other.status_code == 422
    assert (error_of(other)["code"], error_of(other)["param"]) == ("idempotency_key_reused", "Idempotency-Key")


async def test_a_stream_sends_at_most_so_many_partial_images_and_then_the_image() -> None:
    def slowly(stages: dict[str, list[FakeStage]]) -> None:
        stages["ar_generator"][0].scale_seconds = 0.05

    async with http_front(prepare=slowly) as http:
        events = await http.events(partial_images=1, n=2)
        whole = (await http.generate(n=2)).json()
    kinds = [kind for kind, _ in events]
    assert all(data["type"] == kind for kind, data in events)
    partial = [data for kind, data in events if kind == "image_generation.partial_image"]
    completed = {data["image_index"]: data for kind, data in events if kind == "image_generation.completed"}
    assert sorted((one["image_index"], one["partial_image_index"]) for one in partial) == [(0, 0), (1, 0)]
    assert kinds[-1] == "image_generation.completed"
    for index, image in enumerate(whole["data"]):
        assert completed[index]["b64_json"] == image["b64_json"]
        assert completed[index]["seed"] == image["seed"]
    used = [one["usage"] for one in completed.values()]
    for count in ("input_tokens", "output_tokens", "total_tokens"):
        assert sum(one[count] for one in used) == whole["usage"][count]


async def test_a_stream_without_partial_images_is_one_event() -> None:
    async with http_front() as http:
        assert [kind for kind, _ in await http.events()] == ["image_generation.completed"]


@pytest.mark.parametrize("scales", range(2, 16))
@pytest.mark.parametrize("wanted", [1, 2, 3])
def test_partial_images_are_spread_over_the_scales(scales: int, wanted: int) -> None:
    distance = preview_every(wanted, scales)
    before_the_last = [scale for scale in range(1, scales) if scale % distance == 0]
    assert len(before_the_last) >= min(wanted, scales - 1)
    assert before_the_last[0] <= max(1, scales // 2 + 1) or wanted == 1


async def test_an_unsafe_prompt_has_a_status_also_where_a_stream_was_wanted() -> None:
    prepare = allow(safety_pb2.SAFETY_ACTION_REFUSE, unsafe=True, violated=["harm"])
    async with http_front(prepare=prepare) as http:
        for stream in (False, True):
            response = await http.generate(stream=stream)
            error = error_of(response)
            assert response.status_code == 400
            assert error["code"] == "content_policy_violation"
            assert "harm" in error["message"]
            assert "heart" not in error["message"]
            assert response.headers["x-should-retry"] == "false"


async def test_an_error_after_the_first_event_is_an_event() -> None:
    async def fail_at_the_end(request: Any) -> None:
        if not request.HasField("side"):
            raise RuntimeError("the decoder broke")

    async with http_front() as http:
        http.front.stage("ar_generator").scale_seconds = 0.05
        http.front.stage("decoder").before = fail_at_the_end
        events = await http.events(partial_images=1)
    assert [kind for kind, _ in events] == ["image_generation.partial_image", "error"]
    assert events[-1][1]["error"]["code"] == "internal_error"
    assert "broke" not in str(events)


BAD_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 0}, "n", "must be an integer from 1 to 8, not 0"),
    ({"n": 9}, "n", "must be an integer from 1 to 8, not 9"),
    ({"n": "2"}, "n", 'must be an integer from 1 to 8, not "2"'),
    ({"n": True}, "n", "must be an integer from 1 to 8, not true"),
    ({"prompt": " "}, "prompt", "must have 1 to 2000 characters after trimming, not 0"),
    ({"prompt": 3}, "prompt", "must be a string, not 3"),
    ({"prompt": "x" * 2001}, "prompt", "must have 1 to 2000 characters after trimming, not 2001"),
    ({"model": "dall-e-3"}, "model", "unknown model 'dall-e-3'; served here: tiny"),
    ({"size": "1024x1024"}, "size", 'must be auto or 64x64, not "1024x1024"'),
    ({"quality": "hd"}, "quality", 'must be auto, not "hd"'),
    ({"response_format": "url"}, "response_format", "must be b64_json"),
    ({"background": "transparent"}, "background", 'must be auto or opaque, not "transparent"'),
    ({"moderation": "low"}, "moderation", 'must be auto, not "low"'),
    ({"output_format": "gif"}, "output_format", 'must be png or jpeg or webp, not "gif"'),
    ({"output_compression": 50}, "output_compression", "must be absent for PNG"),
    ({"output_compression": 101, "output_format": "webp"}, "output_compression", "an integer from 1 to 100"),
    ({"partial_images": 1}, "partial_images", "must be 0 without stream, not 1"),
    ({"partial_images": 4, "stream": True}, "partial_images", "must be an integer from 0 to 3, not 4"),
    ({"seed": -1}, "seed", "must be an integer from 0 to 18446744073709551615, not -1"),
    ({"guidance": 21}, "guidance", "must be a number from 0 to 20, not 21"),
    ({"style": "vivid"}, "style", "unknown field"),
    ({"promt": "x"}, "promt", "unknown field: did you mean prompt?"),
]


async def test_a_bad_field_is_refused_by_its_name_and_value() -> None:
    async with http_front() as http:
        for fields, param, sentence in BAD_FIELDS:
            response = await http.generate(**fields)
            error = error_of(response)
            assert (response.status_code, error["type"], error["param"]) == (400, "invalid_request_error", param)
            assert f"{param}: " in error["message"]
            assert sentence in error["message"]
        assert not [stage for stage, (replica,) in http.front.stages.items() if replica.received]


BAD_BODIES = [
    (b"", "the body is empty"),
    (b"nope", "is not valid JSON"),
    (b"[]", "must be a JSON object"),
    (b'"prompt"', "must be a JSON object"),
    (b'{"prompt": "\\ud800"}', "is not valid JSON"),
    (b'{"prompt": "\xff"}', "is not valid JSON"),
    (b'{"prompt": "x", "guidance": NaN}', "guidance: must be a number"),
    (b"[" * 20_000, "is not valid JSON"),
]


async def test_a_body_that_is_no_request_is_refused() -> None:
    async with http_front() as http:
        for body, sentence in BAD_BODIES:
            response = await http.client.post(PATH, content=body, headers={"Content-Type": "application/json"})
            assert response.status_code == 400
            assert sentence in error_of(response)["message"]


async def test_any_script_may_be_written() -> None:
    async with http_front() as http:
        response = await http.generate(prompt="\U0001f984 日本語 ünï\x00")
        assert http.front.stage("safety").received[0].prompt == "\U0001f984 日本語 ünï\x00"
    assert response.status_code == 200


async def test_there_is_no_http_port_unless_a_setting_opens_one() -> None:
    async with running_gateway() as running:
        stops = [type(getattr(stop, "__self__", None)).__name__ for stop in running.app._stops]
    assert "HttpServer" not in stops
