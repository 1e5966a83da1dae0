"""Measures a checkpoint as its card quotes it; reads it through the same pipeline as everybody else.

`python -m training.evaluate checkpoints/NAME` prints a table and writes it, as Markdown and JSON, with three sheets of
64 pictures (training prompts, prompts never trained on, scenes), to `.cache/training/evaluation/NAME/`.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from model.checkpoint import Checkpoint
from model.errors import UnsafePromptError
from model.generation import SamplingParams
from model.pipeline import Pipeline
from training.data import Pictures, load_pictures, subset
from training.ending import run_command
from training.images import psnr, to_signed
from training.judge import Judge
from training.probes import Probe, known_things, paraphrase_probes, training_probes
from training.scenes import plan
from training.sheet import save_sheet

OUT = Path(".cache/training/evaluation")
SHEET = 64
SCENE_SEED = 3


def draw(
    pipeline: Pipeline, prompts: Sequence[str], params: SamplingParams, name: str
) -> tuple[NDArray[np.uint8], int]:
    """One picture a prompt (seed = its number), and how many were refused; a refused one is white."""
    drawn: list[NDArray[np.uint8]] = []
    refused = []
    for seed, prompt in enumerate(tqdm(prompts, desc=name)):
        try:
            drawn.append(pipeline.draw(prompt, seed=seed, params=params).pixels)
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
    pixels, refused = draw(pipeline, [probe.prompt for probe in probes], SamplingParams(), name)
    right = judge.right(pixels, probes)
    labels = [("" if fine else "x ") + probe.prompt for fine, probe in zip(right, probes, strict=True)]
    save_sheet(folder / f"{name}.png", pixels[:SHEET], columns=8, labels=labels[:SHEET])
    figures = {"count": float(len(probes)), "right": float(np.mean(right)), "refused": float(refused)}
    for kind in sorted({probe.kind for probe in probes}):
        chosen = [fine for fine, probe in zip(right, probes, strict=True) if probe.kind == kind]
        figures[f"right_{kind}"] = float(np.mean(chosen))
    return figures | judge.style_figures(pixels, probes)


def scene_figures(pipeline: Pipeline, judge: Judge, known: Pictures, count: int, folder: Path) -> dict[str, float]:
    """Scenes of known things that no training has seen: whether the ground has its colour, and each thing is there.

    Things are looked for on white grounds alone, which is where the judge's own pictures lie.
    """
    rng = np.random.default_rng(SCENE_SEED)
    scenes = [plan(known, rng) for _ in range(count)]
    captions = [scene.caption for scene in scenes]
    pixels, refused = draw(pipeline, captions, SamplingParams(), "scenes")
    grounds = [judge.ground(picture) == scene.ground for picture, scene in zip(pixels, scenes, strict=True)]
    coloured = [right for right, scene in zip(grounds, scenes, strict=True) if scene.ground != "white"]
    there = [judge.things_there(p, s, known) for p, s in zip(pixels, scenes, strict=True) if s.ground == "white"]
    save_sheet(folder / "scenes.png", pixels[:SHEET], columns=8, labels=captions[:SHEET])
    return {
        "count": float(count),
        "refused": float(refused),
        "ground_right": float(np.mean(grounds)),
        "coloured_ground_right": float(np.mean(coloured)),
        "things_right": float(np.mean(np.concatenate(there))),
    }


def settings_figures(pipeline: Pipeline, judge: Judge, probes: Sequence[Probe]) -> dict[str, float]:
    """Share of right pictures for other settings, on the same prompts and seeds."""
    prompts = [probe.prompt for probe in probes]
    choices = {
        "default": SamplingParams(),
        "discrete": SamplingParams(more_smooth=False),
        "guidance_0": SamplingParams(guidance=0),
        "guidance_2": SamplingParams(guidance=2),
        "guidance_8": SamplingParams(guidance=8),
        "discrete_guidance_2": SamplingParams(guidance=2, more_smooth=False),
    }
    return {
        name: float(np.mean(judge.right(draw(pipeline, prompts, chosen, name)[0], probes)))
        for name, chosen in choices.items()
    }


def safety_figures(pipeline: Pipeline) -> dict[str, Any]:
    """Recall and false alarms on prompts kept from training; needs the word lists."""
    from training.safety_corpus import Prompts
    from training.safety_quality import measure

    return measure(pipeline.safety, Prompts()) if pipeline.safety else {}


def evaluate(folder: Path, count: int, out: Path, safety: bool = True) -> dict[str, Any]:
    """Everything that the card quotes, as nested figures."""
    pipeline = Pipeline.load(folder, safety=safety)
    pictures = load_pictures(128)
    known = known_things(pictures.things, pipeline.checkpoint.known_prompts(), pipeline.checkpoint.vocabulary().known)
    if not known:
        raise SystemExit(f"{folder}: prompts.txt names no thing of the data set; nothing can be measured")
    config = pipeline.checkpoint.tokenizer_config
    side = config.v_patch_nums[-1] * 2 ** (len(config.ch_mult) - 1)
    judge = Judge(pictures)
    styles = {thing.style for thing in known}
    of_side = load_pictures(side)
    trained, paraphrased = training_probes(known, count), paraphrase_probes(known, count)
    return {
        "checkpoint": pipeline.checkpoint.name,
        "digest": pipeline.checkpoint.digest,
        "things": len({thing.hexcode for thing in known}),
        "styles": sorted(styles),
        "side": side,
        "judge_recall": judge.recall,
        "tokenizer": tokenizer_figures(pipeline.checkpoint, of_side, styles),
        "training_prompts": prompt_figures(pipeline, judge, trained, "training-prompts", out),
        "unseen_prompts": prompt_figures(pipeline, judge, paraphrased, "unseen-prompts", out),
        "scenes": scene_figures(pipeline, judge, subset(of_side, known), count // 2, out),
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
    Checkpoint.open(arguments.checkpoint)
    folder = arguments.out / arguments.checkpoint.resolve().name
    folder.mkdir(parents=True, exist_ok=True)
    figures = evaluate(arguments.checkpoint, arguments.count, folder, not arguments.no_safety)
    (folder / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (folder / "figures.md").write_text(as_markdown(figures))
    print(as_markdown(figures))


if __name__ == "__main__":
    sys.exit(run_command(main))
