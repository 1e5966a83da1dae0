"""Paraphrases sentences, so that their patterns are not memorised.

Words are replaced by near ones in a sentence model's space; small words are sometimes left out.
"""

import re
from collections.abc import Collection, Iterable

import numpy as np

from training.text import teacher

ALIKE = 0.62  # cosine of the teacher's vectors
NEAREST = 6
EXCHANGED, LEFT_OUT = 0.3, 0.08
# Replacing or leaving out these could reverse a sentence's meaning.
KEPT = {"no", "not", "never", "nobody", "nothing", "without", "against", "stop", "only", "before", "after"}
KEPT |= {"love", "hate", "ugly", "inferior"}


class Paraphraser:
    """The near dictionary words of each word of some texts."""

    def __init__(self, texts: Iterable[str], dictionary: list[str], avoid: Collection[str]) -> None:
        """`avoid`: words that must not be inserted because they are held out."""
        words = sorted({word for text in texts for word in re.findall(r"[a-z]{4,}", text)} - KEPT)
        others = [word for word in dictionary if word not in avoid and word not in KEPT]
        similarity = teacher.embed(words) @ teacher.embed(others).T
        self.near: dict[str, list[str]] = {}
        for word, row in zip(words, similarity, strict=True):
            best = [others[i] for i in np.argsort(-row)[: NEAREST + 1] if row[i] > ALIKE and others[i] != word]
            if best:
                self.near[word] = best

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        replaced = [self._replaced(word, rng) for word in text.split(" ")]
        return " ".join(word for word in replaced if word) or text

    def _replaced(self, word: str, rng: np.random.Generator) -> str:
        near = self.near.get(word)
        if near:
            return near[int(rng.integers(len(near)))] if rng.random() < EXCHANGED else word
        return "" if len(word) < 5 and word not in KEPT and rng.random() < LEFT_OUT else word
