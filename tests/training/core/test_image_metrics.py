"""training.core.image_metrics: identical images score best, blur and other sets score worse."""

import pytest
import torch
import torch.nn.functional as F

from training.core.image_metrics import frechet_distance, sharpness, ssim


def test_an_image_is_like_itself_and_less_like_a_blurred_one() -> None:
    torch.manual_seed(0)
    image = torch.rand(2, 3, 32, 32)
    blurred = F.avg_pool2d(image, 3, 1, 1)
    torch.testing.assert_close(ssim(image, image), torch.ones(2))
    assert float(ssim(blurred, image).max()) < 0.9
    torch.testing.assert_close(sharpness(image, image), torch.ones(2))
    assert float(sharpness(blurred, image).max()) < 0.5


def test_figures_are_those_of_each_image_alone() -> None:
    torch.manual_seed(1)
    truth, drawn = torch.rand(3, 3, 32, 32), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(ssim(drawn, truth)[1:2], ssim(drawn[1:2], truth[1:2]))


def test_the_distance_of_normal_sets_is_the_formulas() -> None:
    torch.manual_seed(2)
    one, other = torch.randn(20_000, 3), 2 * torch.randn(20_000, 3) + torch.tensor([1.0, 0.0, 0.0])
    assert frechet_distance(one, other) == pytest.approx(1 + 3 * (1 + 4 - 2 * 2), rel=0.05)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-6)


def test_fewer_images_than_features_have_a_distance() -> None:
    torch.manual_seed(3)
    assert frechet_distance(torch.randn(10, 32), torch.randn(10, 32)) > 0
