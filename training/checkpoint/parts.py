"""Parts of a checkpoint's folder: copying them, their size, and the lists of prompts and words."""

import shutil
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

from common import git_lfs
from model.errors import CheckpointError
from model.vocabulary import WORD

PARTS = {"llm": "transformer", "tokenizer": "tokenizer", "text_encoder": "text encoder", "safety": "safety model"}
MAX_PROMPTS = 1000
"""The list of known prompts is sent whole in every description of a checkpoint."""


def copy_parts(folder: Path, sources: Mapping[str, Path]) -> None:
    """Replaces the folder's parts by copies. Raises CheckpointError, before any change, if one is missing."""
    for part, source in sources.items():
        if not (source / "config.json").exists():
            raise CheckpointError(f"{source}: no {PARTS[part]} here (config.json is missing); train it first")
    if pointers := git_lfs.pointers(sources.values()):
        raise CheckpointError("\n".join(f"{path}: {git_lfs.ADVICE}" for path in pointers))
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


def write_words(folder: Path, captions: Sequence[Sequence[str]]) -> None:
    """Writes prompts.txt (images' first captions, each once) and vocabulary.txt (all words of all captions)."""
    prompts = list(dict.fromkeys(" ".join(group[0].split()) for group in captions))
    shown = [prompts[i * len(prompts) // MAX_PROMPTS] for i in range(MAX_PROMPTS)]
    _write_lines(folder / "prompts.txt", prompts if len(prompts) <= MAX_PROMPTS else shown)
    texts = [caption.lower().replace("’", "'") for group in captions for caption in group]
    known = {word for text in texts for word in WORD.findall(text)}
    known |= {sign for text in texts for sign in text if unicodedata.category(sign) == "So"}
    _write_lines(folder / "vocabulary.txt", sorted(known))


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")
