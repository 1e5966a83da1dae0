"""Names of what is drawn that the classifier in training finds most unsafe: shown to it more often than others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from training.safety_prompts import Example

MOST = 80
FROM, EVERY = 300, 150
"""Steps before the first look, and between two."""


class Suspects:
    """Keeps the `MOST` of the names with the highest scores; none until it has looked. A part of a run's state."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._found: list[str] = []

    def due(self, step: int) -> bool:
        """Whether it is time to look."""
        return step >= FROM and (step - FROM) % EVERY == 0

    def look(self, scores: Callable[[Sequence[str]], Tensor]) -> None:
        """`scores(names)`: (n,), each one's highest share of Yes over the policies."""
        order = scores(self._names).argsort(descending=True).tolist()
        self._found = [self._names[i] for i in order[:MOST]]

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Some of them, with or without an article."""
        if not self._found:
            return []
        drawn = [self._found[i] for i in rng.integers(len(self._found), size=count)]
        return [Example(f"a {name}" if rng.random() < 0.5 else name, frozenset(), "ordinary") for name in drawn]

    def state_dict(self) -> Mapping[str, Any]:
        return {"found": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._found = list(state["found"])
