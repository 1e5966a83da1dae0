"""A result that is not finite is an error, whichever part of the model it comes from: no verdict and no picture."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from model import engines
from model.device import Compute
from model.errors import NotFiniteError
from model.params import SamplingParams
from model.pipeline import Pipeline
from tests.model.slow.test_pipeline import command

NAN, INFINITY = float("nan"), float("inf")


@pytest.fixture
def pipeline(tiny: Path) -> Pipeline:
    """One of its own for each test, to be broken."""
    return Pipeline.load(tiny, engine=engines.TORCH)


def parts(pipeline: Pipeline) -> dict[str, torch.Tensor]:
    transformer, tokenizer = pipeline.generator.transformer, pipeline.tokenizer
    return {
        "text": next(pipeline.text_encoder.network.parameters()),
        "generator": transformer.word_embed.weight,
        "head": next(transformer.head.parameters()),
        "diffusion": next(transformer.diffloss.parameters()),
        "codebook": tokenizer.quantize.embedding.weight,
        "decoder": next(tokenizer.decoder.parameters()),
    }


@pytest.mark.parametrize("part", ["text", "generator", "head", "diffusion", "codebook", "decoder"])
@pytest.mark.parametrize("more_smooth", [True, False])
@pytest.mark.parametrize("engine", [engines.TORCH, engines.ONNX])
def test_a_broken_weight_gives_an_error_and_no_picture(
    pipeline: Pipeline, part: str, more_smooth: bool, engine: str
) -> None:
    with torch.no_grad():
        parts(pipeline)[part].fill_(NAN)
    compute = Compute(torch.device("cpu"), torch.float32, threads=1)
    engines.speed_up_generator(pipeline.generator, engine, compute)
    engines.speed_up_decoder(pipeline.tokenizer, engine, compute)
    with pytest.raises(NotFiniteError):
        pipeline.draw("a red heart", 7, SamplingParams(more_smooth=more_smooth))
    assert pipeline.generator.free == [0]


def break_first(file: Path, choose: Callable[[str], bool]) -> None:
    """NaN in one weight of a file."""
    weights = load_file(file)
    name = next(key for key in sorted(weights) if choose(key))
    weights[name].view(-1)[0] = NAN
    save_file(weights, file, {"format": "pt"})


def test_the_command_fails_and_writes_nothing_where_one_safety_weight_is_nan(tiny: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny, tmp_path / "broken"))
    break_first(folder / "safety" / "model.safetensors", lambda key: "v_proj" in key)
    done = command(UNSAFE_PROMPT, "--checkpoint", str(folder), "-o", "thing.png", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: the safety model's answer is not finite")
    assert not (tmp_path / "thing.png").exists()
