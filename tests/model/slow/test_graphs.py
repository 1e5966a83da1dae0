"""Graphs: replay and eager equal token for token, whatever the settings; on a CPU by the graph's stand-in."""

from __future__ import annotations

import sys

import pytest
import torch

from model.generation import Generator
from model.graphs import Lanes, attach
from model.kv_cache import BRANCHES
from tests.model.golden import ImageCase
from tests.model.replays import SETTINGS, assert_same, begin, draw


def spoil(generator: Generator) -> None:
    """NaN into the keys and values of every free slot, but for the empty context, which stays for good."""
    context = generator.config.context_token
    for slot in generator.free:
        for kept in (generator.kv_cache.keys, generator.kv_cache.values):
            kept[:, BRANCHES * slot] = torch.nan
            kept[:, BRANCHES * slot + 1, :, context:] = torch.nan


def test_replay_and_eager_are_equal_for_all_settings_and_batches(golden: ImageCase) -> None:
    eager, graphed = golden.generator(slots=4), golden.generator(slots=4)
    lanes = attach(graphed, [1, 2, 4])
    picture = 0
    for count in (1, 1, 2, 4, 2, 1):
        chosen = [SETTINGS[(picture + i) % 4] for i in range(count)]
        spoil(graphed)
        drawn = [
            draw(generator, [begin(golden, generator, picture + i, one) for i, one in enumerate(chosen)])
            for generator in (graphed, eager)
        ]
        assert_same(*drawn)
        picture += count
    assert len(lanes) == 3 * graphed.scales  # one a scale and batch: the rest were replays


def test_a_lane_that_kept_its_first_picture_would_be_seen(golden: ImageCase, monkeypatch: pytest.MonkeyPatch) -> None:
    from model import graphs

    monkeypatch.setattr(graphs, "_copy_in", lambda *_: None)
    eager, graphed = golden.generator(slots=1), golden.generator(slots=1)
    graphed.lanes = Lanes(graphed, [1], sys.maxsize, graphs.capture_in_python)
    found = [draw(generator, [begin(golden, generator, 0, SETTINGS[0])]) for generator in (graphed, eager)]
    with pytest.raises(AssertionError):
        assert_same(*found)
