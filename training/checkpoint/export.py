"""Writes trained networks in the released layout: configs, key names, half precision."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.diffusion import RESIDUAL_SCALE
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.images import batch_size

WITHIN_RANGE = 0.999
"""Share of residual values that must lie within ±RESIDUAL_SCALE, which is what diffusion can draw."""


@torch.no_grad()
def centre_residuals(tokenizer: HybridTokenizer, images: Tensor, max_batch: int = 16) -> float:
    """Scales the latent so that residuals fill the range that the diffusion can draw; returns the factor.

    Images (B, 3, S, S) in [-1, 1]. Sampling clamps residuals to ±0.6. A factor on the last convolution before the
    latent, on the codebook and on φ's biases, divided out in the first convolution after it, changes no image and no
    token.
    """
    device, batch = tokenizer.quant_conv.weight.device, batch_size(max_batch, images.shape[-1])
    rests = []
    for start in range(0, len(images), batch):
        code = tokenizer.encode(images[start : start + batch].to(device))
        rests.append((code.features - tokenizer.latent_of(code.indices)).abs().flatten())
    rest = torch.cat(rests)
    factor = RESIDUAL_SCALE / float(rest.kthvalue(int(WITHIN_RANGE * (len(rest) - 1)) + 1).values)
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
    """Writes config.json and model.safetensors (keys vae.*, float16) into `folder`."""
    _write_config(folder, tokenizer.config.to_json())
    save_file(_half(tokenizer, "vae."), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_transformer(transformer: Transformer, folder: Path) -> Path:
    """Writes config.json and ema_model.safetensors (averaged weights, float16) into `folder`."""
    _write_config(folder, transformer.config.to_json())
    save_file(_half(transformer), folder / "ema_model.safetensors", metadata={"format": "pt"})
    return folder
