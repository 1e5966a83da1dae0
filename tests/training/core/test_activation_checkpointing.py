"""training.core.activation_checkpointing: same losses, gradients and names; fewer bytes kept."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from model.autoencoder import ResidualBlock
from model.generation import Conditioning
from model.tokenizer import HybridTokenizer
from model.transformer import Block, Transformer
from training.core.activation_checkpointing import checkpoint_activations
from training.transformer.teacher_forcing import TeacherForcing, maps_of


def kept(work: Callable[[], Tensor]) -> tuple[Tensor, int]:
    """What a forward pass gives, and how many bytes it keeps for the backward pass."""
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        return work(), sum(held.values())


def assert_same_but_smaller(network: nn.Module, loss_of: Callable[[Any], Tensor], kinds: type[nn.Module]) -> None:
    other = deepcopy(network)
    assert checkpoint_activations(other, (kinds,)) > 1
    assert list(other.state_dict()) == list(network.state_dict())
    (loss, whole), (again, part) = kept(lambda: loss_of(network)), kept(lambda: loss_of(other))
    assert torch.equal(loss, again)
    assert part < whole / 2
    loss.backward()
    again.backward()
    for (name, mine), theirs in zip(network.named_parameters(), other.parameters(), strict=True):
        if mine.grad is None:
            assert theirs.grad is None, name
        else:
            torch.testing.assert_close(mine.grad, theirs.grad, msg=name)


def test_a_checkpointed_transformer_has_the_same_gradients(
    transformer: Transformer, tokenizer: HybridTokenizer
) -> None:
    torch.manual_seed(4)
    mask = torch.ones(2, 5, dtype=torch.bool)
    given = Conditioning(torch.randn(2, 5, 16), mask, mask.long().cumsum(1) - 1)
    maps = maps_of(tokenizer.quantize, torch.randint(32, (2, 21)))

    def loss_of(network: Transformer) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return TeacherForcing(network)(given, maps).logits.square().mean()

    assert_same_but_smaller(transformer.requires_grad_(), loss_of, Block)


def test_a_checkpointed_autoencoder_has_the_same_gradients(tokenizer: HybridTokenizer) -> None:
    torch.manual_seed(4)
    side = tokenizer.config.image_side
    pictures = torch.rand(2, 3, side, side) * 2 - 1

    def loss_of(network: HybridTokenizer) -> Tensor:
        return network.decode_raw(network.features(pictures)).square().mean()

    assert_same_but_smaller(tokenizer.requires_grad_(), loss_of, ResidualBlock)
