"""training.transformer.teacher_forcing: one pass over true tokens gives the logits of generation, scale by scale."""

import dataclasses
from typing import Any

import pytest
import torch

from model.config import TransformerConfig
from model.generation import Conditioning, Generator
from model.noise import SeededNoise
from model.params import SamplingParams
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.transformer import teacher_forcing
from training.transformer.teacher_forcing import TeacherForcing, block_causal, drop_conditions, maps_of


def conditioning(rows: int, real: int, slots: int = 5, width: int = 16) -> Conditioning:
    mask = torch.arange(slots) < real
    mask = mask.expand(rows, -1)
    return Conditioning(torch.randn(rows, slots, width), mask, mask.long().cumsum(1) - 1)


@pytest.mark.parametrize("switches", [{}, {"disable_aln": False}, {"shared_aln": True}, {"attn_l2_norm": True}])
def test_one_pass_over_drawn_tokens_gives_the_logits_that_drew_them(
    transformer: Transformer, tokenizer: HybridTokenizer, switches: dict[str, Any]
) -> None:
    torch.manual_seed(2)
    config = dataclasses.replace(transformer.config, **switches)
    net = Transformer(config, 32, 8).eval().requires_grad_(False)
    given = conditioning(1, real=3)
    generator = Generator(net, tokenizer.quantize)
    state = generator.begin(given[0], SeededNoise(7), SamplingParams(more_smooth=False))
    logits, hidden, tokens = [], [], []
    while state.scale < generator.scales:
        step = generator.forward([state])
        hidden.append(step[0])
        logits.append(generator.logits([state], step)[0])
        generator.advance([state])
        assert state.tokens is not None
        tokens.append(state.tokens)
    indices = torch.cat(tokens)[None].clone()
    both = Conditioning(given.context.repeat(2, 1, 1), given.mask.repeat(2, 1), given.positions.repeat(2, 1))
    both = drop_conditions(both, torch.tensor([False, True]))
    maps = [found.expand(2, -1, -1, -1) for found in maps_of(tokenizer.quantize, indices)]
    predicted = TeacherForcing(net)(both, maps)
    torch.testing.assert_close(predicted.logits, torch.cat(logits, 1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(predicted.last_hidden, hidden[-1], rtol=1e-4, atol=1e-5)


def test_a_scale_sees_itself_and_what_came_before_and_nothing_later() -> None:
    config = TransformerConfig(attn_type="llama", context_token=3, patch_nums=(1, 2, 3))
    allowed = block_causal(config)
    assert allowed.shape == (3 + 4 + 9, 3 + 4 + 9)
    assert allowed[:3, :3].all()
    assert not allowed[:3, 3:].any()
    assert allowed[3:7, :7].all()
    assert not allowed[3:7, 7:].any()
    assert allowed[7:].all()


def test_a_later_scales_tokens_change_no_earlier_logits(transformer: Transformer, tokenizer: HybridTokenizer) -> None:
    torch.manual_seed(3)
    teacher = TeacherForcing(transformer.eval())
    indices = torch.randint(32, (1, 21))
    changed = indices.clone()
    changed[:, 1:5] += 1
    changed %= 32
    given = conditioning(1, real=5)
    before = teacher(given, maps_of(tokenizer.quantize, indices)).logits
    after = teacher(given, maps_of(tokenizer.quantize, changed)).logits
    torch.testing.assert_close(before[:, :5], after[:, :5])
    assert not torch.allclose(before[:, 5:], after[:, 5:])


def test_long_rows_attend_as_short_ones_do(
    transformer: Transformer, tokenizer: HybridTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(3)
    teacher, given = TeacherForcing(transformer.eval()), conditioning(2, real=3)
    maps = maps_of(tokenizer.quantize, torch.randint(32, (2, 21)))
    short = teacher(given, maps).logits
    monkeypatch.setattr(teacher_forcing, "MAX_PLAIN_TOKENS", 0)
    torch.testing.assert_close(teacher(given, maps).logits, short, rtol=1e-4, atol=1e-5)
