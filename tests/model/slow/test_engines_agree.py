"""ONNX Runtime draws what torch draws, on the bundled checkpoint."""

from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import bundled
from model.generation import GenerationState
from model.params import SamplingParams
from model.pipeline import Pipeline

PIXEL_TOLERANCE = 1
"""Of 255."""


@pytest.fixture(scope="module")
def pipelines() -> tuple[Pipeline, Pipeline]:
    torch.set_num_threads(1)
    return Pipeline.load(bundled(), safety=False, engine="torch"), Pipeline.load(bundled(), safety=False, engine="onnx")


def drawn(
    pipeline: Pipeline, prompt: str, seed: int, params: SamplingParams
) -> tuple[list[torch.Tensor], np.ndarray[Any, Any]]:
    tokens: list[torch.Tensor] = []

    def keep(state: GenerationState) -> None:
        assert state.tokens is not None
        tokens.append(state.tokens)

    image = pipeline.draw(prompt, seed, params, on_scale=keep)
    return tokens, image.pixels.astype(int)


@pytest.mark.parametrize("place", range(10))
def test_tokens_are_equal_and_pixels_within_one(pipelines: tuple[Pipeline, Pipeline], place: int) -> None:
    prompts = pipelines[0].checkpoint.known_prompts()
    prompt, seed = prompts[place * len(prompts) // 10], 1000 + 77 * place
    params = SamplingParams(more_smooth=place % 3 > 0, top_p=0.9 * (place % 4 == 1), guidance=4.5 - place / 5)
    (expected, wanted), (found, got) = (drawn(one, prompt, seed, params) for one in pipelines)
    for of_torch, of_onnx in zip(expected, found, strict=True):
        assert torch.equal(of_torch, of_onnx)
    assert np.abs(wanted - got).max() <= PIXEL_TOLERANCE
