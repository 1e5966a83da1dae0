"""Batches of pictures for the tokenizer, each a little changed. Knows no networks."""

import numpy as np
import torch
from torch import Tensor

from training.data import Pictures
from training.images import to_signed


class Batches:
    """Draws training batches: mirrored half of the time, on a coloured ground or in exchanged colours now and then."""

    def __init__(
        self, pictures: Pictures, size: int, ground: float = 0.12, recolour: float = 0.06, distinct: bool = False
    ) -> None:
        self.pictures, self.size, self.ground, self.recolour = pictures, size, ground, recolour
        self.distinct = distinct

    def draw(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1]; random numbers from torch's own generator."""
        chosen = self.pictures.train[self._rows().numpy()]
        batch = to_signed(self.pictures.pixels[chosen])
        alpha = torch.from_numpy(np.ascontiguousarray(self.pictures.alpha[chosen])).float() / 255
        chance = torch.rand(4, self.size)
        ground = torch.rand(self.size, 3) * 2 - 1
        for i in range(self.size):
            if chance[0, i] < self.ground:
                batch[i] += (ground[i, :, None, None] - 1) * (1 - alpha[i])
            if chance[1, i] < self.recolour:
                batch[i] = batch[i, torch.randperm(3)]
            if chance[2, i] < 0.5:
                batch[i] = batch[i].flip(2)
        return batch

    def _rows(self) -> Tensor:
        """(B,): no picture twice if `distinct`. Few pictures are often drawn twice, and a batch in which all are the
        same tells the codebook nothing but divides its loss by nearly nothing."""
        count = len(self.pictures.train)
        return torch.randperm(count)[: self.size] if self.distinct else torch.randint(count, (self.size,))
