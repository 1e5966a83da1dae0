"""Loads language models in transformers' format, and refuses incomplete ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError
from model.slim import slim_torch
from model.weights import key_difference

with slim_torch():
    from transformers import AutoTokenizer, GenerationMixin, PreTrainedModel  # noqa: F401 - what every network imports
    from transformers.utils import logging as transformers_logging

TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
IGNORED = ("lm_head.*", "*.rotary_emb.inv_freq")
"""Extra keys that a file may hold: an unused head, and tables computed from the config."""


def load_pretrained(
    auto: Any, folder: Path, what: str, expected: str, dtype: torch.dtype, device: torch.device | str, attention: str
) -> tuple[Any, Any]:
    """The network of a transformers auto class, on the device, and its tokenizer.

    Raises CheckpointError that names the folder and the problem. transformers alone would initialise missing weights
    randomly and substitute an empty tokenizer. `what` and `expected` name the model and its format in the message.
    """
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder}: no {what} here: config.json is missing; expected {expected}")
    if not any((folder / file).exists() for file in TOKENIZERS):
        raise CheckpointError(f"{folder}: no tokenizer here; expected one of {', '.join(TOKENIZERS)}")
    try:
        with _quiet(), slim_torch():
            network, report = auto.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # readers of five file formats raise many types, all about these files
        raise CheckpointError(f"{folder}: cannot read the {what}: {error or repr(error)}") from error
    _check(folder, report)
    return network.to(device), tokenizer


def _check(folder: Path, report: dict[str, Any]) -> None:
    """Raises CheckpointError if the weights do not match the config exactly."""
    unexpected = {key for key in report["unexpected_keys"] if not any(fnmatch(key, known) for known in IGNORED)}
    difference = key_difference(set(report["missing_keys"]), unexpected)
    if difference:
        raise CheckpointError(f"{folder}: the weights do not match config.json; {difference}")
    for key, found, expected in sorted(report["mismatched_keys"]):
        raise CheckpointError(f"{folder}: {key} has shape {tuple(found)}, config.json requires {tuple(expected)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Disables transformers' progress bar and load report; `_check` raises an error instead."""
    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
