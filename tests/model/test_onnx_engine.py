"""model.onnx_engine: the golden cases, batches, and errors, on ONNX Runtime."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from common.philox import key_of
from common.philox import philox as one_block
from model.generation import Generator
from model.noise import GUMBEL, TOKEN_DRAW, Scales, SeededNoise, draw_scale
from model.onnx_engine import heads
from model.onnx_engine.decoder import OnnxDecoder
from model.onnx_engine.generator import OnnxGenerator
from model.onnx_engine.noise import draw_ahead, philox
from model.params import SamplingParams
from tests.model.golden import ImageCase, difference
from tests.model.single_images import CHOICES, SLOTS, begin

EXACT = 5e-4
"""As the golden cases' own (tests.model.test_golden)."""
FREE_SMOOTH, FREE_DRAWN = 5e-2, 1e-4
BATCHED = 2e-4
"""Maximum difference of a latent between an image alone and in a batch: products add in another order."""


@pytest.fixture
def engine(generator: Generator) -> Generator:
    made = Generator(generator.transformer, generator.quantizer, slots=SLOTS)
    made.lanes = OnnxGenerator(made, threads=1)
    return made


@pytest.mark.parametrize("forced", [True, False], ids=["forced", "free"])
def test_golden_image(image_case: Path, forced: bool) -> None:
    golden = ImageCase(image_case)
    expected, generator = golden.expected, golden.generator()
    generator.lanes = OnnxGenerator(generator, threads=1)
    states = golden.begin(generator)
    for k in range(generator.scales):
        generator.advance(states)
        tokens = [state.tokens for state in states if state.tokens is not None]
        assert torch.equal(torch.stack(tokens), expected[f"scale.{k}.tokens"].long())
        if forced and k < generator.scales - 1:
            latent = torch.stack([state.latent for state in states])
            assert difference(latent, expected[f"scale.{k}.latent"]) < EXACT
            for row, state in enumerate(states):
                state.latent, state.next_map = expected[f"scale.{k}.latent"][row], expected[f"scale.{k}.next_map"][row]
    latent = torch.stack([state.latent for state in states])
    free = FREE_SMOOTH if golden.settings.more_smooth else FREE_DRAWN
    assert difference(latent, expected["output.latent"]) < (EXACT if forced else free)


def test_golden_decoder(image_case: Path) -> None:
    golden = ImageCase(image_case)
    golden.tokenizer.engine = OnnxDecoder(golden.tokenizer, threads=1)
    with torch.inference_mode():
        decoded = golden.tokenizer.decode(golden.expected["tokenizer.features"]) * 2 - 1
        smaller = golden.expected["tokenizer.features"][..., :2, :2]
        small = golden.tokenizer.decode(smaller)
        golden.tokenizer.engine = None
        assert difference(small, golden.tokenizer.decode(smaller)) < EXACT
    assert difference(decoded, golden.expected["tokenizer.features_decoded"]) < EXACT


def test_images_of_unlike_settings_and_scales_share_batches(
    engine: Generator, plain: ImageCase, alone: list[tuple[list[torch.Tensor], torch.Tensor]]
) -> None:
    first, second, third = (begin(engine, plain, choice) for choice in (1, 2, 4))
    engine.advance([first])
    engine.advance([second, third])
    engine.advance([third, first])  # rows that are no neighbours
    while third.scale < engine.scales:
        engine.advance([third, first])
    while second.scale < engine.scales:
        engine.advance([second])
    for choice, state in ((1, first), (2, second), (4, third)):
        tokens, latent = alone[choice]
        assert state.tokens is not None
        assert torch.equal(state.tokens, tokens[-1])
        assert difference(state.latent, latent) < (FREE_SMOOTH if CHOICES[choice][1].more_smooth else BATCHED)


def test_torch_goes_on_where_the_engine_stopped(
    engine: Generator, plain: ImageCase, alone: list[tuple[list[torch.Tensor], torch.Tensor]]
) -> None:
    state = begin(engine, plain, 2)
    engine.advance([state])
    engine.advance([state])
    engine.lanes = None
    while state.scale < engine.scales:
        engine.advance([state])
    assert difference(state.latent, alone[2][1]) < BATCHED


def test_a_long_diffusion_stays_in_torch(
    generator: Generator,
    plain: ImageCase,
    alone: list[tuple[list[torch.Tensor], torch.Tensor]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(heads, "MAX_STEPS", 2)
    made = Generator(generator.transformer, generator.quantizer, slots=SLOTS)
    engine = made.lanes = OnnxGenerator(made, threads=1)
    assert not engine.fits
    state = begin(made, plain, 2)
    while state.scale < made.scales:
        made.advance([state])
    assert difference(state.latent, alone[2][1]) < BATCHED


def test_a_context_that_overflows_spoils_its_own_image(engine: Generator, plain: ImageCase) -> None:
    good = begin(engine, plain, 2)
    given = plain.conditioning()[0]
    bad = engine.begin(replace(given, context=torch.full_like(given.context, 3e38)), SeededNoise(1), SamplingParams())
    while good.scale < engine.scales:
        engine.advance([good, bad])
    assert good.latent.isfinite().all()
    assert bad.latent.isnan().any()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_a_colour_that_is_not_finite_shows(plain: ImageCase, value: float) -> None:
    tokenizer = plain.checkpoint.load_tokenizer()
    with torch.no_grad():
        bias = tokenizer.decoder.conv_out.bias
        assert bias is not None
        bias[0] = value
    tokenizer.engine = OnnxDecoder(tokenizer, threads=1)
    with torch.inference_mode():
        assert tokenizer.decode(plain.expected["tokenizer.features"]).isnan().any()


@pytest.mark.parametrize("seed", [0, 2**64 - 1, 0x0123456789ABCDEF])
def test_words_are_those_of_one_block_at_a_time(seed: int) -> None:
    numbers, scales = np.array([0, 1, 77, 2**31], np.uint64), np.array([0, 3, 13, 1], np.uint64)
    words = np.stack(philox(numbers, scales, GUMBEL, key_of(seed)), axis=1)
    for row, number, scale in zip(words.tolist(), numbers.tolist(), scales.tolist(), strict=True):
        assert tuple(row) == one_block((number, scale, GUMBEL, 0), key_of(seed))


@pytest.mark.parametrize("ahead", [True, False])
@pytest.mark.parametrize("mixtures", [True, False])
def test_noise_drawn_ahead_is_the_noise_drawn_by_torch(ahead: bool, mixtures: bool) -> None:
    scales = Scales((1, 2, 3, 5), vocabulary=77)  # 77 and 77 * 9 are no multiples of four
    mine, torchs = SeededNoise(5, ahead=ahead), SeededNoise(5, ahead=ahead)
    for k in range(len(scales.sides)):
        draw_ahead([mine], k, scales, mixtures)
        assert len(mine.drawn[k]) == (1 + mixtures)
        for found, expected in zip(
            draw_scale([mine], k, scales, mixtures), draw_scale([torchs], k, scales, mixtures), strict=True
        ):
            assert torch.equal(found, expected)
    assert (TOKEN_DRAW, GUMBEL) == (0, 1)
