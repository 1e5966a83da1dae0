"""Graphs: replay and eager equal token for token, whatever the settings; on a CPU by the graph's stand-in."""

from __future__ import annotations

import torch

from model.capture import Replay
from model.generation import SamplingParams
from model.graphs import attach
from tests.model.golden import ImageCase
from tests.model.replays import SETTINGS, assert_same, begin, draw


def test_what_a_picture_got_is_its_own(golden: ImageCase) -> None:
    generator = golden.generator(slots=1)
    attach(generator)
    first = begin(golden, generator, 0, SETTINGS[0])
    generator.advance([first])
    kept = (first.latent, first.tokens, first.next_map)
    before = [tensor.clone() for tensor in kept if tensor is not None]
    generator.release(first)
    draw(generator, [begin(golden, generator, 1, SETTINGS[1])])
    assert all(torch.equal(a, b) for a, b in zip(before, kept, strict=True) if b is not None)


def test_pictures_in_the_middle_and_out_of_order_find_their_lane(golden: ImageCase) -> None:
    eager, graphed = golden.generator(slots=4), golden.generator(slots=4)
    lanes = attach(graphed, [2])
    found = []
    for generator in (graphed, eager):
        states = [begin(golden, generator, i, SETTINGS[i]) for i in range(3)]
        generator.release(states[0])
        found.append(draw(generator, [states[2], states[1]]))
    assert_same(*found)
    assert {key[1:] for key in lanes._lanes} == {(1, 2)}


def test_where_no_lane_fits_it_is_drawn_eagerly(golden: ImageCase) -> None:
    generator = golden.generator(slots=4)
    lanes = attach(generator, [1, 2])
    draw(generator, [begin(golden, generator, i, SETTINGS[i]) for i in range(3)])  # no bucket of three
    draw(generator, [begin(golden, generator, 0, SamplingParams(4.0, True, 0.5))])  # nucleus sampling
    states = [begin(golden, generator, i, SETTINGS[i]) for i in range(3)]
    generator.release(states.pop(1))
    draw(generator, states)  # slots 0 and 2
    state = generator.begin(golden.conditioning()[0], golden.noise(0), golden.settings)
    draw(generator, [state])  # recorded noise
    assert len(lanes) == 0


def test_a_replayed_function_returns_its_own_copy(device: str) -> None:
    replay = Replay(lambda x: 2 * x + 1, torch.zeros(3, device=device))
    first = replay(torch.tensor([1.0, 2.0, 3.0], device=device))
    second = replay(torch.full((3,), 5.0, device=device))
    assert first.tolist() == [3.0, 5.0, 7.0]
    assert second.tolist() == [11.0, 11.0, 11.0]


def test_a_replayed_decoder_draws_the_same_pixels(golden: ImageCase) -> None:
    decode, side = golden.tokenizer.decode, golden.checkpoint.tokenizer_config.side
    latents = [torch.randn(1, golden.checkpoint.tokenizer_config.z_channels, side, side) for _ in range(3)]
    with torch.inference_mode():
        replay = Replay(decode, latents[0].to(golden.device))
        for latent in latents:
            assert torch.equal(replay(latent.to(golden.device)), decode(latent.to(golden.device)))
