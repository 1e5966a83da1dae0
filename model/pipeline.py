"""The whole model in one process, without gRPC: safety check, text encoding, generation, decoding."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch

from common import seeds
from common.image_formats import DEFAULT_FORMAT
from common.limits import DEFAULT_QUALITY
from common.recipe import Recipe
from model import engines
from model import noise as randomness
from model.checkpoint import Checkpoint
from model.device import AUTO, Compute
from model.errors import NotFiniteError, UnsafePromptError
from model.finite import require_finite
from model.generation import GenerationState, Generator
from model.image_file import encode
from model.params import SamplingParams
from model.pixels import Pixels, quantize, to_pixels
from model.prompt import checked_prompt
from model.safety import SafetyClassifier, Verdict
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.version import versions


@dataclass(frozen=True)
class GeneratedImage:
    """A generated image and its metadata."""

    pixels: Pixels
    """(H, W, 3), uint8."""
    recipe: Recipe
    verdict: Verdict | None
    """None if no safety model is loaded."""
    prompt_tokens: int
    prompt_truncated: bool

    def to_bytes(
        self, format: str = DEFAULT_FORMAT.name, quality: int = DEFAULT_QUALITY, metadata: bool = True
    ) -> bytes:
        """The image as a PNG, JPEG or WEBP file. Raises SettingError."""
        return encode(self.pixels, format, quality, self.recipe.to_json() if metadata else None)


class Pipeline:
    """Generates one image at a time, on one device. `safety` None: prompts are not checked."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        text_encoder: TextEncoder,
        generator: Generator,
        tokenizer: HybridTokenizer,
        safety: SafetyClassifier | None,
    ) -> None:
        self.checkpoint, self.text_encoder, self.generator = checkpoint, text_encoder, generator
        self.tokenizer, self.safety = tokenizer, safety

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        safety: bool = True,
        slots: int = 1,
        engine: str = AUTO,
    ) -> Self:
        """Loads every part of a checkpoint folder. `slots` is the max number of images in flight; `engine` is a name of
        model.engines.

        Raises CheckpointError or ConfigError that names the file and the problem, SettingError for the engine.
        """
        compute = Compute(torch.device(device), dtype, threads=0)
        engine = engines.choose(engine, compute)
        checkpoint = Checkpoint.open(folder)
        tokenizer = checkpoint.load_tokenizer(dtype, device, parts=("quantize", "post_quant_conv", "decoder"))
        generator = Generator(checkpoint.load_transformer(dtype, device), tokenizer.quantize, slots)
        engines.speed_up_generator(generator, engine, compute)
        engines.speed_up_decoder(tokenizer, engine, compute)
        return cls(
            checkpoint,
            checkpoint.load_text_encoder(dtype, device),
            generator,
            tokenizer,
            checkpoint.load_safety(dtype, device) if safety else None,
        )

    def draw(
        self,
        prompt: str,
        seed: int | None = None,
        params: SamplingParams | None = None,
        on_scale: Callable[[GenerationState], None] | None = None,
    ) -> GeneratedImage:
        """Generates one image. Calls `on_scale` with the state after every scale.

        Raises SettingError for an invalid prompt or seed, UnsafePromptError if the prompt violates a policy,
        NotFiniteError if a network output is NaN or infinite.
        """
        prompt = checked_prompt(prompt)
        params = params or self.checkpoint.sampling_defaults
        seed = seeds.draw_seed() if seed is None else randomness.whole(seed)
        noise = randomness.SeededNoise(seed, self.generator.device)
        verdict = self.safety.check([prompt])[0] if self.safety else None
        if verdict and verdict.violated:
            raise UnsafePromptError(verdict.violated)
        encoded = self.text_encoder.encode([prompt])
        state = self.generator.begin(encoded.conditioning[0], noise, params)
        try:
            while state.scale < self.generator.scales:
                self.generator.advance([state])
                if on_scale:
                    on_scale(state)
        finally:
            self.generator.release(state)
        require_finite(state.latent, "the latent")
        recipe = Recipe(
            prompt=prompt,
            seed=seed,
            guidance=params.guidance,
            more_smooth=params.more_smooth,
            top_p=params.top_p,
            residual_temperature=params.residual_temperature,
            model=self.checkpoint.name,
            digest=self.checkpoint.digest,
            versions=versions(),
        )
        return GeneratedImage(
            self.pixels_of(state.latent), recipe, verdict, encoded.prompt_tokens[0], encoded.truncated[0]
        )

    @torch.inference_mode()
    def pixels_of(self, latent: torch.Tensor) -> Pixels:
        """A latent (Z, N, N) to pixels (H, W, 3). Raises NotFiniteError."""
        [found] = to_pixels(*quantize(self.tokenizer.decode(latent[None])))
        if isinstance(found, NotFiniteError):
            raise found
        return found
