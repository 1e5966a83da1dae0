"""Steps of training read no value back from the device: a GPU is never waited for between two logged steps."""

from collections.abc import Collection
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.core.loop import Progress
from training.core.optim import Optimizers
from training.data.text_cache import TextCache
from training.data.token_cache import TokenCache
from training.transformer.condition_cache import CacheConfig, cached_conditions
from training.transformer.residual import HeadConfig, ResidualTraining
from training.transformer.train import TrainConfig, TrainingData, TransformerTraining

READS = ("_local_scalar_dense", "nonzero", "item", "is_nonzero", "masked_select", "unique")


class Reads(TorchDispatchMode):
    """Records the operators whose result the host needs before it can go on."""

    def __init__(self, on_host: Collection[int] = ()) -> None:
        """`on_host`: addresses of tensors that lie on the host on every device."""
        super().__init__()
        self.found: list[str] = []
        self.on_host = on_host

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.removeprefix("aten::")
        if name.startswith(READS) and args[0].data_ptr() not in self.on_host:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def data() -> TrainingData:
    torch.manual_seed(5)
    tokens = TokenCache(torch.randint(32, (6, 21)).short(), torch.randn(6, 16, 8).half() * 0.2)
    text = TextCache([["an image"]] * 6, torch.randn(6, 5, 16).half(), (torch.arange(5) < 3).expand(6, -1))
    return TrainingData(tokens, text, scenes=2)


def reads_of(step: Any, *optimizers: Optimizers) -> list[str]:
    """The reads of a second step; AdamW's counters, which torch keeps on the host, are none."""
    step(Progress(step=0))  # optimisers make their state at first
    states = [state for group in optimizers for member in group.members for state in member.state.values()]
    with Reads({state["step"].data_ptr() for state in states if "step" in state}) as reads:
        step(Progress(step=1))
    return reads.found


def test_a_step_of_the_transformer_waits_for_nothing(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData
) -> None:
    training = TransformerTraining(transformer, tokenizer.quantize, data, TrainConfig(batch=4))
    assert reads_of(training.step, training.optimizers, training.probe_optimizer) == []


def test_a_step_of_the_head_waits_for_nothing(
    transformer: Transformer, tokenizer: HybridTokenizer, data: TrainingData, tmp_path: Any
) -> None:
    cache = cached_conditions(transformer, tokenizer.quantize, data, CacheConfig(passes=1), tmp_path / "rows")
    training = ResidualTraining(transformer.diffloss, cache, HeadConfig(batch=16))
    assert reads_of(training.step, training.optimizers) == []


def test_reading_a_value_is_seen() -> None:
    with Reads() as reads:
        float(torch.ones(1).sum())
    assert reads.found
