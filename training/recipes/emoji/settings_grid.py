"""Generated images beside their own art, over a grid of sampling settings."""

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.generation import Generator
from model.params import SamplingParams
from model.pipeline import Pipeline
from training.core.image_metrics import frechet_distance, sharpness, ssim
from training.core.images import psnr
from training.recipes.emoji.captions import plainest
from training.recipes.emoji.concepts import Concept
from training.recipes.emoji.images import EmojiImages
from training.recipes.emoji.nearest_neighbour import NearestNeighbour
from training.transformer.evaluate import draw_with_temperatures

BATCH = 16
TEMPERATURES: tuple[float | None, ...] = (1.0, 0.5, 0.3, 0.0, None)
"""Of the residuals' noise; None: without residuals."""


@dataclass(frozen=True)
class Grid:
    """The settings that are measured: all products."""

    guidance: tuple[float, ...]
    sampling: tuple[tuple[bool, float], ...]
    """Smooth embeddings or drawn rows, and top_p."""

    def __iter__(self) -> Iterator[SamplingParams]:
        for guidance, (more_smooth, top_p) in itertools.product(self.guidance, self.sampling):
            yield SamplingParams(guidance=guidance, more_smooth=more_smooth, top_p=top_p)


SMALL = Grid((0.0, 1.0, 4.5), ((True, 0.0), (False, 0.3)))
FULL = Grid((0.0, 0.5, 1.0, 1.5, 2.0, 4.5), ((True, 0.0), (True, 0.3), (False, 0.0), (False, 0.3), (False, 0.6)))


@dataclass(frozen=True)
class Targets:
    """Known prompts that name concept and style, and the image that each should give."""

    concepts: list[Concept]
    pixels: NDArray[np.uint8]
    """(n, S, S, 3)."""

    @property
    def prompts(self) -> list[str]:
        return [plainest(concept) for concept in self.concepts]


def targets_of(known: EmojiImages, count: int, seed: int = 4) -> Targets:
    """`count` of the known images, at random over all styles."""
    rows = np.random.default_rng(seed).permutation(len(known.concepts))[:count]
    return Targets([known.concepts[i] for i in rows], known.pixels[rows])


def image_figures(drawn: NDArray[np.uint8], targets: Targets, judge: NearestNeighbour) -> dict[str, float]:
    """Images uint8 (n, S, S, 3) beside their targets: mean PSNR (dB), SSIM and sharpness, the Fréchet distance of the
    two sets in the judge's features, and the share whose nearest image of the data set shows the right concept."""
    one, other = (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 for pixels in (drawn, targets.pixels))
    codes = [judge.codes[i] for i in judge.nearest(drawn)]
    right = [code == concept.hexcode for code, concept in zip(codes, targets.concepts, strict=True)]
    return {
        "psnr": float(psnr(one, other).mean()),
        "ssim": float(ssim(one, other).mean()),
        "sharpness": float(sharpness(one, other).mean()),
        "frechet": frechet_distance(judge.embedding.embed(drawn), judge.embedding.embed(targets.pixels)),
        "right": float(np.mean(right)),
    }


def grid_figures(
    pipeline: Pipeline, judge: NearestNeighbour, targets: Targets, grid: Grid, path: Path
) -> dict[str, dict[str, float]]:
    """`image_figures` by setting. Finished settings are read from `path`, new ones are written there."""
    kept = Results(path, {"digest": pipeline.checkpoint.digest, "prompts": targets.prompts})
    slots = min(BATCH, len(targets.concepts))
    generator = Generator(pipeline.generator.transformer, pipeline.tokenizer.quantize, slots)
    for settings in tqdm(list(grid), desc="settings"):
        names = {temperature: name_of(settings, temperature) for temperature in TEMPERATURES}
        missing = [temperature for temperature in TEMPERATURES if names[temperature] not in kept.figures]
        if not missing:
            continue
        images = draw_with_temperatures(
            generator, pipeline.tokenizer, pipeline.text_encoder, targets.prompts, settings, missing
        )
        for temperature, drawn in zip(missing, images, strict=True):
            kept.add(names[temperature], image_figures(drawn, targets, judge))
    wanted = [name_of(settings, temperature) for settings in grid for temperature in TEMPERATURES]
    return {name: kept.figures[name] for name in wanted}


def name_of(settings: SamplingParams, temperature: float | None) -> str:
    """A setting in words: `guidance 1, drawn, top_p 0.3, temperature 0`."""
    kind = "smooth" if settings.more_smooth else "drawn"
    ending = "no residual" if temperature is None else f"temperature {temperature:g}"
    return f"guidance {settings.guidance:g}, {kind}, top_p {settings.top_p:g}, {ending}"


class Results:
    """Figures by name in a file, which holds those of one checkpoint and one list of prompts."""

    def __init__(self, path: Path, measured_on: dict[str, Any]) -> None:
        self._path, self._measured_on = path, measured_on
        self.figures: dict[str, Any] = {}
        if path.exists():
            content = json.loads(path.read_text())
            self.figures = content["figures"] if content["measured_on"] == measured_on else {}

    def add(self, name: str, figures: Any) -> None:
        self.figures[name] = figures
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        partial.write_text(json.dumps({"measured_on": self._measured_on, "figures": self.figures}, indent=1) + "\n")
        partial.replace(self._path)


def grid_table(figures: dict[str, dict[str, float]], best_first: bool = True) -> str:
    """The grid as Markdown, best PSNR first or as it is."""
    columns: Sequence[str] = ("psnr", "ssim", "sharpness", "frechet", "right")
    rows = sorted(figures.items(), key=lambda row: -row[1]["psnr"]) if best_first else figures.items()
    lines = [f"| {name} | " + " | ".join(f"{row[column]:.4g}" for column in columns) + " |" for name, row in rows]
    return "\n".join([f"| setting | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|", *lines]) + "\n"
