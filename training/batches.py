"""Batches of pictures for the tokenizer, each a little changed. Knows no networks."""

import numpy as np
import torch
from torch import Tensor

from training.data import Pictures
from training.device import sent
from training.images import CPU, to_signed


class Batches:
    """Draws training batches: mirrored half of the time, on a coloured ground or in exchanged colours now and then."""

    def __init__(
        self,
        pictures: Pictures,
        size: int,
        device: torch.device = CPU,
        ground: float = 0.12,
        recolour: float = 0.06,
        distinct: bool = False,
    ) -> None:
        self.pictures, self.size, self.device = pictures, size, device
        self.ground, self.recolour, self.distinct = ground, recolour, distinct

    def draw(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1] on the device; random numbers from torch's own generator, drawn on the CPU."""
        chosen = self.pictures.train[self._rows().numpy()]
        batch = to_signed(self.pictures.pixels[chosen], self.device)
        chance = torch.rand(4, self.size)
        ground = sent(torch.rand(self.size, 3) * 2 - 1, self.device)
        for i in range(self.size):
            if chance[0, i] < self.ground:
                alpha = sent(torch.from_numpy(np.array(self.pictures.alpha[chosen[i]])), self.device).float() / 255
                batch[i] += (ground[i, :, None, None] - 1) * (1 - alpha)
            if chance[1, i] < self.recolour:
                batch[i] = torch.stack([batch[i, channel] for channel in torch.randperm(3).tolist()])
            if chance[2, i] < 0.5:
                batch[i] = batch[i].flip(2)
        return batch

    def _rows(self) -> Tensor:
        """(B,): no picture twice if `distinct`. Few pictures are often drawn twice, and a batch in which all are the
        same tells the codebook nothing but divides its loss by nearly nothing."""
        count = len(self.pictures.train)
        return torch.randperm(count)[: self.size] if self.distinct else torch.randint(count, (self.size,))
