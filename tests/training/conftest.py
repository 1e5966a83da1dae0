"""Tiny networks that train in seconds."""

import pytest
import torch

from model.config import TokenizerConfig, TransformerConfig
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer
from training.transformer.network import initialise

SIDES = (1, 2, 4)


@pytest.fixture
def tokenizer() -> HybridTokenizer:
    torch.manual_seed(0)
    return HybridTokenizer(
        TokenizerConfig(vocab_size=32, z_channels=8, ch=32, ch_mult=(1, 1), v_patch_nums=SIDES)
    ).eval()


@pytest.fixture
def transformer() -> Transformer:
    torch.manual_seed(1)
    config = TransformerConfig(
        context_token=5,
        context_dim=16,
        depth=2,
        embed_dim=32,
        num_heads=2,
        mlp_type="llama",
        attn_type="llama",
        disable_aln=True,
        use_timestep_embed=True,
        use_context_norm=True,
        patch_nums=SIDES,
        diff_width=32,
        diff_depth=2,
    )
    return Transformer(config, vocab_size=32, z_channels=8)


@pytest.fixture
def fresh(transformer: Transformer) -> Transformer:
    """As training begins with it."""
    return initialise(transformer)
