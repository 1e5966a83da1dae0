"""training.transformer.residual and condition_cache: rows are the frozen transformer's, the head learns them alone."""

import math
from pathlib import Path

import pytest
import torch

from model.diffusion import ResidualDiffusion
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.loop import Budget, Run
from training.data.text_cache import TextCache
from training.data.token_cache import TokenCache
from training.transformer.condition_cache import CacheConfig, ConditionCache, cached_conditions
from training.transformer.residual import HeadConfig, ResidualTraining, drawn_error, train_head
from training.transformer.teacher_forcing import TeacherForcing, maps_of
from training.transformer.train import TrainingData

IMAGES = 6
CONFIG = HeadConfig(batch=64, rate=5e-3, average=0.9)


@pytest.fixture
def data() -> TrainingData:
    torch.manual_seed(5)
    tokens = TokenCache(torch.randint(32, (IMAGES, 21)).short(), torch.randn(IMAGES, 16, 8).half() * 0.2)
    mask = (torch.arange(5) < 3).expand(2 * IMAGES, -1)
    captions = [[f"image {i}", f"an image {i}"] for i in range(IMAGES)]
    return TrainingData(tokens, TextCache(captions, torch.randn(2 * IMAGES, 5, 16).half(), mask))


def rows_of(
    network: Transformer, tokenizer: HybridTokenizer, data: TrainingData, path: Path, **config: float
) -> ConditionCache:
    return cached_conditions(network, tokenizer.quantize, data, CacheConfig(**config), path)  # type: ignore[arg-type]


def test_clean_rows_are_what_teacher_forcing_gives(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Path
) -> None:
    cache = rows_of(transformer, tokenizer, data, tmp_path / "rows", passes=3)
    assert cache.conditions.shape == (3 * IMAGES, 16, 32)
    indices = data.tokens.indices.long()
    with torch.no_grad():
        maps = maps_of(tokenizer.quantize, indices)
        hidden = TeacherForcing(transformer)(data.text.first(torch.arange(IMAGES)), maps).last_hidden
        codes = tokenizer.quantize.embedding(indices[:, -16:])
        condition, residual = transformer.diffusion_condition(hidden, codes), data.tokens.rest.float() - codes
    for i in range(IMAGES):  # a row's positions are shuffled
        distances = torch.cdist(torch.tensor(cache.conditions[i]).float(), condition[i])
        order = distances.argmin(1)
        assert sorted(order.tolist()) == list(range(16))
        torch.testing.assert_close(torch.tensor(cache.residuals[i]).float(), residual[i, order], rtol=1e-2, atol=1e-2)
    assert not (cache.conditions[IMAGES : 2 * IMAGES] == cache.conditions[:IMAGES]).all()


def test_rows_are_kept_until_weights_or_images_change(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Path
) -> None:
    path = tmp_path / "rows"
    rows_of(transformer, tokenizer, data, path)
    written = path.with_suffix(".conditions").stat().st_mtime_ns
    with torch.no_grad():
        transformer.diffloss.net.cond_embed.weight.add_(1)  # the head reads the rows, it does not make them
    rows_of(transformer, tokenizer, data, path)
    assert path.with_suffix(".conditions").stat().st_mtime_ns == written
    with torch.no_grad():
        transformer.word_embed.weight.add_(1)
    rows_of(transformer, tokenizer, data, path)
    assert path.with_suffix(".conditions").stat().st_mtime_ns > written
    path.with_suffix(".json").unlink()
    rows_of(transformer, tokenizer, data, path)
    assert path.with_suffix(".json").exists()


def test_a_cache_stays_within_its_bytes(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Path
) -> None:
    cache = rows_of(transformer, tokenizer, data, tmp_path / "rows", passes=2, max_bytes=6000)
    assert cache.conditions.nbytes + cache.residuals.nbytes <= 6000
    assert cache.conditions.shape[1] == 6


def test_the_head_learns_what_the_condition_explains(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Path
) -> None:
    cache = rows_of(transformer, tokenizer, data, tmp_path / "rows", passes=1)
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    run = Run(tmp_path / "head", {})
    assert train_head(transformer, cache, run, Budget(400), math.inf, CONFIG)
    figures = ResidualTraining(transformer.diffloss, cache, CONFIG).measure()
    assert figures["error_0"] < 0.5  # 1 is the cost of no residual
    assert figures["error_1"] < 1
    after = transformer.state_dict()
    changed = {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"diffloss"}


def test_a_stopped_head_resumes_and_leaves_the_network_until_it_has_ended(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Path
) -> None:
    cache = rows_of(transformer, tokenizer, data, tmp_path / "rows", passes=1)
    before = transformer.diffloss.net.cond_embed.weight.clone()
    for _ in range(2):
        assert not train_head(transformer, cache, Run(tmp_path / "head", {}), Budget(3), -math.inf, CONFIG)
    assert torch.equal(before, transformer.diffloss.net.cond_embed.weight)
    assert train_head(transformer, cache, Run(tmp_path / "head", {}), Budget(3), -math.inf, CONFIG)
    assert not torch.equal(before, transformer.diffloss.net.cond_embed.weight)


def test_drawing_from_the_prior_costs_more_than_no_residual() -> None:
    """A head that ignores its condition draws from the prior; eight coarse steps give less than its whole variance."""

    class Prior(torch.nn.Module):
        """The exact noise prediction for residuals of standard deviation 0.18."""

        def cond_embed(self, condition: torch.Tensor) -> torch.Tensor:
            return torch.zeros(*condition.shape[:-1], 1)

        def time_embed(self, t: torch.Tensor) -> torch.Tensor:
            return t[:, None]

        def denoise(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            bar = bars[int(y.flatten()[0])]
            variance = (0.18 / 0.6) ** 2
            noise = ((1 - bar) ** 0.5 * x / (bar * variance + 1 - bar)).expand(-1, 2, -1, -1)
            return noise, torch.full_like(x, -1.0)

    head = ResidualDiffusion(4, 8, 16, 1, steps=8)
    bars = {step.t: step.alpha_bar for step in head.schedule}
    head.net = Prior()  # type: ignore[assignment]
    torch.manual_seed(0)
    errors = drawn_error(head, torch.randn(4000, 8), 0.18 * torch.randn(4000, 4))
    assert 1.2 < errors["error_1"] < 2.1
    assert 0.95 < errors["error_0"] < 1.1
