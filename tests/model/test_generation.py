"""model.generation, model.kv_cache: states give the same images whether they advance together or alone."""

import itertools
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from model.errors import ModelError, SettingError
from model.generation import GenerationState, Generator
from model.kv_cache import KVCache, contiguous_runs
from model.noise import SeededNoise
from model.params import SamplingParams
from tests.model.golden import ImageCase, difference, finish
from tests.model.single_images import CHOICES, SLOTS, begin


def test_half_precision_image_depends_only_on_the_batch_size(plain: ImageCase) -> None:
    """Whatever the batch peers, the place in the batch and the slot in the KV cache."""
    transformer = plain.checkpoint.load_transformer(torch.bfloat16)
    generator = Generator(transformer, plain.checkpoint.load_quantizer(), SLOTS)

    def draw(choices: list[int], wanted: int) -> GenerationState:
        states = [begin(generator, plain, choice) for choice in choices]
        for _ in range(generator.scales):
            generator.advance(states)
        for state in states:
            generator.release(state)
        return states[choices.index(wanted)]

    first = draw([3, 0, 1], 3)
    for batch in ([3, 4, 2], [1, 3, 0], [4, 0, 3]):
        again = draw(batch, 3)
        assert again.tokens is not None
        assert first.tokens is not None
        assert torch.equal(again.tokens, first.tokens)
        assert torch.equal(again.latent, first.latent)


@pytest.mark.parametrize("cancelled_at", range(4))
def test_released_state_does_not_affect_the_others(
    generator: Generator, plain: ImageCase, alone: list[tuple[list[torch.Tensor], torch.Tensor]], cancelled_at: int
) -> None:
    first, second = begin(generator, plain, 1), begin(generator, plain, 2)
    for k in range(generator.scales):
        if k == cancelled_at:
            generator.release(second)
            third = begin(generator, plain, 3)  # takes the freed slot at once
            generator.advance([third])
        generator.advance([first, second] if k < cancelled_at else [first])
    assert difference(first.latent, alone[1][1]) < 2e-3
    generator.release(first)
    assert difference(finish(generator, [third])[0], alone[3][1]) < 2e-3


def test_reused_slots_keep_no_old_values(
    generator: Generator, plain: ImageCase, alone: list[tuple[list[torch.Tensor], torch.Tensor]]
) -> None:
    unconditional = generator.kv_cache.keys[:, 1, :, : generator.config.context_token].clone()
    generator.kv_cache.keys[:, 0::2] = float("nan")
    generator.kv_cache.values[:, 0::2] = float("nan")
    generator.kv_cache.keys[:, 1::2, :, generator.config.context_token :] = float("nan")
    generator.kv_cache.last_keys.fill_(float("nan"))
    for choice in range(len(CHOICES)):
        assert difference(finish(generator, [begin(generator, plain, choice)])[0], alone[choice][1]) < 2e-3
    for slot in range(SLOTS):
        assert torch.equal(
            generator.kv_cache.keys[:, 2 * slot + 1, :, : generator.config.context_token], unconditional
        ), "the shared unconditional context was written to"


class ConcatenationRecorder(TorchDispatchMode):
    """Records the shape of every concatenation's result."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[torch.Size] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        if func is torch.ops.aten.cat.default:
            self.shapes.append(result.shape)
        return result


def test_nothing_grows_by_concatenation(generator: Generator, plain: ImageCase) -> None:
    config, places = generator.config, [generator.kv_cache.keys.data_ptr(), generator.kv_cache.last_keys.data_ptr()]
    state = begin(generator, plain, 1)
    for k in range(generator.scales):
        with ConcatenationRecorder() as growth:
            generator.advance([state])
        attended = config.context_token + sum(n * n for n in config.patch_nums[1 : k + 1])
        if k:
            assert growth.shapes, "no concatenation was recorded: the recorder watches the wrong operation"
            assert not [shape for shape in growth.shapes if attended in shape]
    generator.release(state)
    assert places == [generator.kv_cache.keys.data_ptr(), generator.kv_cache.last_keys.data_ptr()]


def test_kv_cache_takes_bytes_per_slot(generator: Generator) -> None:
    per_slot = KVCache.bytes_per_slot(generator.config, torch.float32)
    assert generator.kv_cache.keys.nbytes + generator.kv_cache.values.nbytes == SLOTS * per_slot


@given(st.lists(st.integers(0, 9), min_size=1, unique=True))
def test_runs_cover_rows_in_order(rows: list[int]) -> None:
    spelled = [(at + i, first + i) for at, first, count in contiguous_runs(rows) for i in range(count)]
    assert spelled == list(enumerate(rows))


def test_failed_begin_takes_no_slot(generator: Generator, plain: ImageCase, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(generator.transformer, "embed_context", fail)
        with pytest.raises(torch.OutOfMemoryError):
            begin(generator, plain, 0)
    states = [begin(generator, plain, 0) for _ in range(SLOTS)]
    for state in states:
        generator.release(state)


def test_misuse_raises_a_clear_error(generator: Generator, plain: ImageCase) -> None:
    states = [begin(generator, plain, i) for i in range(SLOTS)]
    with pytest.raises(ModelError, match="all 4 slots are in use"):
        begin(generator, plain, 0)
    generator.advance(states[:1])
    with pytest.raises(ModelError, match=r"scales \[0, 1\]"):
        generator.advance(states)
    for state in states:
        generator.release(state)
    with pytest.raises(ModelError, match="is already free"):
        generator.release(states[0])
    states[0].scale = generator.scales
    with pytest.raises(ModelError, match="the image is finished"):
        generator.advance(states[:1])
    conditioning = plain.conditioning()
    with pytest.raises(ModelError, match=r"context: shape \(2, 8, 24\): expected \(8, 24\)"):
        generator.begin(conditioning, SeededNoise(1), SamplingParams())


@pytest.mark.parametrize(
    ("field", "value"),
    [*itertools.product(["guidance"], [-0.1, 20.1, float("nan"), float("inf")]),
     *itertools.product(["top_p"], [-0.1, 1.1, float("nan")])],
)  # fmt: skip
def test_sampling_parameters_out_of_bounds_are_named(field: str, value: float) -> None:
    with pytest.raises(SettingError, match=f"{field}: {value}"):
        SamplingParams(**cast(dict[str, Any], {field: value}))


def test_half_precision_keeps_logits_in_float32(plain: ImageCase) -> None:
    net = plain.checkpoint.load_transformer(torch.bfloat16)
    assert net.head.weight.dtype == torch.float32
    assert net.state_dict()["blocks.0.attn.proj.weight"].dtype == torch.bfloat16
    half = Generator(net, plain.tokenizer.quantize)
    state = begin(half, plain, 2)
    hidden = half.forward([state])
    assert hidden.dtype == torch.bfloat16
    assert half.logits([state], hidden).dtype == torch.float32
    latent = finish(half, [state])
    assert latent.dtype == torch.float32
    assert torch.isfinite(latent).all()
