"""An inspection as text: parts and files, problems, memory by stage, settings that serve the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from common.stages import AR_GENERATOR
from deploy.checkpoint.inspection import FILES, WANTED, Inspection, Part

IMAGES = 8
"""Images in progress that the printed settings leave memory for: HART_MAX_BATCH's default."""


def lines(found: Inspection) -> Iterator[str]:
    """The report, line by line."""
    yield f"{found.folder.resolve()}{f': {found.checkpoint.name}' if found.checkpoint else ''}"
    if found.checkpoint is None:
        yield from _layout()
    else:
        yield from _table(found)
    yield from (f"note: {note}" for part in found.parts for note in part.notes)
    problems = found.all_problems()
    yield from (f"problem: {problem}" for problem in problems)
    if problems:
        yield f"{len(problems)} problem{'s' if len(problems) > 1 else ''}: this folder cannot be served"
    else:
        yield from _serving(found)


def _layout() -> Iterator[str]:
    yield "a checkpoint folder holds:"
    for name, wanted in WANTED.items():
        yield f"  {name + '/':<16}{wanted}"
    for name, purpose in FILES.items():
        yield f"  {name:<16}optional: {purpose}"


def _table(found: Inspection) -> Iterator[str]:
    yield f"{'part':<15}{'stage':<14}{'files':>6}{'on disk':>11}{'parameters':>12}  weights in {found.dtype}"
    for part in found.parts:
        known = f"{_count(part.parameters):>12}  {_bytes(part.weights)}" if not part.problems else f"{'not loaded':>12}"
        yield f"{part.name + '/':<15}{part.stage:<14}{part.files:>6}{_bytes(part.size):>11}{known}"
    for part in found.parts:
        if part.problems:
            yield f"{part.name}/ holds: {WANTED[part.name]}"


def _serving(found: Inspection) -> Iterator[str]:
    checkpoint = found.checkpoint
    assert checkpoint is not None  # noqa: S101 - no problems
    config, tokenizer = checkpoint.transformer_config, checkpoint.tokenizer_config
    side, weights = tokenizer.image_side, {part.stage: part for part in found.parts}
    generator = weights[AR_GENERATOR.name]
    yield f"digest {found.digest}"
    yield f"images of {side} x {side} pixels in {config.scales} scales; prompts of up to {config.context_token} tokens"
    cache = IMAGES * found.slot_bytes
    yield f"memory of weights by stage, in {found.dtype}: " + ", ".join(_held(part) for part in found.parts)
    yield f"KV cache of {AR_GENERATOR.name}: {_bytes(found.slot_bytes)} an image, {_bytes(cache)} for {IMAGES}"
    yield f"{AR_GENERATOR.name} with both: {_bytes(generator.weights + cache)}; docs/operations.md, Size, has the rest"
    yield "serve it on this machine:"
    settings = {"CHECKPOINT": checkpoint.llm.resolve().parent, "DTYPE": found.dtype, "KV_CACHE_BYTES": cache}
    yield "  " + " ".join(f"HART_{name}={value}" for name, value in settings.items()) + " make up"
    yield "serve it by the chart, from a claim that holds the folder:"
    yield f"  defaults: {{settings: {{dtype: {found.dtype}}}, model: {{source: claim, claim: {{name: CLAIM}}, " + (
        f"folder: {checkpoint.name}}}}}"
    )
    yield f"  stages: {{{AR_GENERATOR.name}: {{settings: {{kv_cache_bytes: {cache}}}}}}}"


def _held(part: Part) -> str:
    return f"{part.stage} {_bytes(part.weights)}"


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.2f} GB"


def _count(number: float) -> str:
    return f"{number / 1e6:,.1f} M"
