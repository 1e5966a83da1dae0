"""A golden case as objects of the model."""

import json
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from model import noise as randomness
from model.checkpoint import Checkpoint
from model.generation import Conditioning, GenerationState, Generator
from model.noise import Noise
from model.params import SamplingParams


class RecordedNoise:
    """Recorded noise: tensors by (purpose, scale, step)."""

    def __init__(self, tensors: dict[tuple[int, int, int], Tensor]) -> None:
        self.tensors = tensors

    def draw(self, purpose: int, scale: int, step: int, shape: tuple[int, int]) -> Tensor:
        recorded = self.tensors[purpose, scale, step].float()
        assert recorded.shape == shape
        return recorded


class ImageCase:
    """A checkpoint with inputs and every expected tensor."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        self.device = device
        self.case: dict[str, Any] = json.loads((folder / "case.json").read_text())
        self.expected = {
            name: tensor.float() if tensor.is_floating_point() else tensor
            for name, tensor in load_file(folder / "expected.safetensors", device).items()
        }
        self.checkpoint = Checkpoint.open(folder / "checkpoint")
        self.batch: int = self.case["batch"]

    @cached_property
    def tokenizer(self) -> Any:
        return self.checkpoint.load_tokenizer(device=self.device)

    @property
    def settings(self) -> SamplingParams:
        return SamplingParams(self.case["guidance"], self.case["more_smooth"], self.case["top_p"])

    def generator(self, slots: int | None = None) -> Generator:
        return Generator(
            self.checkpoint.load_transformer(device=self.device), self.tokenizer.quantize, slots or self.batch
        )

    def conditioning(self) -> Conditioning:
        wanted = ("context", "context_mask", "context_position_ids")
        context, mask, positions = (self.expected[f"input.{name}"] for name in wanted)
        return Conditioning(context, mask.bool(), positions)

    def noise(self, row: int) -> Noise:
        """The recorded noise of one image of the batch."""
        last = self.checkpoint.transformer_config.scales - 1
        tokens = self.checkpoint.transformer_config.side**2
        recorded: dict[tuple[int, int, int], Tensor] = {}
        for name, tensor in self.expected.items():
            kind, _, number = name.removeprefix("noise.").partition(".")
            mine = slice(row * tokens, (row + 1) * tokens)
            if kind == "multinomial_exponential":
                recorded[randomness.TOKEN_DRAW, int(number), 0] = tensor[row]
            elif kind == "gumbel_exponential":
                recorded[randomness.GUMBEL, int(number), 0] = tensor[row]
            elif kind == "diffusion_initial":
                recorded[randomness.DIFFUSION_START, last, 0] = tensor[mine]
            elif kind == "diffusion_step":
                recorded[randomness.DIFFUSION_STEP, last, int(number)] = tensor[mine]
        return RecordedNoise(recorded)

    def begin(self, generator: Generator) -> list[GenerationState]:
        conditioning = self.conditioning()
        return [generator.begin(conditioning[row], self.noise(row), self.settings) for row in range(self.batch)]


def branches(tensor: Tensor) -> Tensor:
    """Rows (n, branches, ...) as the cases have them: all conditional ones, then all unconditional ones."""
    return tensor.transpose(0, 1).flatten(0, 1)


def computed(expected: Tensor, found: Tensor) -> Tensor:
    """The expected rows of the branches that were computed: without guidance the conditional ones alone."""
    return expected[: len(found)]


def difference(found: Tensor, expected: Tensor) -> float:
    """The maximum absolute difference; shapes must agree."""
    assert found.shape == expected.shape
    return float((found.float() - expected.float()).abs().max())


def finish(generator: Generator, states: list[GenerationState]) -> Tensor:
    """Advance states together to the end and release them. Returns their latents (n, Z, N, N)."""
    while states[0].scale < generator.scales:
        generator.advance(states)
    for state in states:
        generator.release(state)
    return torch.stack([state.latent for state in states])
