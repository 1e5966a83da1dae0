"""The self-test of a model: a known input, whose result is judged. Knows no model."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

log = logging.getLogger(__name__)
Array = np.ndarray[Any, Any]
TOLERANCE = 1e-2
"""Of the largest magnitude in the first result: the same input may differ by so much from one time to the next."""
QUIET_SECONDS = 30.0
"""Between two repetitions: requests that give results which are not finite may be anybody's to send."""


class SelfTestFailed(Exception):
    """The model does not compute what it should. The message names the result and what is wrong with it."""


class SelfTest:
    """Judges what `run` makes of its known input: named arrays, each of its shape in `shapes`, finite and not constant.

    Those in `repeatable` must come out the same each time, within TOLERANCE. `run` may raise ValueError where a result
    is broken. All of it belongs on the thread that computes.
    """

    def __init__(
        self,
        run: Callable[[], Mapping[str, Array]],
        shapes: Mapping[str, tuple[int, ...]],
        repeatable: tuple[str, ...],
        *,
        constant: bool = False,
    ) -> None:
        self._run, self._shapes, self._repeatable, self._constant = run, shapes, repeatable, constant
        self._known: Mapping[str, Array] = {}
        self._passed_at = -math.inf
        self._running = False

    def learn(self) -> None:
        """Run twice and keep the result as known to be good. Raises SelfTestFailed."""
        self._known = {}
        for _ in range(2):
            self._known = self._judged()
        self._passed_at = -math.inf

    def repeat(self) -> None:
        """Run again, after a result that was not finite; not more than once in QUIET_SECONDS, and never within itself.
        Raises SelfTestFailed where the model no longer computes what it did."""
        if self._running or time.monotonic() - self._passed_at < QUIET_SECONDS:
            return
        self._judged()
        self._passed_at = time.monotonic()
        log.warning("a result was not finite; the self-test passes: it was that request's alone")

    def _judged(self) -> Mapping[str, Array]:
        self._running = True
        try:
            results = self._run()
        except ValueError as error:
            raise SelfTestFailed(str(error)) from error
        finally:
            self._running = False
        for name, shape in self._shapes.items():
            self._judge(name, results[name], shape)
        return results

    def _judge(self, name: str, result: Array, shape: tuple[int, ...]) -> None:
        if result.shape != shape:
            raise SelfTestFailed(f"{name} has shape {list(result.shape)}, not {list(shape)}")
        if not np.isfinite(result).all():
            raise SelfTestFailed(f"{name} is not finite")
        if not self._constant and result.min() == result.max():
            raise SelfTestFailed(f"{name} is constant: every element is {result.flat[0]}")
        known = self._known.get(name) if name in self._repeatable else None
        if known is not None:
            apart = float(np.abs(result.astype(np.float64) - known).max())
            if not apart <= TOLERANCE * float(np.abs(known.astype(np.float64)).max()):
                raise SelfTestFailed(f"{name} differs from the first time by {apart:g}")
