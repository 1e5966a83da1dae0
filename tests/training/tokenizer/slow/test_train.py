"""training.tokenizer.train: images are learned, codes stay alive, cached tokens are the tokenizer's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from model.config import TokenizerConfig
from model.tokenizer import HybridTokenizer
from training.checkpoint.export import centre_residuals
from training.core.images import batch_size, psnr, to_signed
from training.core.loop import Progress, Run
from training.data.batches import Batches
from training.data.image_set import ImageSet
from training.data.token_cache import cached_tokens, encode_images
from training.tokenizer.codebook import CodebookMeans, quantise
from training.tokenizer.train import TokenizerTraining, Weights, image_loss

CONFIG = TokenizerConfig(vocab_size=16, z_channels=8, ch=32, ch_mult=(1, 1), v_patch_nums=(1, 2, 4))


def colours(count: int = 4) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 1, 1, 3), dtype=np.uint8) + np.zeros((1, 8, 8, 1), np.uint8)


def test_plain_colours_are_learned_from_codes_and_without() -> None:
    torch.manual_seed(0)
    training = TokenizerTraining(CONFIG, 5e-3, torch.device("cpu"), compiled=False)
    pixels = colours()
    training.initialise(to_signed(pixels))
    for step in range(150):
        training.step(to_signed(pixels), Progress(step=step + (300 if step > 40 else 0)))
    figures = training.measure(pixels, None)
    assert figures["continuous"] > 20
    assert figures["discrete"] > 15


def test_a_run_goes_on_from_anothers_averaged_weights_and_codes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    batch = to_signed(colours())
    first = TokenizerTraining(CONFIG, 5e-3, torch.device("cpu"), compiled=False)
    first.initialise(batch)
    for step in range(3):
        first.step(batch, Progress(step=step))
    Run(tmp_path, first.parts()).save()
    second = TokenizerTraining(CONFIG, 5e-3, torch.device("cpu"), compiled=False)
    second.init_from(tmp_path)
    kept = first.average.network.state_dict()
    assert all(torch.equal(kept[name], mine) for name, mine in second.network.state_dict().items())
    assert torch.equal(first.means.counts, second.means.counts)


def test_weights_begin_as_a_pixelation_that_every_image_changes() -> None:
    torch.manual_seed(0)
    training = TokenizerTraining(CONFIG, 5e-3, torch.device("cpu"), compiled=False)
    batch = to_signed(colours())
    training.initialise(batch)
    with torch.no_grad():
        features = training.network.features(batch)
        assert features.std(0).mean() > 0.3 * features.std()  # the latent is the picture's, not the position's
        assert torch.count_nonzero(training.network.decoder.mid.block_1.conv2.weight) == 0


def test_the_first_step_moves_the_encoder() -> None:
    torch.manual_seed(0)
    training = TokenizerTraining(CONFIG, 5e-3, torch.device("cpu"), compiled=False)
    batch = to_signed(colours())
    training.initialise(batch)
    before = [parameter.detach().clone() for parameter in training.network.encoder.parameters()]
    for step in range(2):  # at the very first, branches that begin at zero pass nothing on
        training.step(batch, Progress(step=step))
    after = list(training.network.encoder.parameters())
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True) if a.ndim == 4)


def test_a_wrong_hue_costs_more_than_as_wrong_a_brightness() -> None:
    truth = torch.zeros(1, 3, 8, 8)
    lighter, redder = truth + 0.1, truth.clone()
    redder[:, 0] += 0.3
    assert image_loss(redder, truth, Weights(square=0)) > image_loss(lighter, truth, Weights(square=0))


def test_the_quantiser_in_training_finds_the_codes_of_the_model(tokenizer: HybridTokenizer) -> None:
    features = torch.randn(2, 8, 4, 4)
    coded = quantise(tokenizer.quantize, features, 0.25)
    encoding = tokenizer.quantise(features)
    sides = [n * n * 2 for n in tokenizer.config.v_patch_nums]
    for mine, theirs in zip(coded.indices.split(sides), encoding.indices, strict=True):
        assert torch.equal(mine, theirs.flatten())
    torch.testing.assert_close(coded.latent, tokenizer.latent_of(encoding.indices))


def test_dead_rows_come_back_where_vectors_are(tokenizer: HybridTokenizer) -> None:
    quantizer = tokenizer.quantize
    means = CodebookMeans(quantizer)
    with torch.no_grad():
        quantizer.embedding.weight.add_(100)
    features = torch.randn(8, 8, 4, 4)
    batch = quantise(quantizer, features, 0.25)
    assert means.revive(quantizer, batch) == 32
    alike = (quantizer.embedding.weight[:, None] == batch.vectors[None]).all(2)
    assert alike.any(1).all()
    assert means.alive() == 32


def test_scaling_the_latent_changes_no_token_and_no_image(tokenizer: HybridTokenizer) -> None:
    signed = torch.rand(6, 3, 8, 8) * 2 - 1
    before, drawn = tokenizer.encode(signed), tokenizer.decode(tokenizer.encode(signed).features)
    factor = centre_residuals(tokenizer, signed)
    after = tokenizer.encode(signed)
    assert factor != pytest.approx(1)
    for mine, theirs in zip(before.indices, after.indices, strict=True):
        assert torch.equal(mine, theirs)
    torch.testing.assert_close(tokenizer.decode(after.features), drawn, rtol=1e-4, atol=1e-4)
    rest = (after.features - tokenizer.latent_of(after.indices)).abs()
    assert float((rest <= 0.6001).float().mean()) >= 0.998


def test_cached_tokens_are_the_tokenizers_and_go_stale_with_it(tokenizer: HybridTokenizer, tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    made = cached_tokens(tokenizer, pixels, tmp_path / "tokens.pt", "one")
    direct = tokenizer.encode(to_signed(pixels))
    assert torch.equal(made.indices.long(), torch.cat(direct.indices, 1))
    torch.testing.assert_close(
        made.rest.float(), direct.last_scale_features.flatten(2).transpose(1, 2), rtol=1e-3, atol=1e-3
    )
    with torch.no_grad():
        tokenizer.quantize.embedding.weight.copy_(torch.randn_like(tokenizer.quantize.embedding.weight))
    kept = cached_tokens(tokenizer, pixels, tmp_path / "tokens.pt", "one")
    assert torch.equal(kept.indices, made.indices)
    renewed = cached_tokens(tokenizer, pixels, tmp_path / "tokens.pt", "two")
    assert torch.equal(renewed.indices, encode_images(tokenizer, pixels).indices)
    assert not torch.equal(renewed.indices, made.indices)
    others = cached_tokens(tokenizer, pixels[::-1], tmp_path / "tokens.pt", "two")
    assert torch.equal(others.indices, renewed.indices.flip(0))


def test_psnr_of_a_tenth_off_is_twenty_decibels() -> None:
    truth = torch.full((2, 3, 4, 4), 0.5)
    torch.testing.assert_close(psnr(truth + 0.1, truth), torch.full((2,), 20.0))


def test_large_images_pass_fewer_batch_size_by_their_area() -> None:
    assert [batch_size(32, side) for side in (8, 128, 256, 512, 1024)] == [32, 32, 32, 8, 2]
    assert batch_size(4, 1024) == 1


def test_a_batch_of_few_images_holds_none_twice() -> None:
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 3), np.uint8)
    opaque = np.broadcast_to(np.uint8(255), (4, 8, 8))
    held, rows = np.arange(1), np.arange(1, 4)
    batches = Batches(ImageSet(pixels, opaque, rows, held), 3, recolour=0, distinct=True)
    for _ in range(20):
        drawn = (batches.draw()[:, 0, 0, 0] + 1) * 127.5
        assert sorted(drawn.round().int().tolist()) == [1, 2, 3]
