"""common.seeds: the seeds of a request's images."""

from hypothesis import given
from hypothesis import strategies as st

from common import seeds
from common.philox import key_of, philox

ANY_SEED = st.integers(0, seeds.MAX_SEED)


@given(ANY_SEED, st.integers(1, 8))
def test_seeds_of_further_images_are_derived(seed: int, index: int) -> None:
    assert seeds.seed_of_image(seed, 0) == seed
    low, high, _, _ = philox((index, 0, 0xFFFFFFFF, 0), key_of(seed))
    assert seeds.seed_of_image(seed, index) == (low + high * 2**32) % 2**53


def test_derived_seeds_differ_and_fit_53_bits() -> None:
    derived = [seeds.seed_of_image(7, index) for index in range(8)]
    assert len(set(derived)) == 8
    assert all(0 <= seed < 2**53 for seed in derived)


def test_request_id_gives_a_fixed_seed() -> None:
    assert seeds.seed_of_request_id("abc") == 1191115523519524
    assert seeds.seed_of_request_id("abc") != seeds.seed_of_request_id("abd")


def test_drawn_seeds_fit_into_json_numbers_and_differ() -> None:
    drawn = {seeds.draw_seed() for _ in range(200)}
    assert len(drawn) == 200
    assert max(drawn) < 2**53
