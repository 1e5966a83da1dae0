"""Language models in transformers' format, read whole or not at all. Knows no use of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer
from transformers.utils import logging as transformers_logging

from model.errors import CheckpointError
from model.weights import misfit

TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model")
PASSED_OVER = ("lm_head.*", "*.rotary_emb.inv_freq")
"""Keys that files hold besides the model's own: a head that is not asked for, tables that follow from the config."""


def load_pretrained(
    auto: Any, folder: Path, what: str, expected: str, dtype: torch.dtype, device: torch.device | str, attention: str
) -> tuple[Any, Any]:
    """The network of a transformers auto class, on the device, and its tokenizer.

    Raises CheckpointError naming the folder and what is wrong: transformers by itself fills a missing weight with
    random numbers, makes an empty tokenizer where there is none, and goes on. `what` and `expected` name the model and
    its format in the message.
    """
    if not (folder / "config.json").exists():
        raise CheckpointError(f"{folder}: no {what} here (config.json is missing); expected {expected}")
    if not any((folder / file).exists() for file in TOKENIZERS):
        raise CheckpointError(f"{folder}: no tokenizer here; expected one of {', '.join(TOKENIZERS)}")
    try:
        with _quiet():
            network, report = auto.from_pretrained(
                folder,
                dtype=dtype,
                attn_implementation=attention,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported below, by name
            )
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever the readers of five file formats raise: all of it is about these files
        raise CheckpointError(f"{folder}: the {what} cannot be read: {error or repr(error)}") from error
    _check(folder, report)
    return network.to(device), tokenizer


def _check(folder: Path, report: dict[str, Any]) -> None:
    """Refuses a network whose weights are not exactly what its config asks for."""
    unexpected = {key for key in report["unexpected_keys"] if not any(fnmatch(key, known) for known in PASSED_OVER)}
    told = misfit(set(report["missing_keys"]), unexpected)
    if told:
        raise CheckpointError(f"{folder}: the weights do not fit config.json; {told}")
    for key, found, wanted in sorted(report["mismatched_keys"]):
        raise CheckpointError(f"{folder}: {key} has shape {tuple(found)}, config.json asks for {tuple(wanted)}")


@contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' progress bar and its own report, which `_check` turns into an error."""
    transformers_logging.disable_progress_bar()
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(before)
