"""model.philox: known answers; the same words and uniforms on every device."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.philox import Key, Words, key_of, philox
from kernels.philox import exponentials, normals, philox_blocks, uniforms, words

KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
word = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN)
def test_integer_and_tensor_philox_give_the_known_answers(counter: Words, key: Key, output: tuple[int, ...]) -> None:
    assert philox(counter, key) == output
    assert philox_blocks(torch.tensor(counter).view(4, 1, 1), torch.tensor([key])).flatten().tolist() == list(output)


@given(st.lists(st.tuples(word, word), min_size=1, max_size=3), st.data())
def test_tensors_wrap_around_like_integers(keys: list[tuple[int, int]], data: st.DataObject) -> None:
    blocks = st.lists(st.tuples(word, word, word, word), min_size=2, max_size=2)
    counters = [data.draw(blocks) for _ in keys]
    drawn = philox_blocks(torch.tensor(counters).permute(2, 0, 1), torch.tensor(keys))
    assert drawn.permute(1, 2, 0).tolist() == [
        [list(philox(counter, key)) for counter in group] for group, key in zip(counters, keys, strict=True)
    ]


def rounded_once(w: int) -> np.float32:
    """The spec's uniform by exact fractions: the nearest float32, ties to even, then the bound."""
    exact = Fraction(2 * w + 1, 2**33)
    near = np.float32(float(exact))
    neighbours = [np.nextafter(near, np.float32(0)), near, np.nextafter(near, np.float32(2))]
    best = min(neighbours, key=lambda x: (abs(Fraction(float(x)) - exact), int(np.float32(x).view(np.uint32)) & 1))
    return min(best, np.float32(1 - 2.0**-24))


@given(st.lists(word | st.sampled_from([0, 1, 2**24, 2**31 - 1, 2**32 - 1, 2**32 - 2, 2**32 - 129]), min_size=1))
def test_uniforms_are_rounded_once_within_0_and_1(drawn: list[int]) -> None:
    found = uniforms(torch.tensor(drawn, dtype=torch.int64)).numpy()
    assert found.tolist() == [float(rounded_once(w)) for w in drawn]
    assert (found > 0).all()
    assert (found < 1).all()


def test_words_are_laid_out_by_block_scale_purpose_and_step() -> None:
    seed = 2**53 + 12345
    drawn = words(torch.tensor([key_of(7), key_of(seed)]), 10, scale=3, purpose=2, step=5)
    for i in range(10):
        block = philox((i // 4, 3, 2, 5), key_of(seed))
        assert int(drawn[1, i]) == block[i % 4]


def test_exponentials_and_normals_follow_their_formulas() -> None:
    drawn = words(torch.tensor([key_of(99)]), 4096, 0, 0)
    u = uniforms(drawn).double()
    assert (exponentials(drawn).double() + u.log()).abs().max() < 1e-6
    pairs = u.unflatten(1, (-1, 2))
    radius, angle = (-2 * pairs[..., 0].log()).sqrt(), 2 * torch.pi * pairs[..., 1]
    expected = torch.stack([radius * angle.cos(), radius * angle.sin()], 2).flatten(1)
    assert (normals(drawn).double() - expected).abs().max() < 2e-6


def test_draws_have_their_distributions() -> None:
    drawn = words(torch.tensor([key_of(4)]), 200_000, 1, 1)
    e, n = exponentials(drawn).double(), normals(drawn).double()
    assert abs(e.mean() - 1) < 0.02
    assert abs(e.var() - 1) < 0.04
    assert abs(n.mean()) < 0.01
    assert abs(n.var() - 1) < 0.02
