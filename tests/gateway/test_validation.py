"""gateway.request.validation: every field at and past its bounds, and all bad fields at once."""

import math
from typing import Any

import pytest
from hart.v1 import decoder_pb2, images_pb2
from hypothesis import given
from hypothesis import strategies as st

from common.seeds import seed_of_image, seed_of_request_id
from gateway.request.validation import ModelLimits, validate
from runtime.errors import InvalidRequest

SERVED = ModelLimits("tiny", 14)
PNG, JPEG, WEBP = decoder_pb2.IMAGE_FORMAT_PNG, decoder_pb2.IMAGE_FORMAT_JPEG, decoder_pb2.IMAGE_FORMAT_WEBP


def request(**fields: Any) -> images_pb2.GenerateRequest:
    return images_pb2.GenerateRequest(**{"prompt": "a red heart", **fields})


def bad_fields(message: images_pb2.GenerateRequest, *, streams: bool = True) -> list[str]:
    with pytest.raises(InvalidRequest) as caught:
        validate(message, SERVED, streams=streams)
    return [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "x"},
        {"prompt": "é" * 2000},
        {"prompt": "  " + "x" * 2000 + "\n"},
        {"model": "tiny"},
        {"num_images": 1},
        {"num_images": 8},
        {"seed": 0},
        {"seed": 2**64 - 1},
        {"guidance": 0.0},
        {"guidance": 20.0},
        {"top_p": 0.0},
        {"top_p": 1.0},
        {"residual_temperature": 0.0},
        {"residual_temperature": 1.0},
        {"format": PNG},
        {"format": JPEG, "quality": 1},
        {"format": WEBP, "quality": 100},
        {"preview_every": 1},
        {"preview_every": 14},
        {"request_id": "!"},
        {"request_id": "~" * 128},
        {"more_smooth": False, "embed_metadata": False},
    ],
    ids=str,
)
def test_value_at_its_bound_is_accepted(fields: dict[str, Any]) -> None:
    validate(request(**fields), SERVED, streams=True)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": " \n\t"}, "prompt"),
        ({"prompt": "x" * 2001}, "prompt"),
        ({"prompt": "\ufdfa" * 112}, "prompt"),  # each stands for eighteen characters
        ({"model": ""}, "model"),
        ({"model": "other"}, "model"),
        ({"num_images": 0}, "num_images"),
        ({"num_images": 9}, "num_images"),
        ({"guidance": -0.01}, "guidance"),
        ({"guidance": 20.01}, "guidance"),
        ({"guidance": math.nan}, "guidance"),
        ({"guidance": math.inf}, "guidance"),
        ({"top_p": -1e-9}, "top_p"),
        ({"top_p": 1.0001}, "top_p"),
        ({"top_p": math.nan}, "top_p"),
        ({"residual_temperature": -0.1}, "residual_temperature"),
        ({"residual_temperature": 1.1}, "residual_temperature"),
        ({"residual_temperature": math.nan}, "residual_temperature"),
        ({"format": 4}, "format"),
        ({"quality": 50}, "quality"),
        ({"format": PNG, "quality": 50}, "quality"),
        ({"format": JPEG, "quality": 0}, "quality"),
        ({"format": JPEG, "quality": 101}, "quality"),
        ({"preview_every": 15}, "preview_every"),
        ({"request_id": ""}, "request_id"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "a b"}, "request_id"),
        ({"request_id": "é"}, "request_id"),
    ],
    ids=str,
)
def test_value_past_its_bound_is_refused_by_name(fields: dict[str, Any], field: str) -> None:
    assert bad_fields(request(**fields)) == [field]


def test_prompt_limit_equals_that_of_the_local_pipeline() -> None:
    from model.errors import SettingError  # imports torch
    from model.prompt import checked_prompt

    prompt = "\ufdfa" * 120
    with pytest.raises(InvalidRequest) as cluster:
        validate(request(prompt=prompt), SERVED, streams=False)
    with pytest.raises(SettingError) as alone:
        checked_prompt(prompt)
    (violation,) = cluster.value.violations
    assert violation.description == alone.value.reason
    assert violation.description == "its 120 characters stand for 2160 (in NFKC); at most 2000 may be read"


def test_all_bad_fields_are_named_at_once() -> None:
    message = request(
        prompt="", num_images=9, guidance=math.nan, top_p=2, quality=0, preview_every=1, model="x", request_id=" "
    )
    expected = ["prompt", "num_images", "guidance", "top_p", "quality", "model", "preview_every", "request_id"]
    assert bad_fields(message, streams=False) == expected


def test_previews_are_for_streams_only() -> None:
    assert bad_fields(request(preview_every=1), streams=False) == ["preview_every"]


def test_model_limits_are_not_checked_before_the_model_is_known() -> None:
    validate(request(model="other", preview_every=10_000), None, streams=True)


def test_absent_fields_get_defaults_or_stay_absent() -> None:
    drawn = validate(request(prompt=" a red heart "), SERVED, streams=False)
    assert (drawn.prompt, drawn.num_images, drawn.sampling) == ("a red heart", 1, {})
    assert drawn.encoding == decoder_pb2.ImageEncoding(format=PNG)
    assert drawn.embed_metadata
    assert 0 <= drawn.seeds[0] < 2**53


def test_zero_is_a_value_where_the_default_is_not_zero() -> None:
    drawn = validate(request(guidance=0, more_smooth=False, embed_metadata=False, seed=0), SERVED, streams=False)
    assert drawn.sampling == {"guidance": 0, "more_smooth": False}
    assert (drawn.embed_metadata, drawn.seeds) == (False, (0,))


def test_lossy_format_has_a_quality() -> None:
    assert validate(request(format=WEBP), SERVED, streams=False).encoding.quality == 92


def test_absent_seed_is_derived_from_the_request_id() -> None:
    drawn = validate(request(request_id="abc", num_images=3), SERVED, streams=False)
    first = seed_of_request_id("abc")
    assert drawn.seeds == (first, seed_of_image(first, 1), seed_of_image(first, 2))


def test_generated_request_ids_are_unique() -> None:
    assert len({validate(request(), SERVED, streams=False).request_id for _ in range(50)}) == 50


numbers = st.floats(allow_nan=True, allow_infinity=True) | st.floats(-1, 30)


@given(
    prompt=st.text(max_size=40),
    num_images=st.none() | st.integers(0, 2**32 - 1) | st.integers(0, 10),
    seed=st.none() | st.integers(0, 2**64 - 1),
    guidance=st.none() | numbers,
    top_p=st.none() | numbers,
    format=st.integers(0, 5),
    quality=st.none() | st.integers(0, 200),
    preview_every=st.integers(0, 20),
    request_id=st.none() | st.text(max_size=10),
    streams=st.booleans(),
)
def test_any_request_is_valid_or_refused_by_a_known_field(streams: bool, **fields: Any) -> None:
    try:
        message = images_pb2.GenerateRequest(**{k: v for k, v in fields.items() if v is not None})
    except UnicodeEncodeError:  # protobuf refuses lone surrogates
        return
    try:
        drawn = validate(message, SERVED, streams=streams)
    except InvalidRequest as error:
        named = {violation.field for violation in error.violations}
        assert named
        assert named <= set(images_pb2.GenerateRequest.DESCRIPTOR.fields_by_name)
        return
    assert 1 <= len(drawn.prompt) <= 2000
    assert 1 <= drawn.num_images <= 8
    assert 0 <= drawn.sampling.get("guidance", 0) <= 20
    assert 0 <= drawn.sampling.get("top_p", 0) <= 1
    assert drawn.encoding.HasField("quality") == (drawn.encoding.format != PNG)
    if message.HasField("seed"):
        assert drawn.seeds[0] == message.seed
