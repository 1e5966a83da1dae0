"""The VQGAN encoder and decoder networks (docs/spec.md, section 5), without the codebook."""

import torch.nn.functional as F
from torch import Tensor, nn

from kernels.bias_add import bias_add
from kernels.choose import kernel_runs
from kernels.group_norm import group_norm
from kernels.narrow_convolution import narrow_convolution
from kernels.wide_attention import wide_attention
from model.config import TokenizerConfig

GROUPS = 32


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, width, eps=1e-6)


def _normalise(norm: nn.GroupNorm, x: Tensor, silu: bool = True, added: Tensor | None = None) -> Tensor:
    return group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps, silu, added)


def _convolve(conv: nn.Conv2d, x: Tensor, skip: Tensor | None = None) -> Tensor:
    """The convolution of x, plus `skip`."""
    if kernel_runs(x, conv.weight):
        return bias_add(*_without_bias(conv, x), skip)
    return conv(x) if skip is None else skip + conv(x)


def _without_bias(conv: nn.Conv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """The convolution of x before its bias, and the bias."""
    return F.conv2d(x, conv.weight, None, conv.stride, conv.padding), _bias(conv)


def _bias(conv: nn.Conv2d) -> Tensor:
    if conv.bias is None:
        raise ValueError("bias is None: expected a convolution with a bias")
    return conv.bias


class ResidualBlock(nn.Module):
    """Two normalised 3x3 convolutions with a skip connection: (B, width_in, H, W) to (B, width_out, H, W)."""

    def __init__(self, width_in: int, width_out: int) -> None:
        super().__init__()
        self.norm1 = _norm(width_in)
        self.conv1 = nn.Conv2d(width_in, width_out, 3, padding=1)
        self.norm2 = _norm(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1)
        if width_in != width_out:
            self.nin_shortcut = nn.Conv2d(width_in, width_out, 1)
        self.widens = width_in != width_out

    def forward(self, x: Tensor) -> Tensor:
        h, bias = _normalise(self.norm1, x), None
        if kernel_runs(h, self.conv1.weight):
            h, bias = _without_bias(self.conv1, h)
        else:
            h = self.conv1(h)
        h = _normalise(self.norm2, h, added=bias)
        return _convolve(self.conv2, h, _convolve(self.nin_shortcut, x) if self.widens else x)


class AttentionBlock(nn.Module):
    """Single-head self-attention over all positions of a map, (B, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = _norm(width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.proj_out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        qkv = self.qkv(_normalise(self.norm, x, silu=False))
        q, k, v = qkv.reshape(b, 3, c, h * w).transpose(2, 3).unbind(1)  # each (b, h w, c)
        mixed = wide_attention(q, k, v)
        return x + self.proj_out(mixed.transpose(1, 2).reshape(b, c, h, w))


class Downsample(nn.Module):
    """(B, width, H, W) to half the sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    """(B, width, H, W) to twice the sides."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return _convolve(self.conv, F.interpolate(x, scale_factor=2, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, then the down- or upsampling to the next."""

    def __init__(self, width_in: int, width_out: int, blocks: int, attends: bool, step: tuple[str, nn.Module] | None):
        super().__init__()
        self.block = nn.ModuleList(ResidualBlock(width_in if j == 0 else width_out, width_out) for j in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(width_out) for _ in range(blocks if attends else 0))
        self.step_name = step[0] if step else None
        if step:
            self.add_module(*step)

    def forward(self, x: Tensor) -> Tensor:
        for j, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[j](x)
        return self.get_submodule(self.step_name)(x) if self.step_name else x


class Middle(nn.Module):
    """Residual block, attention, residual block, (B, width, H, W)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.block_1 = ResidualBlock(width, width)
        self.attn_1 = AttentionBlock(width)
        self.block_2 = ResidualBlock(width, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn_1(self.block_1(x))
        return self.block_2(x)


class Encoder(nn.Module):
    """Images (B, 3, S, S) in [-1, 1] to maps (B, Z, S/f, S/f); f is the downsampling factor."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        deepest = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, padding=1)
        self.down = nn.ModuleList(
            Level(
                config.ch if i == 0 else widths[i - 1],
                width,
                blocks=2,
                attends=i == deepest,
                step=("downsample", Downsample(width)) if i < deepest else None,
            )
            for i, width in enumerate(widths)
        )
        self.mid = Middle(widths[-1])
        self.norm_out = _norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.z_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(_normalise(self.norm_out, self.mid(x)))


class Decoder(nn.Module):
    """Maps (B, Z, n, n) to images (B, 3, f n, f n), nominally in [-1, 1], not clamped."""

    def __init__(self, config: TokenizerConfig) -> None:
        super().__init__()
        widths = [config.ch * mult for mult in config.ch_mult]
        deepest = len(widths) - 1
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, padding=1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(
                widths[min(i + 1, deepest)],
                width,
                blocks=3,
                attends=i == deepest,
                step=("upsample", Upsample(width)) if i > 0 else None,
            )
            for i, width in enumerate(widths)
        )
        self.norm_out = _norm(widths[0])
        self.conv_out = nn.Conv2d(widths[0], 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in reversed(self.up):
            x = level(x)
        return narrow_convolution(_normalise(self.norm_out, x), self.conv_out.weight, _bias(self.conv_out))
