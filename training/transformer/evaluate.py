"""What the residual head gains: teacher-forced PSNR, and images whose last scale is drawn in several ways."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model.generation import GenerationState, Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.device import conditioning_to
from training.core.images import batch_size, psnr, to_bytes, to_signed
from training.data.text_cache import encode_captions
from training.transformer.teacher_forcing import TeacherForcing, maps_of

NO_RESIDUAL = None
"""In place of a temperature: the discrete latent alone."""


@torch.inference_mode()
def teacher_forced_figures(
    network: Transformer,
    tokenizer: HybridTokenizer,
    encoder: TextEncoder,
    pixels: NDArray[np.uint8],
    captions: Sequence[str],
) -> dict[str, float]:
    """Figures on images (n, S, S, 3) with a caption each, from true tokens and without guidance.

    `psnr_*`, dB to the image: from the discrete latent, with residuals drawn at temperatures 1 and 0, with the true
    residuals. `error_*`: squared error of drawn residuals over the true ones' mean square.
    """
    teacher = TeacherForcing(network)
    batch, quantizer = batch_size(32, pixels.shape[1]), tokenizer.quantize
    text = encode_captions(encoder, [[caption] for caption in captions], progress=lambda steps, **_: steps)
    found: dict[str, list[Tensor]] = {}
    for start in range(0, len(pixels), batch):
        rows = torch.arange(start, min(start + batch, len(pixels)))
        signed = to_signed(pixels[start : start + batch])
        code = tokenizer.encode(signed)
        indices = torch.cat(code.indices, 1)
        conditioning = conditioning_to(text.first(rows), network.word_embed.weight.device)
        predicted = teacher(conditioning, maps_of(quantizer, indices))
        codes = quantizer.embedding(code.indices[-1])
        residual = code.last_scale_features.flatten(2).transpose(1, 2) - codes
        condition = network.diffusion_condition(predicted.last_hidden, codes)
        latent = tokenizer.latent_of(code.indices)
        drawn = _drawn(network, condition, start)
        size = residual.square().mean().view(1)
        for name, values in drawn.items():
            _add(found, f"error_{name}", (values - residual).square().mean().view(1) / size)
        latents = {f"drawn_{name}": latent + quantizer.as_map(values) for name, values in drawn.items()}
        for name, chosen in {"discrete": latent, **latents, "true": latent + quantizer.as_map(residual)}.items():
            _add(found, f"psnr_{name}", psnr(tokenizer.decode(chosen), (signed + 1) / 2))
        _add(found, "token_accuracy", (predicted.logits.argmax(-1) == indices).float().mean(1))
    return {"images": float(len(pixels))} | {name: float(torch.cat(parts).mean()) for name, parts in found.items()}


def _drawn(network: Transformer, condition: Tensor, seed: int) -> dict[str, Tensor]:
    """Residuals (B, N², Z) drawn at temperatures 1 and 0 from conditions (B, N², C)."""
    generator = torch.Generator().manual_seed(seed)
    steps, z = len(network.diffloss.schedule), network.word_embed.in_features
    shape = (*condition.shape[:2], z)
    noise = torch.randn(steps, *shape, generator=generator).to(condition.device)
    both, still = condition.unsqueeze(1).expand(-1, 2, -1, -1), torch.zeros(len(condition), device=condition.device)
    return {f"{t:g}": network.diffloss.sample(both, still, noise[0], noise[1:], t) for t in (1.0, 0.0)}


def _add(found: dict[str, list[Tensor]], name: str, values: Tensor) -> None:
    found.setdefault(name, []).append(values)


@torch.inference_mode()
def draw_with_temperatures(
    generator: Generator,
    tokenizer: HybridTokenizer,
    encoder: TextEncoder,
    prompts: Sequence[str],
    settings: SamplingParams,
    temperatures: Sequence[float | None],
) -> list[NDArray[np.uint8]]:
    """For each residual temperature one image a prompt, uint8 (n, S, S, 3), from the same tokens; prompt i has seed i.

    Only the last scale is computed once for each temperature. The generator's slots are the batch.
    """
    drawn: list[list[NDArray[np.uint8]]] = [[] for _ in temperatures]
    for start in range(0, len(prompts), len(generator.free)):
        part = prompts[start : start + len(generator.free)]
        conditioning = encoder.encode(part).conditioning
        states = [
            generator.begin(conditioning[i], SeededNoise(start + i, generator.device), settings)
            for i in range(len(part))
        ]
        for _ in range(generator.scales - 1):
            generator.advance(states)
        before = [(state.latent, state.next_map) for state in states]
        for images, temperature in zip(drawn, temperatures, strict=True):
            for state, (latent, next_map) in zip(states, before, strict=True):
                state.latent, state.next_map, state.scale = latent, next_map, generator.scales - 1
            images.append(_last_scale(generator, tokenizer, states, temperature))
        for state in states:
            generator.release(state)
    return [np.concatenate(images) for images in drawn]


def _last_scale(
    generator: Generator, tokenizer: HybridTokenizer, states: list[GenerationState], temperature: float | None
) -> NDArray[np.uint8]:
    for state in states:
        state.params = replace(state.params, residual_temperature=temperature or 0.0)
    if temperature is NO_RESIDUAL:
        with _without_residual(generator.transformer):
            generator.advance(states)
    else:
        generator.advance(states)
    return to_bytes(tokenizer.decode(torch.stack([state.latent for state in states])))


class _ZeroResidual(nn.Module):
    def sample(self, condition: Tensor, guidance: Tensor, start: Tensor, *_: object) -> Tensor:
        return torch.zeros_like(start)


@contextmanager
def _without_residual(network: Transformer) -> Iterator[None]:
    head = network.diffloss
    network.diffloss = cast("nn.Module", _ZeroResidual())  # type: ignore[assignment]
    try:
        yield
    finally:
        network.diffloss = head
