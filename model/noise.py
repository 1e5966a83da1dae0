"""Random numbers per image, computed from its seed or read from a recording (docs/spec.md, section 8).

No generator is shared, so an image does not depend on its batch.
"""

import operator
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from common.philox import key_of
from common.seeds import MAX_SEED
from kernels.philox import exponentials, normals, words
from model.errors import SettingError

TOKEN_DRAW, GUMBEL, DIFFUSION_START, DIFFUSION_STEP = range(4)


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
    """Noise as a pure function of a 64-bit seed. Raises SettingError."""

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        seed = whole(seed)
        if not 0 <= seed <= MAX_SEED:
            raise SettingError("seed", f"{seed}: expected 0 to 2^64-1")
        self.seed = seed
        self.key = torch.tensor(key_of(seed), dtype=torch.int64).to(device)

    def draw(self, purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
        return _seeded(self.key[None], purpose, scale, step, shape)[0]


def draw(sources: Sequence[Noise], purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
    """The noise of a batch of images, (n, rows, columns); computed in one call if all are seeded."""
    seeded = [source for source in sources if isinstance(source, SeededNoise)]
    if len(seeded) == len(sources):
        return _seeded(torch.stack([source.key for source in seeded]), purpose, scale, step, shape)
    return torch.stack([source.draw(purpose, scale, step, shape) for source in sources])


def draw_steps(sources: Sequence[Noise], purpose: int, scale: int, steps: int, shape: tuple[int, int]) -> Tensor:
    """The noise of steps 0 to `steps` - 1, (steps, n, rows, columns)."""
    seeded = [source for source in sources if isinstance(source, SeededNoise)]
    if len(seeded) < len(sources):
        return torch.stack([draw(sources, purpose, scale, step, shape) for step in range(steps)])
    keys = torch.stack([source.key for source in seeded])
    numbers = torch.arange(steps, device=keys.device).repeat_interleave(len(keys))
    return _seeded(keys.repeat(steps, 1), purpose, scale, numbers, shape).unflatten(0, (steps, -1))


def _seeded(keys: Tensor, purpose: int, scale: int, step: int | Tensor, shape: tuple[int, int]) -> Tensor:
    count = shape[0] * shape[1]
    drawn = words(keys, count + count % 2, scale, purpose, step)
    values = exponentials(drawn) if purpose in (TOKEN_DRAW, GUMBEL) else normals(drawn)
    return values[:, :count].unflatten(1, shape)
