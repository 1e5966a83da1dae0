"""The parts of a checkpoint's folder, put together from where they were made. Knows no training."""

import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from model.errors import CheckpointError
from model.vocabulary import WORD

PARTS = {"llm": "transformer", "tokenizer": "tokenizer", "text_encoder": "text encoder", "safety": "safety model"}
MOST_PROMPTS = 1000
"""Known prompts are told whole to everybody who asks what a checkpoint knows."""


def copy_parts(folder: Path, sources: Mapping[str, Path]) -> None:
    """Copies parts in the place of what was there. Raises CheckpointError, touching nothing, if one is missing."""
    for part, source in sources.items():
        if not (source / "config.json").exists():
            raise CheckpointError(f"{source}: no {PARTS[part]} here (config.json is missing); train it first")
    for part, source in sources.items():
        if (folder / part).resolve() == source.resolve():
            continue
        shutil.rmtree(folder / part, ignore_errors=True)
        shutil.copytree(source, folder / part)
        for path in (folder / part).iterdir():
            if path.is_file():
                path.chmod(0o644)


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def write_words(folder: Path, words: Sequence[Sequence[str]]) -> None:
    """prompts.txt (pictures' first captions, each once) and vocabulary.txt (every word of all captions)."""
    prompts = list(dict.fromkeys(" ".join(captions[0].split()) for captions in words))
    shown = [prompts[i * len(prompts) // MOST_PROMPTS] for i in range(MOST_PROMPTS)]
    _write_lines(folder / "prompts.txt", prompts if len(prompts) <= MOST_PROMPTS else shown)
    texts = [caption.lower().replace("’", "'") for captions in words for caption in captions]
    known = {word for text in texts for word in WORD.findall(text)}
    known |= {sign for text in texts for sign in text if unicodedata.category(sign) == "So"}
    _write_lines(folder / "vocabulary.txt", sorted(known))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
