"""Measures a bundle, with the figures that its card quotes.

`python -m training.recipes.emoji.evaluate checkpoints/NAME` prints a table and writes it, as Markdown and JSON, with
sample grids of 64 images (training prompts, prompts never trained on, scenes), to `RUNS/evaluation/NAME/`. Parts and
settings that are finished are read from there, so an interrupted evaluation resumes. `--full` measures 200 prompts and
the whole grid of settings, as the card does.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint
from model.errors import UnsafePromptError
from model.params import SamplingParams
from model.pipeline import Pipeline
from training.core.cli import run_command
from training.core.images import psnr, to_signed
from training.core.options import OptionError, add_runs, count
from training.core.sample_grid import save_sample_grid
from training.data.packages import CACHE
from training.recipes.emoji.images import EmojiImages, load_images, subset
from training.recipes.emoji.nearest_neighbour import NearestNeighbour
from training.recipes.emoji.probes import Probe, known_concepts, paraphrase_probes, training_probes
from training.recipes.emoji.scenes import plan
from training.recipes.emoji.settings_grid import FULL, SMALL, Results, grid_figures, grid_table, targets_of
from training.transformer.evaluate import teacher_forced_figures

GRID_IMAGES = 64
SCENE_SEED = 3
SMALL_COUNT, FULL_COUNT = 32, 200
SIDE_OF_JUDGE = 128


@dataclass(frozen=True)
class Subject:
    """A checkpoint to measure, the images it knows, and what classifies its images."""

    pipeline: Pipeline
    folder: Path
    """Of the evaluation."""
    count: int
    full: bool
    settings: SamplingParams = field(default_factory=SamplingParams)
    """Of the prompts and scenes."""
    data: Path = CACHE

    @property
    def side(self) -> int:
        return self.pipeline.checkpoint.tokenizer_config.image_side

    @cached_property
    def judge(self) -> NearestNeighbour:
        return NearestNeighbour(load_images(SIDE_OF_JUDGE, cache=self.data))

    @cached_property
    def images(self) -> EmojiImages:
        """All images, at the checkpoint's side."""
        return load_images(self.side, cache=self.data)

    @cached_property
    def known(self) -> EmojiImages:
        """Those that it was trained on. Raises OptionError if there are none."""
        checkpoint = self.pipeline.checkpoint
        concepts = known_concepts(self.images.concepts, checkpoint.known_prompts(), checkpoint.vocabulary().known)
        if not concepts:
            raise OptionError(f"{checkpoint.llm.parent}: prompts.txt names no concept of the data set")
        return subset(self.images, concepts)


def draw(
    pipeline: Pipeline, prompts: Sequence[str], settings: SamplingParams, name: str
) -> tuple[NDArray[np.uint8], int]:
    """One image a prompt (seed = its number), and the number of refusals; a refused image is white."""
    drawn: list[NDArray[np.uint8]] = []
    refused = []
    for seed, prompt in enumerate(tqdm(prompts, desc=name)):
        try:
            drawn.append(pipeline.draw(prompt, seed=seed, params=settings).pixels)
        except UnsafePromptError:
            refused.append(seed)
    blank = np.full_like(drawn[0], 255)
    for seed in refused:
        drawn.insert(seed, blank)
    return np.stack(drawn), len(refused)


def general_figures(subject: Subject) -> dict[str, Any]:
    """What the checkpoint knows, and how reliable the judge is."""
    concepts = subject.known.concepts
    return {
        "concepts": len({concept.hexcode for concept in concepts}),
        "styles": sorted({concept.style for concept in concepts}),
        "side": subject.side,
        "judge_recall": subject.judge.recall,
    }


@torch.inference_mode()
def tokenizer_figures(subject: Subject, batch: int = 32) -> dict[str, float]:
    """Mean PSNR in dB on held-out art of the known styles: from the continuous latent and from the discrete one."""
    tokenizer, images = subject.pipeline.checkpoint.load_tokenizer(), subject.images
    styles = {concept.style for concept in subject.known.concepts}
    rows = [int(i) for i in images.held_out if images.concepts[int(i)].style in styles]
    continuous, discrete = [], []
    for start in range(0, len(rows), batch):
        signed = to_signed(images.pixels[rows[start : start + batch]])
        code = tokenizer.encode(signed)
        truth = (signed + 1) / 2
        continuous.append(psnr(tokenizer.decode(code.features), truth))
        discrete.append(psnr(tokenizer.decode(tokenizer.latent_of(code.indices)), truth))
    return {
        "held_out_images": len(rows),
        "psnr_continuous": float(torch.cat(continuous).mean()),
        "psnr_discrete": float(torch.cat(discrete).mean()),
    }


def residual_figures(subject: Subject) -> dict[str, float]:
    """The residual head under teacher forcing, on known images."""
    pipeline = subject.pipeline
    targets = targets_of(subject.known, 2 * subject.count)
    return teacher_forced_figures(
        pipeline.generator.transformer,
        pipeline.checkpoint.load_tokenizer(),
        pipeline.text_encoder,
        targets.pixels,
        targets.prompts,
    )


def prompt_figures(subject: Subject, probes: Sequence[Probe], name: str) -> dict[str, float]:
    """Share of right images, over all and by kind of prompt; writes a sample grid."""
    pixels, refused = draw(subject.pipeline, [probe.prompt for probe in probes], subject.settings, name)
    right = subject.judge.right(pixels, probes)
    labels = [("" if fine else "x ") + probe.prompt for fine, probe in zip(right, probes, strict=True)]
    save_sample_grid(subject.folder / f"{name}.png", pixels[:GRID_IMAGES], columns=8, labels=labels[:GRID_IMAGES])
    figures = {"count": float(len(probes)), "right": float(np.mean(right)), "refused": float(refused)}
    for kind in sorted({probe.kind for probe in probes}):
        chosen = [fine for fine, probe in zip(right, probes, strict=True) if probe.kind == kind]
        figures[f"right_{kind}"] = float(np.mean(chosen))
    return figures | subject.judge.style_figures(pixels, probes)


def scene_figures(subject: Subject) -> dict[str, float]:
    """Scenes of known concepts that no training has seen: the share of right grounds, and of right concepts.

    Concepts are looked for on white grounds alone, like the judge's own images.
    """
    rng, known, judge = np.random.default_rng(SCENE_SEED), subject.known, subject.judge
    scenes = [plan(known, rng) for _ in range(max(1, subject.count // 2))]
    captions = [scene.caption for scene in scenes]
    pixels, refused = draw(subject.pipeline, captions, subject.settings, "scenes")
    grounds = [judge.ground(image) == scene.ground for image, scene in zip(pixels, scenes, strict=True)]
    coloured = [right for right, scene in zip(grounds, scenes, strict=True) if scene.ground != "white"]
    there = [judge.concepts_there(p, s, known) for p, s in zip(pixels, scenes, strict=True) if s.ground == "white"]
    path = subject.folder / "scenes.png"
    save_sample_grid(path, pixels[:GRID_IMAGES], columns=8, labels=captions[:GRID_IMAGES])
    return {
        "count": float(len(scenes)),
        "refused": float(refused),
        "ground_right": float(np.mean(grounds)),
        "coloured_ground_right": float(np.mean(coloured)) if coloured else float("nan"),
        "concepts_right": float(np.mean(np.concatenate(there))) if there else float("nan"),
    }


def settings_figures(subject: Subject) -> dict[str, dict[str, float]]:
    """Known images beside their own art, over the grid of settings."""
    targets = targets_of(subject.known, subject.count)
    path = subject.folder / "grid.json"
    return grid_figures(subject.pipeline, subject.judge, targets, FULL if subject.full else SMALL, path)


def safety_figures(subject: Subject) -> dict[str, Any]:
    """Recall and false alarms on held-out prompts; needs the word lists."""
    from training.recipes.emoji.safety import emoji_prompts
    from training.safety.evaluate import measure

    return measure(subject.pipeline.safety, emoji_prompts()) if subject.pipeline.safety else {}


PARTS: dict[str, Callable[[Subject], Any]] = {
    "general": general_figures,
    "tokenizer": tokenizer_figures,
    "residual": residual_figures,
    "training_prompts": lambda s: prompt_figures(s, training_probes(s.known.concepts, s.count), "training-prompts"),
    "unseen_prompts": lambda s: prompt_figures(s, paraphrase_probes(s.known.concepts, s.count), "unseen-prompts"),
    "scenes": scene_figures,
    "settings": settings_figures,
    "safety": safety_figures,
}


def evaluate(subject: Subject, parts: Sequence[str]) -> dict[str, Any]:
    """The figures of these parts by name; finished ones are read from the folder."""
    checkpoint = subject.pipeline.checkpoint
    measured_on = {"digest": checkpoint.digest, "count": subject.count, "full": subject.full}
    measured_on |= asdict(subject.settings)
    kept = Results(subject.folder / "parts.json", measured_on)
    for part in parts:
        if part not in kept.figures:
            kept.add(part, PARTS[part](subject))
    named = {"checkpoint": checkpoint.name, "digest": checkpoint.digest}
    return named | {part: kept.figures[part] for part in parts}


def as_markdown(figures: dict[str, Any]) -> str:
    """Nested figures as one table, dotted names on the left; the grid of settings as a table of its own."""
    rows: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
            return
        shown = f"{value:.4g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else value
        rows.append(f"| {prefix} | {shown} |")

    walk("", {name: value for name, value in figures.items() if name != "settings"})
    table = "\n".join(["| figure | value |", "|---|---|", *rows]) + "\n"
    return f"{table}\n{grid_table(figures['settings'])}" if "settings" in figures else table


def parse() -> argparse.Namespace:
    """The command's options."""
    parser = argparse.ArgumentParser(prog="python -m training.recipes.emoji.evaluate", description="Measure a bundle.")
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all)")
    parser.add_argument("--count", type=count, help=f"prompts of each kind (default: {SMALL_COUNT})")
    parser.add_argument("--full", action="store_true", help=f"{FULL_COUNT} prompts and the whole grid of settings")
    parser.add_argument("--guidance", type=float, help="(default: the checkpoint's)")
    parser.add_argument("--top-p", type=float, help="(default: the checkpoint's)")
    parser.add_argument("--more-smooth", action=argparse.BooleanOptionalAction, help="(default: the checkpoint's)")
    parser.add_argument("--residual-temperature", type=float, help="(default: the checkpoint's)")
    parser.add_argument("--name", help="of the evaluation's folder (default: the checkpoint's)")
    parser.add_argument("--data", type=Path, default=CACHE, help="folder of built images (default: %(default)s)")
    add_runs(parser)
    return parser.parse_args()


def main() -> None:
    options = parse()
    Checkpoint.open(options.checkpoint)
    folder = options.runs / "evaluation" / (options.name or options.checkpoint.resolve().name)
    folder.mkdir(parents=True, exist_ok=True)
    pipeline = Pipeline.load(options.checkpoint, safety=(options.checkpoint / "safety").is_dir())
    number = options.count or (FULL_COUNT if options.full else SMALL_COUNT)
    chosen = {one.name: getattr(options, one.name) for one in fields(SamplingParams)}
    given = {name: value for name, value in chosen.items() if value is not None}
    settings = replace(pipeline.checkpoint.sampling_defaults, **given)
    subject = Subject(pipeline, folder, number, options.full, settings, options.data)
    figures = evaluate(subject, options.parts)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "figures.md").write_text(as_markdown(figures))
    print(as_markdown(figures))


if __name__ == "__main__":
    sys.exit(run_command(main))
