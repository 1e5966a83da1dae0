"""Laws of the self-test: what passes for a result of a model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from runtime.errors import StageUnavailable
from runtime.work import self_test
from runtime.work.device_thread import DeviceThread
from runtime.work.self_test import SelfTest, SelfTestFailed

GOOD = np.array([1.0, 2.0, 4.0])


class Model:
    """Gives one result after another, the last one for ever."""

    def __init__(self, *results: Any) -> None:
        self.results = list(results)
        self.runs = 0

    def __call__(self) -> dict[str, Any]:
        self.runs += 1
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, Exception):
            raise result
        return {"it": np.asarray(result)}


def taught(*results: Any) -> tuple[SelfTest, Model]:
    """A self-test that has learned the first result, and its model."""
    model = Model(*results)
    test = SelfTest(model, {"it": (3,)}, ("it",))
    test.learn()
    return test, model


@pytest.mark.parametrize(
    ("results", "fault"),
    [
        ([[1.0, math.nan, 2.0]], "it is not finite"),
        ([[1.0, math.inf, 2.0]], "it is not finite"),
        ([[1.0, 2.0]], r"it has shape \[2\], not \[3\]"),
        ([[1.0, 1.0, 1.0]], "it is constant: every element is 1.0"),
        ([GOOD, GOOD * 1.1], "it differs from the first run by 0.4"),
        ([GOOD, [1.0, 2.0, math.nan]], "it is not finite"),
        ([ValueError("the latent is not finite")], "the latent is not finite"),
    ],
)
def test_a_model_that_is_broken_does_not_start(results: list[Any], fault: str) -> None:
    with pytest.raises(SelfTestFailed, match=fault):
        taught(*results)


def test_rounding_is_no_difference() -> None:
    taught(GOOD, GOOD * 1.001)


def test_an_error_of_the_device_is_not_taken_for_the_models() -> None:
    with pytest.raises(SystemError):
        taught(SystemError("lost"))


def test_a_repetition_that_passes_changes_nothing_and_comes_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    test, model = taught(GOOD)
    for _ in range(5):
        test.repeat()
    assert model.runs == 3
    monkeypatch.setattr(self_test, "QUIET_SECONDS", 0.0)
    test.repeat()
    assert model.runs == 4


def test_a_repetition_within_the_self_test_is_none() -> None:
    class Nested(Model):
        def __call__(self) -> dict[str, Any]:
            test.repeat()
            return super().__call__()

    model = Nested(GOOD)
    test = SelfTest(model, {"it": (3,)}, ("it",))
    test.learn()
    test.repeat()
    assert model.runs == 3


async def test_a_model_that_no_longer_passes_leaves_service() -> None:
    test, _ = taught(GOOD, GOOD, [1.0, 2.0, math.nan])
    engine, ended = DeviceThread("decoder"), []
    engine.on_fatal = lambda: ended.append(True)
    with pytest.raises(StageUnavailable, match="its self-test failed"):
        await engine.run(test.repeat)
    with pytest.raises(StageUnavailable, match="its self-test failed"):
        await engine.run(lambda: 1)
    assert ended == [True]
    engine.close()
