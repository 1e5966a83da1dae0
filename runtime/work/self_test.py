"""The self-test of a model: it runs a known input and checks the result."""

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
"""Max difference between two results for the same input, relative to the max magnitude of the first result."""
QUIET_SECONDS = 30.0
"""Min seconds between two repetitions. Any client may send requests whose results are not finite."""


class SelfTestFailed(Exception):
    """The model computes a wrong result. The message names the result and its fault."""


class SelfTest:
    """Checks the results of `run` on its known input: named arrays that have the shape in `shapes`, are finite and are
    not constant (unless `constant` allows it).

    Arrays named in `repeatable` must be equal in each run, within TOLERANCE. `run` may raise ValueError for a broken
    result. Call all methods on the device thread.
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
        """Run twice and keep the result as the reference. Raises SelfTestFailed."""
        self._known = {}
        for _ in range(2):
            self._known = self._judged()
        self._passed_at = -math.inf

    def repeat(self) -> None:
        """Run again after a request's result was not finite, at most once in QUIET_SECONDS and never recursively.
        Raises SelfTestFailed if the result no longer equals the reference."""
        if self._running or time.monotonic() - self._passed_at < QUIET_SECONDS:
            return
        self._judged()
        self._passed_at = time.monotonic()
        log.warning("a result was not finite, but the self-test passed: only that request fails")

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
                raise SelfTestFailed(f"{name} differs from the first run by {apart:g}")
