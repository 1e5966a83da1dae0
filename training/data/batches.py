"""Batches of images for the tokenizer, with light augmentation."""

import numpy as np
import torch
from torch import Tensor

from training.core.device import to_device
from training.core.images import CPU, to_signed
from training.data.image_set import ImageSet


class Batches:
    """Draws training batches: half of the images mirrored, some on a coloured ground or with permuted colours."""

    def __init__(
        self,
        images: ImageSet,
        size: int,
        device: torch.device = CPU,
        ground: float = 0.12,
        recolour: float = 0.06,
        distinct: bool = False,
    ) -> None:
        self.images, self.size, self.device = images, size, device
        self.ground, self.recolour, self.distinct = ground, recolour, distinct

    def draw(self) -> Tensor:
        """(B, 3, S, S) in [-1, 1] on the device; random numbers from torch's own generator, drawn on the CPU."""
        chosen = self.images.train[self._rows().numpy()]
        batch = to_signed(self.images.pixels[chosen], self.device)
        chance = torch.rand(4, self.size)
        ground = to_device(torch.rand(self.size, 3) * 2 - 1, self.device)
        for i in range(self.size):
            if chance[0, i] < self.ground:
                alpha = to_device(torch.from_numpy(np.array(self.images.alpha[chosen[i]])), self.device).float() / 255
                batch[i] += (ground[i, :, None, None] - 1) * (1 - alpha)
            if chance[1, i] < self.recolour:
                batch[i] = torch.stack([batch[i, channel] for channel in torch.randperm(3).tolist()])
            if chance[2, i] < 0.5:
                batch[i] = batch[i].flip(2)
        return batch

    def _rows(self) -> Tensor:
        """(B,): no image twice if `distinct`.

        The codebook's loss is divided by the variance within the batch, which is near zero in a batch of one image.
        """
        count = len(self.images.train)
        return torch.randperm(count)[: self.size] if self.distinct else torch.randint(count, (self.size,))
