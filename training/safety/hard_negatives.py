"""Hard negatives: innocent requests with the highest scores, which training repeats more often."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from training.safety.prompts import Example

MAX_KEPT = 80
FROM, EVERY = 300, 150
"""Steps before the first search of an untrained network, and between two."""


class HardNegatives:
    """The `MAX_KEPT` requests with the highest scores, part of a run's state; empty until the first search.

    `ask` phrases a name as a request, and `fresh` draws further innocent requests, differently on every call.
    """

    def __init__(
        self,
        names: Sequence[str],
        ask: Callable[[str], str],
        fresh: Callable[[], list[str]] = list,
        first: int = FROM,
    ) -> None:
        """`first`: the step of the first search."""
        self._names = list(names)
        self._ask, self._fresh, self._first = ask, fresh, first
        self._found: list[str] = []

    def due(self, step: int) -> bool:
        """Whether to search at this step."""
        return step >= self._first and (step - self._first) % EVERY == 0

    def search(self, scores: Callable[[Sequence[str]], Tensor]) -> None:
        """`scores(requests)`: (n,), each one's highest share of Yes over the policies."""
        requests = [*self._names, *(self._ask(name) for name in self._names), *self._fresh()]
        order = scores(requests).argsort(descending=True).tolist()
        self._found = [requests[i] for i in order[:MAX_KEPT]]

    def draw(self, rng: np.random.Generator, count: int) -> list[Example]:
        """`count` of them at random; none before the first search."""
        if not self._found:
            return []
        drawn = [self._found[i] for i in rng.integers(len(self._found), size=count)]
        return [Example(text, frozenset(), "hard") for text in drawn]

    def state_dict(self) -> Mapping[str, Any]:
        return {"found": self._found}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._found = list(state["found"])
