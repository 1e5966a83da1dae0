"""model.tokenizer, model.quantizer: images to tokens and back."""

import pytest
import torch

from model.errors import ModelError
from tests.model.golden import ImageCase, difference


def test_tokens_and_residual_sum_to_the_features(plain: ImageCase) -> None:
    """Encoding then summing all scales' codes and the residual gives the continuous latent back."""
    tokenizer = plain.tokenizer
    with torch.inference_mode():
        encoding = tokenizer.encode(torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1)
        last = tokenizer.quantize.maps_of(encoding.indices[-1])
        residual = encoding.last_scale_features - last
        assert difference(tokenizer.latent_of(encoding.indices) + residual, encoding.features) < 1e-5


def test_quantizer_picks_the_nearest_row(plain: ImageCase) -> None:
    quantize = plain.tokenizer.quantize
    vectors = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        nearest = quantize.nearest(vectors)
        assert torch.equal(nearest, torch.cdist(vectors, quantize.embedding.weight).argmin(1))
        assert torch.equal(quantize.nearest(quantize.embedding.weight), torch.arange(640))


def test_decoder_accepts_smaller_latents(plain: ImageCase) -> None:
    """Previews decode a smaller latent."""
    with torch.inference_mode():
        assert plain.tokenizer.decode(torch.zeros(1, 8, 2, 2)).shape == (1, 3, 4, 4)


@pytest.mark.parametrize("shape", [(1, 3, 16, 16), (1, 1, 8, 8), (3, 8, 8)])
def test_images_of_another_shape_are_refused(plain: ImageCase, shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match=r"expected \(B, 3, 8, 8\)"):
        plain.tokenizer.encode(torch.zeros(shape))
