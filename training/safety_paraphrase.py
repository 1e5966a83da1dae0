"""Says a sentence in other words, so that its pattern is not learned by heart; knows nothing of policies.

Words are exchanged for what a sentence model places near them; small words are left out now and then.
"""

import re
from collections.abc import Collection, Iterable

import numpy as np

from training import teacher

ALIKE = 0.62  # cosine of the teacher's vectors
NEAREST = 6
EXCHANGED, LEFT_OUT = 0.3, 0.08
# Leaving these out or exchanging them would turn a sentence round.
KEPT = {"no", "not", "never", "nobody", "nothing", "without", "against", "stop", "only", "before", "after"}
KEPT |= {"love", "hate", "ugly", "inferior"}


class Paraphraser:
    """Knows for each word of some texts the dictionary's words that are near it."""

    def __init__(self, texts: Iterable[str], dictionary: list[str], avoid: Collection[str]) -> None:
        """`avoid`: words that must not come in, because they are kept for measuring."""
        words = sorted({word for text in texts for word in re.findall(r"[a-z]{4,}", text)} - KEPT)
        others = [word for word in dictionary if word not in avoid and word not in KEPT]
        likeness = teacher.embed(words) @ teacher.embed(others).T
        self.near: dict[str, list[str]] = {}
        for word, row in zip(words, likeness, strict=True):
            best = [others[i] for i in np.argsort(-row)[: NEAREST + 1] if row[i] > ALIKE and others[i] != word]
            if best:
                self.near[word] = best

    def __call__(self, text: str, rng: np.random.Generator) -> str:
        said = [self._say(word, rng) for word in text.split(" ")]
        return " ".join(word for word in said if word) or text

    def _say(self, word: str, rng: np.random.Generator) -> str:
        near = self.near.get(word)
        if near:
            return near[int(rng.integers(len(near)))] if rng.random() < EXCHANGED else word
        return "" if len(word) < 5 and word not in KEPT and rng.random() < LEFT_OUT else word
