"""benchmarks.drills: short drills on real processes; `python -m benchmarks.drills` is the long form."""

from benchmarks.drills import cancel, chaos, deadlines, from_zero, kill, overload, repeats, scale, shutdown
from tests.drills.conftest import STALL_SECONDS, Hold


def test_repeated_request_id_shares_one_execution(holds: Hold) -> None:
    holds(repeats.repeats)


def test_expired_deadline_names_its_stage_and_stops_the_work(holds: Hold) -> None:
    holds(deadlines.deadlines)


def test_cancellation_releases_its_slot_in_every_phase(holds: Hold) -> None:
    holds(cancel.cancel, 20.0, times=100)


def test_overload_is_refused_and_accepted_requests_meet_deadlines(holds: Hold) -> None:
    holds(overload.overload, 5.0, stall=STALL_SECONDS, at_once=0.5, normal=3)


def test_slow_decoder_holds_back_the_generators(holds: Hold) -> None:
    holds(overload.slow_decoder, 4.0)


def test_cut_connections_lose_no_request(holds: Hold) -> None:
    holds(kill.cut_connections, 4.0)


def test_killed_generator_loses_no_request(holds: Hold) -> None:
    holds(kill.inject_faults, 6.0, act=chaos.kill, stage="ar_generator")


def test_replaced_generator_loses_no_request(holds: Hold) -> None:
    holds(shutdown.rolling, 1.0, stage="ar_generator", first=1)


def test_scaling_adds_and_drains_a_generator_at_once(holds: Hold) -> None:
    holds(scale.scale_briefly, 2.0, stall=STALL_SECONDS)


def test_callers_of_two_gateways_wait_for_stages_at_zero(holds: Hold) -> None:
    holds(from_zero.from_zero_briefly, 1.0, callers=8)


def test_terminated_gateway_finishes_accepted_requests(holds: Hold) -> None:
    holds(shutdown.gateway_ends)


def test_killed_safety_stage_fails_every_request(holds: Hold) -> None:
    holds(shutdown.safety_killed)
