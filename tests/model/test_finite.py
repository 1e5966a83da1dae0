"""A result that is not finite is an error, whichever part of the model it comes from: no verdict and no picture."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from model.errors import NotFiniteError
from model.params import SamplingParams
from model.pipeline import Pipeline
from model.pixels import quantize, to_pixels

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def pipeline(tiny: Path) -> Pipeline:
    """One of its own for each test, to be broken: by torch, because ONNX Runtime has copies of the weights."""
    return Pipeline.load(tiny, engine="torch")


@pytest.mark.parametrize("answers", [(NAN, 0.0), (0.0, NAN), (INFINITY, 0.0), (-INFINITY, 0.0), (0.0, INFINITY)])
def test_logits_that_are_not_finite_are_no_verdict(pipeline: Pipeline, answers: tuple[float, float]) -> None:
    classifier = pipeline.safety
    assert classifier

    def overflow(_network: Any, _inputs: Any, output: Any) -> None:
        output.logits[..., classifier.answers] = torch.tensor(answers)

    with classifier.network.register_forward_hook(overflow), pytest.raises(NotFiniteError, match="safety"):
        pipeline.draw(UNSAFE_PROMPT)


def test_scores_that_are_not_finite_are_no_verdict(pipeline: Pipeline) -> None:
    assert pipeline.safety
    with pytest.raises(NotFiniteError, match="safety score"):
        pipeline.safety.verdict([0.1, NAN])


def test_a_token_drawn_from_nan_shows_in_the_latent(pipeline: Pipeline) -> None:
    logits = pipeline.generator.logits
    pipeline.generator.logits = lambda states, hidden: logits(states, hidden).fill_(NAN)  # type: ignore[method-assign]
    with pytest.raises(NotFiniteError, match="the latent"):
        pipeline.draw("a red heart", 7, SamplingParams(more_smooth=False))


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY])
def test_a_colour_that_is_not_finite_is_no_pixel(pipeline: Pipeline, value: float) -> None:
    with torch.no_grad():
        bias = pipeline.tokenizer.decoder.conv_out.bias
        assert bias is not None
        bias[0] = value
    latent = torch.zeros(8, 4, 4)
    with pytest.raises(NotFiniteError, match="the image"):
        pipeline.pixels_of(latent)
    images = torch.zeros(2, 3, 2, 2)
    images[1, 0, 0, 0] = value
    good, bad = to_pixels(*quantize(images))
    assert isinstance(good, np.ndarray)
    assert isinstance(bad, NotFiniteError)
