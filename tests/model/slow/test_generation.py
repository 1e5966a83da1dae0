"""model.generation, model.kv_cache: states give the same images whether they advance together or alone."""

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.generation import GenerationState, Generator
from tests.model.golden import ImageCase, difference
from tests.model.single_images import CHOICES, begin


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_batching_order_and_interleaving_do_not_change_an_image(
    generator: Generator, plain: ImageCase, alone: list[tuple[list[torch.Tensor], torch.Tensor]], data: st.DataObject
) -> None:
    """Any interleaving: states at the same scale may advance together, in any order, slot and batch."""
    waiting = data.draw(st.permutations(range(len(CHOICES))))
    flying: list[tuple[int, GenerationState]] = []
    try:
        while waiting or flying:
            if waiting and generator.free and (not flying or data.draw(st.booleans())):
                choice = waiting.pop()
                flying.append((choice, begin(generator, plain, choice)))
                continue
            scale = data.draw(st.sampled_from(sorted({state.scale for _, state in flying})))
            peers = [pair for pair in flying if pair[1].scale == scale]
            batch = data.draw(st.lists(st.sampled_from(peers), min_size=1, unique_by=lambda pair: pair[0]))
            generator.advance([state for _, state in batch])
            for choice, state in batch:
                assert state.tokens is not None
                assert torch.equal(state.tokens, alone[choice][0][scale])
                if state.scale == generator.scales:
                    assert difference(state.latent, alone[choice][1]) < 2e-3
                    generator.release(state)
                    flying.remove((choice, state))
    finally:
        for _, state in flying:
            generator.release(state)
