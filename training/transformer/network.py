"""A transformer to train: the released architecture at any size, and the initialisation of its weights."""

import torch

from model.config import TokenizerConfig, TransformerConfig
from model.transformer import Transformer


def transformer_config(
    tokenizer: TokenizerConfig,
    context_tokens: int,
    context_dim: int,
    width: int,
    depth: int,
    diff_width: int | None = None,
    diff_depth: int | None = None,
) -> TransformerConfig:
    """The released architecture's switches at another size; attention heads are 64 wide.

    The residual head is 3/4 of `width` wide and 2 blocks deep by default; the released one 1024 and 6.
    """
    return TransformerConfig(
        context_token=context_tokens,
        context_dim=context_dim,
        depth=depth,
        embed_dim=width,
        num_heads=width // 64,
        mlp_type="llama",
        attn_type="llama",
        disable_aln=True,
        use_timestep_embed=True,
        use_context_norm=True,
        patch_nums=tokenizer.v_patch_nums,
        diff_width=diff_width or width * 3 // 4,
        diff_depth=diff_depth or 2,
    )


def fresh_transformer(config: TransformerConfig, tokenizer: TokenizerConfig) -> Transformer:
    """A network of this config with freshly initialised weights."""
    return initialise(Transformer(config, tokenizer.vocab_size, tokenizer.z_channels))


ZERO_AT_FIRST = (".attn.proj.", ".down_proj.", ".fc2.", ".final_layer.", ".adaLN_modulation.")


@torch.no_grad()
def initialise(network: Transformer) -> Transformer:
    """Sets residual branches, logits and the diffusion's output to zero; the rest stays as torch initialises it."""
    for name, parameter in network.named_parameters():
        if name.startswith("head.") or any(part in name for part in ZERO_AT_FIRST):
            parameter.zero_()
    return network
