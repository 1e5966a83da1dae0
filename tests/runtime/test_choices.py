"""Pure choices of the runtime and the gateway, which the planner shares: replica, backlog, batch, room."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from gateway.request.rules import decodes_preview, has_room
from gateway.stages.backoff import pause_seconds
from runtime.calls.choice import least_outstanding
from runtime.work.backlog import Backlog, retry_seconds
from runtime.work.batches import batch_of, fill_seconds


@dataclass(frozen=True)
class Thing:
    outstanding: float = 0.0
    key: str = ""


def test_the_least_outstanding_of_anything_is_chosen_and_equals_are_drawn() -> None:
    things = [Thing(2), Thing(1), Thing(1), Thing(3)]
    assert least_outstanding(things, lambda equals: equals[-1]) is things[2]
    assert {id(least_outstanding(things)) for _ in range(50)} == {id(things[1]), id(things[2])}


def test_an_idle_engine_without_a_queue_takes_one_request() -> None:
    assert not Backlog(0, 0.0, 0.0, None).is_full(0)
    assert Backlog(0, 0.0, 1.0, 0.0).is_full(0)
    assert Backlog(5, 5.0, 1.0, 0.0).is_full(5)


def test_wait_counts_the_cost_that_cannot_run_beside_new_work() -> None:
    backlog = Backlog(queued=6, queued_cost=6.0, running_cost=4.0, running_for=0.5)
    assert backlog.wait(1.0, 4.0, 2.0) == pytest.approx(3.0 / 2.0 + (4.0 / 2.0 - 0.5))
    assert Backlog(0, 0.0, 2.0, 0.5).wait(1.0, 4.0, 2.0) == 0.0
    assert backlog.load(4.0) == 2.5
    assert (retry_seconds(0.0), retry_seconds(1e9)) == (0.1, 30.0)


def test_a_batch_is_the_oldest_entries_with_the_key_of_the_first() -> None:
    waiting = [Thing(key=key) for key in "abaa"]
    assert batch_of(waiting[0], waiting, 2) == [waiting[0], waiting[2]]
    assert fill_seconds(2, 2, 0.0, 0.1) == 0.0
    assert fill_seconds(1, 2, 0.04, 0.1) == pytest.approx(0.06)


def test_a_request_larger_than_the_cluster_enters_only_an_empty_one() -> None:
    assert has_room(0, 8, 4)
    assert not has_room(1, 8, 4)
    assert has_room(100, 8, 0)


def test_a_newer_latent_replaces_a_preview() -> None:
    assert decodes_preview(True, [False], last_scale=False)
    assert not decodes_preview(True, [False, True], last_scale=False)
    assert not decodes_preview(False, [], last_scale=False)


def test_the_last_scale_has_no_preview() -> None:
    assert not decodes_preview(True, [], last_scale=True)


def test_pauses_double_with_each_retry() -> None:
    assert [pause_seconds(n, lambda low, high: high) for n in range(3)] == pytest.approx([0.03, 0.06, 0.12])
