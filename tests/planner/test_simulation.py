"""planner.simulation: queues, refusals, losses, previews and several gateways in simulated time."""

from __future__ import annotations

import itertools
import random
import statistics
from dataclasses import replace

import pytest

from planner import profile as profiles
from planner.capacity import images_per_second
from planner.costs import BatchCost
from planner.fleet import Fleet, GatewayLimits, Loss
from planner.profile import Profile
from planner.simulation.cluster import Options, Run, simulate
from planner.simulation.generating import WholeRequestReplica
from planner.simulation.pool import KINDS
from planner.summary import Summary
from planner.workload import Arrival, Mix, constant

ZERO = BatchCost(((1.0, 0.0),))


@pytest.fixture
def sleeping() -> Profile:
    return profiles.load("sleeping")


@pytest.fixture
def single_server(sleeping: Profile) -> Profile:
    """Everything is free, except one scale of 0.1 s that takes one image at a time."""
    found = sleeping
    for stage in ("safety", "text_encoder", "decoder"):
        found = found.with_stage(stage, batch=ZERO, encode_seconds={}, preview_seconds=0.0)
    scale = BatchCost(((1.0, 0.1),))
    return found.with_stage("ar_generator", scales=(scale,), max_batch_per_scale=(1,), slots=1, queue_limit=10**6)


def poisson(rate: float, count: int, mix: Mix | None = None, seed: int = 1) -> list[Arrival]:
    endless = constant(rate, float("inf"), mix or Mix(deadline=1e6), random.Random(seed))
    return list(itertools.islice(endless, count))


def reasons(run: Run) -> set[str]:
    return {one.failure.reason for one in run.outcomes if one.failure}


@pytest.mark.parametrize("busy", [0.3, 0.6, 0.8])
def test_mean_time_of_a_single_server_follows_pollaczek_and_khinchine(single_server: Profile, busy: float) -> None:
    service = 0.1
    limits = GatewayLimits(max_ongoing_requests=10**6, max_pending_decodes=10**6)
    run = simulate(single_server, Fleet(limits=limits), poisson(busy / service, 6_000))
    expected = service + service * busy / (2 * (1 - busy))
    assert statistics.mean(one.seconds for one in run.outcomes) == pytest.approx(expected, rel=0.1)
    assert run.usage["ar_generator"].busy == pytest.approx(busy, rel=0.05)


def test_a_request_alone_takes_the_sum_of_its_stages(sleeping: Profile) -> None:
    run = simulate(sleeping, Fleet(), [Arrival(0.0)])
    assert run.outcomes[0].seconds == pytest.approx(0.01 + 0.16 + 0.025 + 0.008)


def test_equal_seeds_give_equal_runs_and_every_request_one_outcome(sleeping: Profile) -> None:
    mix = Mix(images=((1, 1), (3, 1)), preview_share=0.5)
    arrivals = poisson(8, 300, mix)
    first, second = (simulate(sleeping, Fleet(gateways=2), arrivals, Options(seed=7)) for _ in range(2))
    assert len(first.outcomes) == 300
    assert first.outcomes == second.outcomes


@pytest.mark.parametrize(("deadline", "reason"), [(30.0, "overloaded"), (4.0, "deadline")])
def test_a_full_cluster_refuses_and_no_request_passes_its_deadline(
    sleeping: Profile, deadline: float, reason: str
) -> None:
    run = simulate(sleeping, Fleet(), poisson(30, 900, Mix(deadline=deadline)))
    assert reason in reasons(run)
    assert all(one.seconds <= deadline for one in run.outcomes)


def test_an_overloaded_cluster_draws_as_many_images_as_it_can(sleeping: Profile) -> None:
    run = simulate(sleeping, Fleet(), poisson(30, 1500))
    assert images_per_second(sleeping, Fleet(), Mix()) == pytest.approx(Summary.of(run).images_per_second, rel=0.1)


def test_a_deadline_shorter_than_the_work_is_refused_at_once(sleeping: Profile) -> None:
    run = simulate(sleeping, Fleet(), [Arrival(0.0, deadline=0.1)])
    assert reasons(run) == {"deadline"}
    assert run.outcomes[0].seconds < 0.05


def test_the_loss_of_a_replica_fails_no_request_while_another_is_left(sleeping: Profile) -> None:
    losses = (Loss("ar_generator", 5.0), Loss("decoder", 6.0))
    fleet = Fleet(replicas={"ar_generator": 3, "decoder": 2}, losses=losses)
    run = simulate(sleeping.with_stage("ar_generator", start_seconds=20.0), fleet, poisson(6, 200))
    assert not reasons(run)
    assert max(one.seconds for one in run.outcomes) > 0.25


def test_the_loss_of_the_only_replica_fails_requests_until_its_successor_is_ready(sleeping: Profile) -> None:
    fleet = Fleet(losses=(Loss("decoder", 5.0),), provision_seconds=10.0)
    run = simulate(sleeping, fleet, poisson(2, 100))
    assert reasons(run) == {"unavailable"}
    assert all(one.failure is None for one in run.outcomes if one.arrived < 4 or one.arrived > 15)


def test_held_requests_wait_for_the_first_replica(sleeping: Profile) -> None:
    limits = GatewayLimits(max_waiting_requests=1000)
    fleet = Fleet(losses=(Loss("decoder", 5.0),), provision_seconds=10.0, limits=limits)
    assert not reasons(simulate(sleeping, fleet, poisson(2, 100)))


def test_previews_occupy_the_decoder_and_hardly_delay_images(sleeping: Profile) -> None:
    without, with_all = (
        Summary.of(simulate(sleeping, Fleet(), poisson(3, 400, Mix(preview_share=share)))) for share in (0.0, 1.0)
    )
    assert with_all.usage["decoder"].busy > 1.5 * without.usage["decoder"].busy
    assert with_all.p50 < 1.15 * without.p50


def test_scale_wise_batches_are_faster_than_whole_requests_at_the_median(sleeping: Profile) -> None:
    arrivals = poisson(4.5, 600)
    kinds = {**KINDS, "ar_generator": WholeRequestReplica}
    by_scale = Summary.of(simulate(sleeping, Fleet(), arrivals))
    whole = Summary.of(simulate(sleeping, Fleet(), arrivals, Options(kinds=kinds)))
    assert by_scale.p50 < whole.p50


def test_overheads_delay_each_call(sleeping: Profile) -> None:
    slow = replace(sleeping.with_stage("decoder", call_seconds=(0.5,)), gateway_seconds=(0.25,))
    run = simulate(slow, Fleet(), [Arrival(0.0)])
    assert run.outcomes[0].seconds == pytest.approx(0.203 + 0.75)
