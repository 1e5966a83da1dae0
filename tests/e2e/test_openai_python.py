"""The official `openai` package, unmodified, against a real cluster."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from typing import Any

import hart
import pytest

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import Cluster

openai = pytest.importorskip("openai", reason="the package openai is not installed: make http-check")
KEY = "k1"


@pytest.fixture(scope="module")
def base_url(cluster: Cluster) -> Iterator[str]:
    """The API of a gateway that knows two keys; each caller may have one request in progress."""
    port = free_port()
    keys = f"alice={KEY},bob=k2"
    with cluster.another_gateway(http_port=str(port), api_keys=keys, caller_concurrency="1"):
        yield f"http://127.0.0.1:{port}/v1"


@pytest.fixture
def client(base_url: str) -> Iterator[Any]:
    """The package's client."""
    with openai.OpenAI(base_url=base_url, api_key=KEY, max_retries=0) as found:
        yield found


def test_it_generates_the_picture_that_grpc_gives(client: Any, cluster: Cluster) -> None:
    response = client.images.generate(prompt="a red heart", n=2, size="auto", extra_body={"seed": 7})
    with hart.Client(cluster.endpoint) as other:
        same = other.generate("a red heart", seed=7, num_images=2)
    assert response.data is not None
    assert [base64.b64decode(one.b64_json or "") for one in response.data] == [image.data for image in same]
    assert response.usage is not None
    assert response.usage.input_tokens == same.report.prompt_tokens
    assert response.output_format == "png"
    assert response._request_id


def test_it_streams_partial_images_and_then_the_picture(client: Any) -> None:
    events = list(
        client.images.generate(prompt="a red heart", stream=True, partial_images=2, output_format="webp", n=1)
    )
    assert [event.type for event in events[:-1]] == ["image_generation.partial_image"] * (len(events) - 1)
    assert len(events) <= 3
    completed = events[-1]
    assert completed.type == "image_generation.completed"
    assert base64.b64decode(completed.b64_json)[8:12] == b"WEBP"
    assert completed.usage.total_tokens == completed.usage.input_tokens + completed.usage.output_tokens


def test_an_unsafe_prompt_is_a_bad_request_with_its_code(client: Any) -> None:
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.images.generate(prompt=UNSAFE_PROMPT, stream=stream)
        assert caught.value.code == "content_policy_violation"
        assert "forbidden" not in caught.value.message


def test_a_bad_parameter_is_named(client: Any) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a red heart", size="1024x1024", quality="hd")
    assert caught.value.type == "invalid_request_error"
    assert caught.value.param == "quality"


def test_a_wrong_key_is_an_authentication_error(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key="wrong", max_retries=0) as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.images.generate(prompt="a red heart")
        with pytest.raises(openai.AuthenticationError):
            stranger.models.list()


def test_a_limit_is_a_rate_limit_error_and_the_package_retries_by_itself(client: Any) -> None:
    stream = client.images.generate(prompt="a red heart", stream=True, n=8)
    with pytest.raises(openai.RateLimitError) as caught:
        client.images.generate(prompt="a red heart")
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) >= 1
    for _ in stream:
        pass
    patient = client.with_options(max_retries=5)
    held = client.images.generate(prompt="a blue house", stream=True, n=2)
    assert patient.images.generate(prompt="a red heart").data
    held.close()


def test_a_timeout_cancels_the_request(client: Any) -> None:
    with pytest.raises(openai.APITimeoutError):
        client.images.generate(prompt="a red heart", n=8, timeout=0.01)
    end = time.monotonic() + 30  # alice's place is free again within a scale
    while True:
        try:
            assert client.images.generate(prompt="a red heart").data
            return
        except openai.RateLimitError:
            assert time.monotonic() < end
            time.sleep(0.05)


def test_an_idempotency_key_repeats_the_picture_and_refuses_another_request(client: Any) -> None:
    key = {"Idempotency-Key": "made-by-a-stranger"}
    first = client.images.generate(prompt="a red heart", extra_headers=key)
    again = client.images.generate(prompt="a red heart", extra_headers=key)
    assert first.data is not None
    assert again.data is not None
    assert first.data[0].b64_json == again.data[0].b64_json
    with pytest.raises(openai.UnprocessableEntityError):
        client.images.generate(prompt="a blue house", extra_headers=key)


def test_models_are_listed_and_an_unknown_one_is_not_found(client: Any) -> None:
    (model,) = client.models.list()
    assert client.models.retrieve(model.id) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-image-2")
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(prompt="a red heart", model="gpt-image-2")
    assert caught.value.code == "model_not_found"


async def test_the_asyncio_client_streams_too(base_url: str) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key="k2", max_retries=0) as client:
        stream = await client.images.generate(prompt="a red heart", stream=True)
        assert [event.type async for event in stream] == ["image_generation.completed"]
