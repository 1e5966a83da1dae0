"""Inspects a checkpoint folder by loading each of its parts with the loader that the stages use."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn

from common.stages import AR_GENERATOR, DECODER, SAFETY, STAGES, TEXT_ENCODER
from model.checkpoint import Checkpoint
from model.errors import ModelError
from model.kv_cache import KVCache

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WANTED = {
    AR_GENERATOR.part: "config.json; ema_model.safetensors or .bin, whole or in shards with an index",
    DECODER.part: "config.json; model.safetensors or pytorch_model.bin",
    TEXT_ENCODER.part: "a Qwen2 in transformers' format with its tokenizer; system_prompt.txt if trained with one",
    SAFETY.part: "a ShieldGemma in transformers' format with its tokenizer; policies.json for policies of your own",
}
"""What each part's folder holds."""
FILES = {
    "generation.json": "sampling defaults, else the released model's",
    "prompts.txt": "prompts to try, one a line",
    "vocabulary.txt": "words of the training, for a warning about others",
}
"""Optional files beside the parts."""


@dataclass
class Part:
    """One part of a checkpoint as it is on the disk, and what its loader says."""

    name: str
    stage: str
    folder: Path
    files: int = 0
    size: int = 0
    """Bytes of its files."""
    parameters: int = 0
    weights: int = 0
    """Bytes of its weights in the precision of the inspection; a few stay in float32 in every one."""
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Inspection:
    """What a folder holds. `checkpoint` is None where it could not be opened; `problems` then says why."""

    folder: Path
    dtype: str
    checkpoint: Checkpoint | None = None
    parts: list[Part] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    slot_bytes: int = 0
    """KV cache of one image."""
    digest: str = ""

    def all_problems(self) -> list[str]:
        """Every problem once, in the order of the parts."""
        return list(dict.fromkeys([*self.problems, *(problem for part in self.parts for problem in part.problems)]))


def inspect(folder: Path, dtype: str) -> Inspection:
    """Load the parts one after another, in a precision of DTYPES. A faulty folder is reported, never raised."""
    found = Inspection(folder, dtype)
    try:
        found.checkpoint = checkpoint = Checkpoint.open(folder)
    except ModelError as error:
        found.problems.append(str(error))
        return found
    precision = DTYPES[dtype]
    loaders: dict[str, Callable[[], nn.Module]] = {
        SAFETY.part: lambda: checkpoint.load_safety(precision).network,
        TEXT_ENCODER.part: lambda: checkpoint.load_text_encoder(precision).network,
        AR_GENERATOR.part: lambda: checkpoint.load_transformer(precision),
        DECODER.part: lambda: checkpoint.load_tokenizer(precision),
    }
    for stage in STAGES.values():
        found.parts.append(_part(stage.part, stage.name, getattr(checkpoint, stage.part), loaders[stage.part]))
    _read_the_rest(found, checkpoint)
    return found


def _part(name: str, stage: str, folder: Path, load: Callable[[], nn.Module]) -> Part:
    part = Part(name, stage, folder)
    paths = [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else []
    part.files, part.size = len(paths), sum(path.stat().st_size for path in paths)
    with _warnings(part.notes):
        try:
            tensors = [*(network := load()).parameters(), *network.buffers()]
            part.parameters = sum(tensor.numel() for tensor in network.parameters())
            part.weights = sum(tensor.numel() * tensor.itemsize for tensor in tensors)
            del tensors, network
        except (ModelError, OSError) as error:
            part.problems = str(error).splitlines()
    gc.collect()  # the next part needs the memory
    return part


def _read_the_rest(found: Inspection, checkpoint: Checkpoint) -> None:
    """The checks of files beside the parts, and the figures that several parts give together."""
    for read in (lambda: checkpoint.sampling_defaults, checkpoint.known_prompts, checkpoint.vocabulary):
        try:
            read()
        except ModelError as error:
            found.problems.extend(str(error).splitlines())
    if not found.all_problems():
        found.slot_bytes = KVCache.bytes_per_slot(checkpoint.transformer_config, DTYPES[found.dtype])
        found.digest = checkpoint.digest


class _Notes(logging.Handler):
    def __init__(self, notes: list[str]) -> None:
        super().__init__(logging.WARNING)
        self.notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        self.notes.append(record.getMessage())


@contextmanager
def _warnings(notes: list[str]) -> Iterator[None]:
    """Collects the loader's warnings."""
    log, handler = logging.getLogger("model"), _Notes(notes)
    log.addHandler(handler)
    propagated, log.propagate = log.propagate, False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagated
