"""Graphs of the generator's steps: one replay instead of a thousand launches.

A lane is one scale for so many pictures in neighbouring slots. It has tensors of its own for all that a step reads, and
a graph that was captured of the step over them: a call copies the pictures' tensors in, replays, and gives them copies
of what the graph wrote. Guidance and smoothness are such tensors too, so that one graph serves every setting.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from model.capture import CudaGraph, Graph, PythonGraph
from model.generation import GenerationState, Generator, branches
from model.noise import SeededNoise
from model.params import Controls, SamplingParams
from model.transformer import Pooled

BUCKETS = (1, 2, 4, 8)
States = Sequence[GenerationState]
Capture = Callable[[Callable[[], States]], Graph[States]]


def _written_by_step(states: States) -> list[Tensor]:
    return [tensor for state in states for tensor in _written(state)]


def _written(state: GenerationState) -> list[Tensor]:
    return [tensor for tensor in (state.latent, state.tokens, state.next_map) if tensor is not None]


@dataclass(frozen=True)
class Lane:
    """One scale for pictures in these slots."""

    inputs: list[GenerationState]
    """In the order of their slots. Their tensors are the lane's own."""
    graph: Graph[States]


class Lanes:
    """The lanes of a generator, captured when they are first wanted. One thread uses it, the generator's."""

    def __init__(self, generator: Generator, buckets: Sequence[int], max_tokens: int, capture: Capture) -> None:
        self.generator, self.buckets, self.max_tokens, self.capture = generator, tuple(buckets), max_tokens, capture
        self._lanes: dict[tuple[int, int, int, int], Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    @torch.inference_mode()
    def advance(self, k: int, states: Sequence[GenerationState]) -> bool:
        """Advances states at scale k by their lane. Returns False, and does nothing, where no lane fits."""
        ordered = sorted(states, key=lambda state: state.slot)
        if not self._fits(k, ordered):
            return False
        key = (k, ordered[0].slot, len(ordered), branches(ordered))
        lane = self._lanes.get(key)
        if lane is None:
            inputs = [_own(state) for state in ordered]
            _copy_in(self.generator, k, inputs, ordered)
            # Each call begins with the inputs anew: a step puts its results into the states that it is given.
            graph = self.capture(lambda: self.generator.advance_eagerly([replace(one) for one in inputs]))
            lane = self._lanes[key] = Lane(inputs, graph)
        _copy_in(self.generator, k, lane.inputs, ordered)
        lane.graph.replay()
        for state, written in zip(ordered, lane.graph.result, strict=True):
            state.latent = written.latent.clone()
            state.tokens = None if written.tokens is None else written.tokens.clone()
            state.next_map = None if written.next_map is None else written.next_map.clone()
            state.scale, state.embedded = k + 1, None
        return True

    def capture_all(self, states: Sequence[GenerationState]) -> None:
        """Captures every lane of the states' scale: all runs of neighbours that a bucket holds. The states, one for
        each slot, are not changed."""
        for count in self.buckets:
            for first in range(len(states) - count + 1):
                self.advance(states[0].scale, [replace(state) for state in states[first : first + count]])

    def _fits(self, k: int, ordered: Sequence[GenerationState]) -> bool:
        first = ordered[0].slot
        return (
            len(ordered) in self.buckets
            and branches(ordered) * len(ordered) * self.generator.config.patch_nums[k] ** 2 <= self.max_tokens
            and [state.slot for state in ordered] == list(range(first, first + len(ordered)))
            and all(isinstance(state.noise, SeededNoise) and state.params.top_p == 0 for state in ordered)
        )


def capture_in_python(work: Callable[[], States]) -> Graph[States]:
    """The stand-in's capture of a step."""
    return PythonGraph(work, _written_by_step)


def attach(generator: Generator, buckets: Sequence[int] = BUCKETS, max_tokens: int = sys.maxsize) -> Lanes:
    """Lets a generator advance by graphs where a lane fits: CUDA's on a CUDA device, their stand-in elsewhere.

    max_tokens: rows of tokens of a step, both branches, above which launches take less time than the step itself.
    """
    capture: Capture = capture_in_python
    if generator.device.type == "cuda":
        capture = partial(CudaGraph, pool=torch.cuda.graph_pool_handle())
    lanes = Lanes(generator, buckets, max_tokens, capture)
    generator.lanes = lanes
    return lanes


def _own(state: GenerationState) -> GenerationState:
    """A state like this one with tensors of its own, and parameters of which only whether there is guidance counts."""
    noise = SeededNoise(0, state.latent.device, ahead=False)
    conditioning = replace(state.conditioning, positions=torch.empty_like(state.conditioning.positions))
    block = None if state.pooled.block is None else torch.empty_like(state.pooled.block)
    return GenerationState(
        slot=state.slot,
        params=SamplingParams(guidance=1.0 if state.params.guidance > 0 else 0.0),
        noise=noise,
        conditioning=conditioning,
        embedded=None if state.embedded is None else torch.empty_like(state.embedded),
        pooled=Pooled(block, torch.empty_like(state.pooled.head)),
        last_positions=torch.empty_like(state.last_positions),
        latent=torch.empty_like(state.latent, memory_format=torch.contiguous_format),
        next_map=None if state.next_map is None else torch.empty_like(state.next_map),
        scale=state.scale,
        controls=Controls.of(SamplingParams(), 0.0, state.latent.device),
    )


def _copy_in(
    generator: Generator, k: int, inputs: Sequence[GenerationState], states: Sequence[GenerationState]
) -> None:
    for own, state in zip(inputs, states, strict=True):
        for target, source in zip(_read(own), _read(state), strict=True):
            target.copy_(source)
        if own.controls is not None:
            own.controls.fill(state.params, generator.ratio(k))


def _read(state: GenerationState) -> list[Tensor]:
    """Every tensor that a step reads of a state, but for the controls."""
    if not isinstance(state.noise, SeededNoise):
        raise TypeError("a graph reads seeded noise")
    optional = [state.embedded, state.pooled.block, state.next_map]
    return [
        *(tensor for tensor in optional if tensor is not None),
        state.pooled.head,
        state.conditioning.positions,
        state.last_positions,
        state.latent,
        state.noise.key,
    ]
