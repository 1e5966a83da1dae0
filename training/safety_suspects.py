"""Innocent requests that the classifier in training finds most unsafe: shown to it more often than others."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from training.safety_prompts import Example

MOST = 80
FROM, EVERY = 300, 150
"""Steps before the first look, and between two."""


class Suspects:
    """Keeps the `MOST` requests for named things with the highest scores; none until it has looked. A part of a run's
    state. `ask` says a name as somebody asks for it, otherwise every time."""

    def __init__(self, names: Sequence[str], ask: Callable[[str], str]) -> None:
        self._names = list(names)
        self._ask = ask
        self._found: list[str] = []

    def due(self, step: int) -> bool:
        """Whether it is time to look."""
        return step >= FROM and (step - FROM) % EVERY == 0

    def look(self, scores: Callable[[Sequence[str]], Tensor]) -> None:
        """`scores(requests)`: (n,), each one's highest share of Yes over the policies."""
        requests = [*self._names, *(self._ask(name) for name in self._names)]
        order = scores(requests).argsort(descending=True).tolist()
        self._found = [requests[i] for i in order[:MOST]]

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Some of them."""
        if not self._found:
            return []
        drawn = [self._found[i] for i in rng.integers(len(self._found), size=count)]
        return [Example(text, frozenset(), "ordinary") for text in drawn]

    def state_dict(self) -> Mapping[str, Any]:
        return {"found": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._found = list(state["found"])
