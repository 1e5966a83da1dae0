"""Graphs: replay and eager equal token for token, whatever the settings; on a CPU by the graph's stand-in."""

from __future__ import annotations

import gc
import weakref

import torch

from model.capture import Replay
from model.graphs import attach
from model.params import SamplingParams
from model.pixels import quantize
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
    assert {key[1:3] for key in lanes._lanes} == {(1, 2)}


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
    replay = Replay(lambda x: (2 * x + 1, x.sum()), torch.zeros(3, device=device))
    first = replay(torch.tensor([1.0, 2.0, 3.0], device=device))
    second = replay(torch.full((3,), 5.0, device=device))
    assert [part.tolist() for part in first] == [[3.0, 5.0, 7.0], 6.0]
    assert [part.tolist() for part in second] == [[11.0, 11.0, 11.0], 15.0]


def test_a_replay_keeps_the_weights_that_its_graph_reads(device: str) -> None:
    layer = torch.nn.Linear(4, 4, device=device)
    kept = weakref.ref(layer.weight)
    with torch.inference_mode():
        replay = Replay(lambda x, layer=layer: (layer(x),), torch.zeros(1, 4, device=device))  # type: ignore[misc]
    del layer
    gc.collect()
    assert kept() is not None
    del replay
    gc.collect()
    assert kept() is None


def test_a_replayed_decoder_draws_the_same_pixels(golden: ImageCase) -> None:
    config = golden.checkpoint.tokenizer_config
    latents = torch.randn(3, 1, config.z_channels, config.side, config.side, device=golden.device)

    def decode(latent: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return quantize(golden.tokenizer.decode(latent))

    with torch.inference_mode():
        replay = Replay(decode, latents[0])
        for latent in latents:
            assert all(torch.equal(a, b) for a, b in zip(replay(latent), decode(latent), strict=True))
