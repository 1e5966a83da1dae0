"""Sampling in one pass against float64, and token for token against its twin."""

import pytest
import torch
from torch import Tensor

from common.philox import key_of
from kernels.philox import exponentials, words
from kernels.sampling import Draw, sample, twin
from tests.kernels.close import random

SEEDS = (7, 2**53 + 12345, 2**64 - 1)


def inputs(n: int, length: int, vocabulary: int, channels: int, device: str) -> dict[str, Tensor]:
    return {
        "logits": random(n, 2, length, vocabulary, dtype=torch.float32, device=device) * 4,
        "guidance": torch.tensor([0.0, 1.5, 4.5][:n], device=device),
        "keys": torch.tensor([key_of(seed) for seed in SEEDS[:n]], device=device),
        "more_smooth": torch.tensor([True, False, True][:n], device=device),
        "codebook": random(vocabulary, channels, dtype=torch.float32, device=device),
    }


def exact(given: dict[str, Tensor], draw: Draw) -> tuple[Tensor, Tensor]:
    """The race p/E of every entry, (n, L, V), and the soft mixtures (n, L, Z), in float64 from the logits on."""
    logits, t = given["logits"], given["guidance"][:, None, None]
    # Which entries are kept is decided by float32 values; what is computed of them is exact.
    rounded = (1 + t) * logits[:, 0] - t * logits[:, 1]
    least = rounded.sort(descending=True).values[..., min(draw.top_k, rounded.shape[-1]) - 1, None]
    guided = ((1 + t.double()) * logits[:, 0].double() - t.double() * logits[:, 1].double()).masked_fill(
        rounded < least, float("-inf")
    )
    count = guided[0].numel()
    race, gumbel = (
        exponentials(words(given["keys"], count, draw.scale, purpose)).double().view(guided.shape) for purpose in (0, 1)
    )
    weights = ((guided * draw.sharpness - gumbel.log()) / draw.temperature).softmax(-1)
    return guided.softmax(-1) / race, weights @ given["codebook"].double()


@pytest.mark.parametrize(
    ("n", "length", "vocabulary", "channels", "top_k"),
    [(3, 2, 64, 8, 10), (2, 3, 101, 5, 300), (3, 1, 300, 32, 17), (1, 1, 7, 3, 1)],
)
@pytest.mark.parametrize("temperature", [0.27, 0.0135])
def test_sampling(
    kernels: str, n: int, length: int, vocabulary: int, channels: int, top_k: int, temperature: float
) -> None:
    given, draw = inputs(n, length, vocabulary, channels, kernels), Draw(3, top_k, 1.5, temperature)
    tokens, embeddings = sample(**given, draw=draw)
    race, mixture = exact(given, draw)
    won = race.gather(-1, tokens[..., None])[..., 0]
    assert bool((won >= race.amax(-1) * (1 - 1e-5)).all())
    more_smooth = given["more_smooth"]
    # A mixture's weights move by the rounding of a logit over the temperature.
    assert (embeddings[more_smooth].double() - mixture[more_smooth]).abs().max() < 4e-6 / temperature
    assert torch.equal(embeddings[~more_smooth], given["codebook"][tokens[~more_smooth]])
    expected = twin(**given, draw=draw)
    assert torch.equal(tokens, expected[0])
    assert (embeddings - expected[1]).abs().max() < 4e-6 / temperature


def test_ties_with_the_last_kept_one_are_kept_and_signed_zeros_are_ties(kernels: str) -> None:
    given = inputs(1, 1, 64, 64, kernels)
    given["codebook"] = torch.eye(64, device=kernels)
    given["logits"] = torch.full((1, 2, 1, 64), -3.0, device=kernels)
    given["logits"][..., [5, 9, 20]] = 0.0
    given["logits"][..., [11]] = -0.0
    draw = Draw(0, 2, 1.0, 5.0)
    assert sample(**given, draw=draw)[1][0, 0].nonzero().flatten().tolist() == [5, 9, 11, 20]
    assert twin(**given, draw=draw)[1][0, 0].nonzero().flatten().tolist() == [5, 9, 11, 20]


def test_the_kth_largest_is_found_among_values_of_all_sizes_and_signs(kernels: str) -> None:
    values = torch.tensor([2.5, -7.0, 1e-3, -1e-30, 1e-30, 0.0, -2.5, 2.4999998], device=kernels)
    order = values.argsort(descending=True).tolist()
    given = inputs(1, 1, 8, 8, kernels) | {"codebook": torch.eye(8, device=kernels)}
    given["logits"] = values.expand(1, 2, 1, 8).clone()
    for kept in range(1, 9):  # a high temperature leaves a share of the mixture to every kept one
        mixture = sample(**given, draw=Draw(0, kept, 1.0, 50.0))[1][0, 0]
        assert set(mixture.nonzero().flatten().tolist()) == set(order[:kept])


def test_the_draw_has_the_distribution_of_the_softmax(kernels: str) -> None:
    length, vocabulary = (4096, 8) if kernels != "cpu" else (100, 8)
    given = inputs(1, 1, vocabulary, 2, kernels)
    given["logits"] = given["logits"].expand(-1, -1, length, -1).contiguous() / 4
    given["more_smooth"] = torch.tensor([False], device=kernels)
    tokens, _ = sample(**given, draw=Draw(1, 600, 1.0, 0.27))
    shares = torch.bincount(tokens.flatten(), minlength=vocabulary).double() / length
    expected = given["logits"][0, 0, 0].double().softmax(0)
    assert float((shares - expected).abs().max()) < 4 * (0.25 / length) ** 0.5


def test_a_larger_vocabulary_is_drawn_by_the_twin(kernels: str) -> None:
    given, draw = inputs(1, 1, 20000, 4, kernels), Draw(2, 600, 1.2, 0.2)
    assert all(torch.equal(a, b) for a, b in zip(sample(**given, draw=draw), twin(**given, draw=draw), strict=True))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("branch", [0, 1])
@pytest.mark.parametrize("more_smooth", [False, True])
def test_a_logit_that_is_not_finite_spoils_its_token_alone(
    kernels: str, wrong: float, branch: int, more_smooth: bool
) -> None:
    given, draw = inputs(2, 3, 64, 8, kernels), Draw(3, 10, 1.5, 0.27)
    given["more_smooth"] = torch.tensor([more_smooth, more_smooth], device=kernels)
    whole = sample(**given, draw=draw)[1]
    given["logits"][1, branch, 2, 7] = wrong
    for embeddings in (sample(**given, draw=draw)[1], twin(**given, draw=draw)[1]):
        assert bool(embeddings[1, 2].isnan().all())
        embeddings[1, 2] = whole[1, 2]
        assert (embeddings - whole).abs().max() < 1e-4


@pytest.mark.parametrize("more_smooth", [False, True])
def test_one_branch_is_drawn_as_two_without_guidance(kernels: str, more_smooth: bool) -> None:
    given, draw = inputs(2, 3, 64, 8, kernels), Draw(3, 10, 1.5, 0.27)
    given |= {"guidance": torch.zeros(2, device=kernels), "more_smooth": torch.tensor([more_smooth] * 2).to(kernels)}
    both = sample(**given, draw=draw)
    given["logits"] = given["logits"][:, :1]
    for alone in (sample(**given, draw=draw), twin(**given, draw=draw)):
        assert torch.equal(alone[0], both[0])
        assert (alone[1] - both[1]).abs().max() < 1e-4
