"""Seeds: Philox's published answers, and what follows from them."""

import pytest

from gateway import seeds


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            "d16cfe09 94fdcceb 5001e420 24126ea1",
        ),
    ],
)
def test_philox_gives_the_known_answers(counter, key, expected):
    assert " ".join(f"{word:08x}" for word in seeds.philox(counter, key)) == expected


def test_the_first_picture_has_the_requests_own_seed():
    assert seeds.seed_of_image(seeds.LARGEST_SEED, 0) == seeds.LARGEST_SEED


def test_derived_seeds_are_those_of_the_model():
    from model.noise import seed_of_image  # the one-process pipeline's

    for seed in (0, 7, 2**53, seeds.LARGEST_SEED):
        for index in range(8):
            assert seeds.seed_of_image(seed, index) == seed_of_image(seed, index)


def test_derived_seeds_differ_and_fit_53_bits():
    derived = [seeds.seed_of_image(7, index) for index in range(8)]
    assert len(set(derived)) == 8
    assert all(0 <= seed < 2**53 for seed in derived)


def test_a_request_id_gives_the_same_seed_everywhere():
    assert seeds.seed_of_request_id("abc") == 1191115523519524
    assert seeds.seed_of_request_id("abc") != seeds.seed_of_request_id("abd")


def test_drawn_seeds_fit_53_bits_and_differ():
    drawn = {seeds.draw_seed() for _ in range(100)}
    assert len(drawn) == 100
    assert max(drawn) < 2**53
