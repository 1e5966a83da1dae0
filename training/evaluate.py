"""Measures a checkpoint as its card quotes it; reads it through the same pipeline as everybody else.

`python -m training.evaluate checkpoints/NAME` prints a table and writes it, as Markdown and JSON, with two sheets of 64
pictures (training prompts, prompts never trained on), to `.cache/training/evaluation/NAME/`.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint
from model.errors import UnsafePromptError
from model.generation import Settings
from model.pipeline import Pipeline
from training.data import Pictures, load_pictures
from training.images import psnr, to_signed
from training.likeness import Likeness, recall
from training.probes import Probe, known_things, paraphrase_probes, training_probes
from training.sheet import save_sheet

OUT = Path(".cache/training/evaluation")
SHEET = 64


class Judge:
    """Says whether a picture shows the right thing: the nearest picture of the whole data set does, in any style."""

    def __init__(self, pictures: Pictures) -> None:
        self.codes = [thing.hexcode for thing in pictures.things]
        self.likeness = Likeness.fit(pictures.pixels)
        self.recall = recall(self.likeness, pictures.pixels, self.codes)

    def right(self, pixels: NDArray[np.uint8], probes: Sequence[Probe]) -> list[bool]:
        """uint8 (n, side, side, 3) and what they should show -> whether each does."""
        nearest = self.likeness.nearest(pixels)
        return [self.codes[found] == probe.hexcode for found, probe in zip(nearest, probes, strict=True)]


def draw(pipeline: Pipeline, probes: Sequence[Probe], settings: Settings, name: str) -> tuple[NDArray[np.uint8], int]:
    """One picture a probe (seed = its number), and how many were refused; a refused one is white."""
    drawn: list[NDArray[np.uint8]] = []
    refused = []
    for seed, probe in enumerate(tqdm(probes, desc=name)):
        try:
            drawn.append(pipeline.draw(probe.prompt, seed=seed, settings=settings).pixels)
        except UnsafePromptError:
            refused.append(seed)
    blank = np.full_like(drawn[0], 255)
    for seed in refused:
        drawn.insert(seed, blank)
    return np.stack(drawn), len(refused)


@torch.inference_mode()
def tokenizer_figures(
    checkpoint: Checkpoint, pictures: Pictures, styles: set[str], batch: int = 32
) -> dict[str, float]:
    """Mean PSNR in dB on held-out art of the styles: from the continuous latent and from the discrete codes alone."""
    tokenizer = checkpoint.load_tokenizer()
    rows = [int(i) for i in pictures.held_out if pictures.things[int(i)].style in styles]
    continuous, discrete = [], []
    for start in range(0, len(rows), batch):
        signed = to_signed(pictures.pixels[rows[start : start + batch]])
        code = tokenizer.encode(signed)
        truth = (signed + 1) / 2
        continuous.append(psnr(tokenizer.decode(code.features), truth))
        discrete.append(psnr(tokenizer.decode(tokenizer.latent_of(code.indices)), truth))
    return {
        "held_out_pictures": len(rows),
        "psnr_continuous": float(torch.cat(continuous).mean()),
        "psnr_discrete": float(torch.cat(discrete).mean()),
    }


def prompt_figures(
    pipeline: Pipeline, judge: Judge, probes: Sequence[Probe], name: str, folder: Path
) -> dict[str, float]:
    """Share of right pictures at default settings, over all and by kind of prompt; writes the sheet."""
    pixels, refused = draw(pipeline, probes, Settings(), name)
    right = judge.right(pixels, probes)
    labels = [("" if fine else "x ") + probe.prompt for fine, probe in zip(right, probes, strict=True)]
    save_sheet(folder / f"{name}.png", pixels[:SHEET], columns=8, labels=labels[:SHEET])
    figures = {"count": float(len(probes)), "right": float(np.mean(right)), "refused": float(refused)}
    for kind in sorted({probe.kind for probe in probes}):
        chosen = [fine for fine, probe in zip(right, probes, strict=True) if probe.kind == kind]
        figures[f"right_{kind}"] = float(np.mean(chosen))
    return figures


def settings_figures(pipeline: Pipeline, judge: Judge, probes: Sequence[Probe]) -> dict[str, float]:
    """Share of right pictures for other settings, on the same prompts and seeds."""
    choices = {
        "default": Settings(),
        "discrete": Settings(smooth=False),
        "guidance_0": Settings(guidance=0),
        "guidance_2": Settings(guidance=2),
        "guidance_8": Settings(guidance=8),
        "discrete_guidance_2": Settings(guidance=2, smooth=False),
    }
    return {
        name: float(np.mean(judge.right(draw(pipeline, probes, chosen, name)[0], probes)))
        for name, chosen in choices.items()
    }


def safety_figures(pipeline: Pipeline) -> dict[str, Any]:
    """Recall and false alarms on prompts kept from training; needs the word lists."""
    from training.safety import Prompts, measure

    return measure(pipeline.safety, Prompts()) if pipeline.safety else {}


def evaluate(folder: Path, count: int, out: Path, safety: bool = True) -> dict[str, Any]:
    """Everything that the card quotes, as nested figures."""
    pipeline = Pipeline.load(folder, safety=safety)
    pictures = load_pictures(128)
    known = known_things(pictures.things, pipeline.checkpoint.known_prompts(), pipeline.checkpoint.known_words())
    if not known:
        raise SystemExit(f"{folder}: prompts.txt names no thing of the data set; nothing can be measured")
    config = pipeline.checkpoint.tokenizer_config
    side = config.v_patch_nums[-1] * 2 ** (len(config.ch_mult) - 1)
    judge = Judge(pictures)
    styles = {thing.style for thing in known}
    trained, paraphrased = training_probes(known, count), paraphrase_probes(known, count)
    return {
        "checkpoint": pipeline.checkpoint.name,
        "digest": pipeline.checkpoint.digest,
        "things": len({thing.hexcode for thing in known}),
        "styles": sorted(styles),
        "side": side,
        "judge_recall": judge.recall,
        "tokenizer": tokenizer_figures(pipeline.checkpoint, load_pictures(side), styles),
        "training_prompts": prompt_figures(pipeline, judge, trained, "training-prompts", out),
        "unseen_prompts": prompt_figures(pipeline, judge, paraphrased, "unseen-prompts", out),
        "settings": settings_figures(pipeline, judge, trained[: count // 2]),
        "safety": safety_figures(pipeline) if safety else {},
    }


def as_markdown(figures: dict[str, Any]) -> str:
    """Nested figures as one table, dotted names on the left."""
    rows: list[str] = []

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{prefix}.{key}" if prefix else key, inner)
            return
        shown = f"{value:.4g}" if isinstance(value, float) else ", ".join(value) if isinstance(value, list) else value
        rows.append(f"| {prefix} | {shown} |")

    walk("", figures)
    return "\n".join(["| figure | value |", "|---|---|", *rows]) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description="Measure a checkpoint.")
    parser.add_argument("checkpoint", type=Path, help="folder of the checkpoint")
    parser.add_argument("--count", type=int, default=200, help="prompts of each kind")
    parser.add_argument("--out", type=Path, default=OUT, help="where figures and sheets go")
    parser.add_argument("--no-safety", action="store_true", help="leave the safety figures out")
    arguments = parser.parse_args()
    folder = arguments.out / arguments.checkpoint.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    figures = evaluate(arguments.checkpoint, arguments.count, folder, not arguments.no_safety)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "figures.md").write_text(as_markdown(figures))
    print(as_markdown(figures))


if __name__ == "__main__":
    main()
