"""model.pixels."""

from __future__ import annotations

import numpy as np
import torch

from model.pixels import quantize, to_pixels


def test_pixels_are_floored() -> None:
    values = torch.tensor([0.0, 0.5, 254.99 / 255, 1.0]).view(1, 1, 4, 1).expand(1, 3, 4, 1)
    [found] = to_pixels(*quantize(values))
    assert isinstance(found, np.ndarray)
    assert found.shape == (4, 1, 3)
    assert found.dtype == np.uint8
    assert found[:, 0, 1].tolist() == [0, 127, 254, 255]


def test_channels_come_last_and_images_keep_their_order() -> None:
    images = torch.arange(2 * 3 * 2 * 4).view(2, 3, 2, 4) / 255
    found = to_pixels(*quantize(images + 0.5 / 255))
    assert np.array_equal(np.stack([one for one in found if isinstance(one, np.ndarray)]),
                          np.arange(48).reshape(2, 3, 2, 4).transpose(0, 2, 3, 1))  # fmt: skip
