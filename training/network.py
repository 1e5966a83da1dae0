"""A transformer to be trained: the released switches at any size, and how its weights begin. Knows no data."""

import torch

from model.config import TransformerConfig
from model.text import TextEncoder
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer


def small_transformer(tokenizer: HybridTokenizer, encoder: TextEncoder, width: int, depth: int) -> Transformer:
    """The released architecture's switches at another size."""
    config = TransformerConfig(
        context_token=encoder.context_tokens,
        context_dim=encoder.width,
        depth=depth,
        embed_dim=width,
        num_heads=width // 64,
        mlp_type="llama",
        attn_type="llama",
        disable_aln=True,
        use_timestep_embed=True,
        use_context_norm=True,
        patch_nums=tokenizer.config.v_patch_nums,
        diff_width=width * 3 // 4,
        diff_depth=2,
    )
    return initialise(Transformer(config, tokenizer.config.vocab_size, tokenizer.config.z_channels))


ZERO_AT_FIRST = (".attn.proj.", ".down_proj.", ".fc2.", ".final_layer.", ".adaLN_modulation.")


@torch.no_grad()
def initialise(network: Transformer) -> Transformer:
    """Residual branches begin at zero, as do the logits and the diffusion's answer; the rest as torch does it."""
    for name, parameter in network.named_parameters():
        if name.startswith("head.") or any(part in name for part in ZERO_AT_FIRST):
            parameter.zero_()
    return network
