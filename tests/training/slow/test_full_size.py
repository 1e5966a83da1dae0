"""The training code at the released size: built on the meta device, where nothing is computed but every shape is."""

import torch
from torch import Tensor

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from model.generation import Conditioning
from model.quantizer import downsample
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.tokenizer.codebook import quantise
from training.tokenizer.train import Weights, image_loss
from training.transformer.diffusion_loss import DiffusionLoss
from training.transformer.teacher_forcing import TeacherForcing


def assert_all_moved(network: torch.nn.Module, but: tuple[str, ...] = ()) -> None:
    still = [n for n, p in network.named_parameters() if p.grad is None and not n.startswith(but)]
    assert not still


def test_a_transformer_step_of_the_released_size_reaches_every_weight() -> None:
    with torch.device("meta"):
        net = Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels)
        teacher = TeacherForcing(net)
        slots = TRANSFORMER.context_token
        given = Conditioning(
            torch.empty(2, slots, TRANSFORMER.context_dim),
            torch.empty(2, slots, dtype=torch.bool),
            torch.empty(2, slots, dtype=torch.int64),
        )
        latent = torch.empty(2, TOKENIZER.z_channels, 64, 64)
        maps: list[Tensor] = [downsample(latent, n) for n in TRANSFORMER.patch_nums[1:]]
        predicted = teacher(given, maps)
        assert predicted.logits.shape == (2, 9451, 4096)
        condition = net.diffusion_condition(predicted.last_hidden, torch.empty(2, 4096, 32)).flatten(0, 1)
        t = torch.empty(len(condition), dtype=torch.int64)
        noise = torch.empty(len(condition), 32)
        loss = predicted.logits.mean() + DiffusionLoss()(net.diffloss.net, noise, condition, t, noise)
        loss.backward()
    assert_all_moved(net)


def test_a_tokenizer_step_of_the_released_size_reaches_every_weight() -> None:
    with torch.device("meta"):
        net = HybridTokenizer(TOKENIZER)
        images = torch.empty(2, 3, 1024, 1024)
        features = net.features(images)
        assert features.shape == (2, 32, 64, 64)
        coded = quantise(net.quantize, features, 0.25)
        drawn = net.decode_raw(features + (coded.latent - features).detach())
        assert drawn.shape == images.shape
        (image_loss(drawn, images, Weights()) + coded.loss).backward()
    assert_all_moved(net, but=("quantize.embedding",))  # the codebook learns by running means
