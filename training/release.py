"""Writes trained networks in the released layout: configs, key names, half precision. Knows nothing of training."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.diffusion import RESIDUAL_SCALE
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.images import at_once

WIDEST = 0.999
"""The share of residual values that must lie within what diffusion can draw, ±RESIDUAL_SCALE."""


@torch.no_grad()
def centre_residuals(tokenizer: HybridTokenizer, pictures: Tensor, most: int = 16) -> float:
    """Scales the latent so that residuals fill, but do not leave, what the diffusion can draw; returns the factor.

    Pictures (B, 3, S, S) in [-1, 1]. Sampling clamps residuals to ±0.6, so the latent's size matters. A factor on the
    last convolution before it, on the codebook and on φ's biases, taken back in the first convolution after it,
    changes no picture and no token.
    """
    device, batch = tokenizer.quant_conv.weight.device, at_once(most, pictures.shape[-1])
    rests = []
    for start in range(0, len(pictures), batch):
        code = tokenizer.encode(pictures[start : start + batch].to(device))
        rests.append((code.features - tokenizer.latent_of(code.indices)).abs().flatten())
    rest = torch.cat(rests)
    factor = RESIDUAL_SCALE / float(rest.kthvalue(int(WIDEST * (len(rest) - 1)) + 1).values)
    for parameter in tokenizer.quant_conv.parameters():
        parameter.mul_(factor)
    tokenizer.post_quant_conv.weight.div_(factor)
    tokenizer.quantize.embedding.weight.mul_(factor)
    for name, parameter in tokenizer.quantize.quant_resi.named_parameters():
        if name.endswith("bias"):
            parameter.mul_(factor)
    return factor


def _half(module: nn.Module, prefix: str = "") -> dict[str, Tensor]:
    return {prefix + name: tensor.detach().cpu().half().contiguous() for name, tensor in module.state_dict().items()}


def _write_config(folder: Path, config: dict[str, object]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def write_tokenizer(tokenizer: HybridTokenizer, folder: Path) -> Path:
    """`folder` gets config.json and model.safetensors (keys vae.*, float16)."""
    _write_config(folder, tokenizer.config.to_json())
    save_file(_half(tokenizer, "vae."), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_transformer(transformer: Transformer, folder: Path) -> Path:
    """`folder` gets config.json and ema_model.safetensors (float16): these are the averaged weights."""
    _write_config(folder, transformer.config.to_json())
    save_file(_half(transformer), folder / "ema_model.safetensors", metadata={"format": "pt"})
    return folder
