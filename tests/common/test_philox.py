"""common.philox: Philox over plain integers, against the published answers and model.philox."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.philox import Key, Words, key_of, philox
from kernels.philox import words


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
def test_philox_gives_the_known_answers(counter: Words, key: Key, expected: str) -> None:
    assert " ".join(f"{word:08x}" for word in philox(counter, key)) == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 13), st.integers(0, 3), st.integers(0, 7))
def test_model_philox_gives_the_same_words(seed: int, scale: int, purpose: int, step: int) -> None:
    drawn = words(torch.tensor([key_of(seed)]), 8, scale, purpose, step)[0].tolist()
    assert drawn == [word for block in (0, 1) for word in philox((block, scale, purpose, step), key_of(seed))]
