"""Random numbers per image, computed from its seed or read from a recording (docs/spec.md, section 8).

No generator is shared, so an image does not depend on its batch.
"""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.philox import key_of
from common.seeds import MAX_SEED
from kernels.philox import exponentials, normals, words, words_of_scales
from model.errors import SettingError

TOKEN_DRAW, GUMBEL, DIFFUSION_START, DIFFUSION_STEP = range(4)
MAX_TOGETHER = 8_000_000
"""Max numbers of an image, per purpose, that one call draws for several scales: 64 MB kept for both."""


class Noise(Protocol):
    """The random numbers of one image. Shapes are (rows, columns)."""

    def draw(self, purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
        """Standard exponentials for TOKEN_DRAW and GUMBEL, standard normals for the diffusion; float32."""


def whole(seed: int) -> int:
    """A seed as a Python int, also from a numpy integer. Raises SettingError."""
    try:
        if not isinstance(seed, bool):
            return operator.index(seed)
    except TypeError:
        pass
    raise SettingError("seed", f"{seed!r}: expected an integer") from None


class SeededNoise:
    """Noise as a pure function of a 64-bit seed. Raises SettingError.

    `ahead` False: nothing is kept between calls, as a graph needs whose key is replaced.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu", ahead: bool = True) -> None:
        seed = whole(seed)
        if not 0 <= seed <= MAX_SEED:
            raise SettingError("seed", f"{seed}: expected 0 to 2^64-1")
        self.seed, self.ahead = seed, ahead
        self.key = torch.tensor(key_of(seed), dtype=torch.int64).to(device)
        self.drawn: dict[int, Tensor] = {}
        """Exponentials of scales to come, (purposes, count) by scale: for the tokens, then for the mixtures."""

    def draw(self, purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
        return _seeded(self.key[None], purpose, scale, step, shape)[0]


@dataclass(frozen=True)
class Scales:
    """The shapes of the logits at every scale."""

    sides: Sequence[int]
    vocabulary: int

    def shape(self, scale: int) -> tuple[int, int]:
        """Rows and columns."""
        return self.sides[scale] ** 2, self.vocabulary

    def together(self, scale: int) -> list[int]:
        """The scales from this one on whose noise is drawn in one call."""
        found, total = [scale], math.prod(self.shape(scale))
        for later in range(scale + 1, len(self.sides)):
            total += math.prod(self.shape(later))
            if total > MAX_TOGETHER:
                break
            found.append(later)
        return found


def draw_scale(sources: Sequence[Noise], scale: int, scales: Scales, mixtures: bool = True) -> list[Tensor]:
    """The noise of a scale's tokens and, if wanted, of its mixtures, each (n, rows, columns).

    Seeded images draw the noise of neighbouring small scales in one call, because on a GPU the number of calls costs.
    """
    shape, purposes = scales.shape(scale), (TOKEN_DRAW, GUMBEL)[: 1 + mixtures]
    seeded = [source for source in sources if isinstance(source, SeededNoise)]
    if len(seeded) < len(sources):
        return [draw(sources, purpose, scale, 0, shape) for purpose in purposes]
    missing = [one for one in seeded if len(one.drawn.get(scale, ())) < len(purposes)]
    if missing:
        together = scales.together(scale) if all(one.ahead for one in missing) else [scale]
        _draw_ahead(missing, {later: math.prod(scales.shape(later)) for later in together}, purposes)
    found = torch.stack([source.drawn.pop(scale)[: len(purposes)] for source in seeded])
    return list(found.unflatten(2, shape).unbind(1))


def _draw_ahead(sources: Sequence[SeededNoise], counts: Mapping[int, int], purposes: Sequence[int]) -> None:
    keys = torch.stack([source.key for source in sources])
    for scale, drawn in zip(counts, words_of_scales(keys, counts, purposes), strict=True):
        for source, values in zip(sources, exponentials(drawn), strict=True):
            source.drawn[scale] = values


def draw(sources: Sequence[Noise], purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
    """The noise of a batch of images, (n, rows, columns); computed in one call if all are seeded."""
    seeded = [source for source in sources if isinstance(source, SeededNoise)]
    if len(seeded) == len(sources):
        return _seeded(torch.stack([source.key for source in seeded]), purpose, scale, step, shape)
    return torch.stack([source.draw(purpose, scale, step, shape) for source in sources])


def draw_diffusion(sources: Sequence[Noise], scale: int, steps: int, shape: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The diffusion's start (n, rows, columns) and the noise of its `steps` steps, (steps, n, rows, columns)."""
    seeded = [source for source in sources if isinstance(source, SeededNoise)]
    if len(seeded) < len(sources):
        fresh = [draw(sources, DIFFUSION_STEP, scale, step, shape) for step in range(steps)]
        start = draw(sources, DIFFUSION_START, scale, 0, shape)
        return start, torch.stack(fresh) if fresh else start.new_empty(0, *start.shape)
    keys = torch.stack([source.key for source in seeded])
    numbers = torch.arange(steps + 1, device=keys.device).repeat_interleave(len(keys))  # 0 is the start
    purposes = (numbers > 0) * (DIFFUSION_STEP - DIFFUSION_START) + DIFFUSION_START
    drawn = _seeded(keys.repeat(steps + 1, 1), purposes, scale, (numbers - 1).clamp_min(0), shape)
    every = drawn.unflatten(0, (steps + 1, -1))
    return every[0], every[1:]


def _seeded(keys: Tensor, purpose: int | Tensor, scale: int, step: int | Tensor, shape: tuple[int, int]) -> Tensor:
    count = shape[0] * shape[1]
    drawn = words(keys, count + count % 2, scale, purpose, step)
    exponential = isinstance(purpose, int) and purpose in (TOKEN_DRAW, GUMBEL)
    values = exponentials(drawn) if exponential else normals(drawn)
    return values[:, :count].unflatten(1, shape)
