"""The laws of "Time, load and failure" on real processes, briefly; `python -m benchmarks.drills` is the long form."""

from benchmarks.drills import cancel, chaos, deadlines, kill, overload, repeats, scale, shutdown
from tests.drills.conftest import STALL_SECONDS


def test_a_repeated_request_id_is_one_pictures_work(holds):
    holds(repeats.repeats)


def test_time_that_runs_out_names_its_stage_and_no_work_follows(holds):
    holds(deadlines.deadlines)


def test_a_cancel_frees_its_place_at_every_phase(holds):
    holds(cancel.cancel, 20.0, times=100)


def test_overload_is_refused_at_once_and_the_accepted_keep_their_deadline(holds):
    holds(overload.overload, 5.0, stall=STALL_SECONDS, at_once=0.5, normal=3)


def test_a_slow_decoder_holds_the_generators_back(holds):
    holds(overload.slow_decoder, 4.0)


def test_connections_that_are_cut_lose_nothing(holds):
    holds(kill.cut_connections, 4.0)


def test_a_generator_killed_under_load_loses_nothing(holds):
    holds(kill.inject_faults, 6.0, act=chaos.kill, stage="ar_generator")


def test_a_generator_replaced_under_load_loses_nothing(holds):
    holds(shutdown.rolling, 1.0, stage="ar_generator", first=1)


def test_a_generator_that_is_listed_works_at_once_and_one_that_is_not_begins_nothing(holds):
    holds(scale.scale_briefly, 2.0, stall=STALL_SECONDS)


def test_a_gateway_that_is_asked_to_end_finishes_what_it_accepted(holds):
    holds(shutdown.gateway_ends)


def test_without_a_verdict_there_is_no_picture(holds):
    holds(shutdown.safety_killed)
