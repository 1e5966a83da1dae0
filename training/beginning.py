"""How an autoencoder's weights begin: as a pixelation, which only has to be refined. Knows no data and no training.

From the usual random weights the decoder first learns the mean picture, and stays with it for hundreds of steps. Here
residual branches begin at zero, downsampling as an average and upsampling as a copy, each with a share of its random
weights so that channels grow apart: a latent holds its patch's colours from the first step on. On 800 pictures at 128
pixels the training error fell to 14.3 dB where the usual weights stood at 11.5.
"""

import torch
from torch import Tensor, nn

from model.autoencoder import AttentionBlock, Downsample, ResidualBlock, Upsample
from model.tokenizer import HybridTokenizer

RANDOM_SHARE = 0.5
LATENT_RANDOM_SHARE = 0.3


@torch.no_grad()
def pixelate(tokenizer: HybridTokenizer) -> None:
    """Overwrites freshly made weights; random numbers from torch's own generator."""
    for module in tokenizer.modules():
        if isinstance(module, ResidualBlock):
            _silence(module.conv2)
            if module.widens:
                _copy(module.nin_shortcut, 0.0, _turned(module.nin_shortcut), ((0, 0),))
        elif isinstance(module, AttentionBlock):
            _silence(module.proj_out)
        elif isinstance(module, Downsample):
            _copy(module.conv, RANDOM_SHARE, _same(module.conv) / 4, ((0, 0), (0, 1), (1, 0), (1, 1)))
        elif isinstance(module, Upsample):
            _copy(module.conv, RANDOM_SHARE, _same(module.conv), ((1, 1),))
    for conv in (tokenizer.encoder.conv_in, tokenizer.decoder.conv_in):
        _copy(conv, RANDOM_SHARE, _turned(conv), ((1, 1),))
    middle = tokenizer.config.quant_conv_ks // 2
    for conv in (tokenizer.quant_conv, tokenizer.post_quant_conv):
        _copy(conv, LATENT_RANDOM_SHARE, _same(conv), ((middle, middle),))


def _silence(conv: nn.Conv2d) -> None:
    conv.weight.zero_()
    _bias(conv).zero_()


def _copy(conv: nn.Conv2d, random_share: float, carried: Tensor, taps: tuple[tuple[int, int], ...]) -> None:
    """At the taps (row, column) the convolution carries its input by a matrix (out, in); the rest is random."""
    conv.weight.mul_(random_share)
    _bias(conv).zero_()
    for row, column in taps:
        conv.weight[:, :, row, column] += carried


def _same(conv: nn.Conv2d) -> Tensor:
    return torch.eye(conv.out_channels, conv.in_channels, device=conv.weight.device)


def _turned(conv: nn.Conv2d) -> Tensor:
    # Made on the CPU, so that a seed begins with the same weights on every device.
    return nn.init.orthogonal_(torch.empty(conv.out_channels, conv.in_channels)).to(conv.weight.device)


def _bias(conv: nn.Conv2d) -> Tensor:
    assert conv.bias is not None  # noqa: S101 - all convolutions of the autoencoder have one
    return conv.bias
