"""model.transformer, model.tokenizer: the released architecture's size, keys and shapes, on the meta device."""

from typing import Any

import pytest
import torch

from model.config import TokenizerConfig, TransformerConfig
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer

SCALES = (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)
RELEASED = TransformerConfig(
    context_token=300, context_dim=1536, depth=24, embed_dim=1536, num_heads=24, mlp_type="llama", attn_type="llama",
    disable_aln=True, use_timestep_embed=True, patch_nums=SCALES,
)  # fmt: skip
C, D, F, V, Z, W = 1536, 1536, 4096, 4096, 32, 1024


def shapes(module: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


@pytest.fixture(scope="module")
def transformer() -> Transformer:
    with torch.device("meta"):
        return Transformer(RELEASED, V, Z)


def test_released_transformer_has_732_million_parameters(transformer: Transformer) -> None:
    assert f"{sum(p.numel() for p in transformer.parameters()) / 1e6:.2f}" == "732.40"
    assert f"{sum(p.numel() for p in transformer.diffloss.parameters()) / 1e6:.2f}" == "36.59"


def test_keys_and_shapes_equal_the_released_ones(transformer: Transformer) -> None:
    expected = {
        "word_embed.weight": (C, Z), "word_embed.bias": (C,),
        "context_embed.weight": (C, D), "context_embed.bias": (C,),
        "lvl_embed.mlp.0.weight": (C, 256), "lvl_embed.mlp.0.bias": (C,),
        "lvl_embed.mlp.2.weight": (C, C), "lvl_embed.mlp.2.bias": (C,),
        "head_nm.ln_wo_grad.weight": (C,),
        "head_nm.ada_lin.1.weight": (2 * C, C), "head_nm.ada_lin.1.bias": (2 * C,),
        "head.weight": (V, C), "head.bias": (V,), "decoder_norm.weight": (C,),
        "diffloss.net.time_embed.mlp.0.weight": (W, 256), "diffloss.net.time_embed.mlp.0.bias": (W,),
        "diffloss.net.time_embed.mlp.2.weight": (W, W), "diffloss.net.time_embed.mlp.2.bias": (W,),
        "diffloss.net.cond_embed.weight": (W, C), "diffloss.net.cond_embed.bias": (W,),
        "diffloss.net.input_proj.weight": (W, Z), "diffloss.net.input_proj.bias": (W,),
        "diffloss.net.final_layer.linear.weight": (2 * Z, W), "diffloss.net.final_layer.linear.bias": (2 * Z,),
        "diffloss.net.final_layer.adaLN_modulation.1.weight": (2 * W, W),
        "diffloss.net.final_layer.adaLN_modulation.1.bias": (2 * W,),
    }  # fmt: skip
    for i in range(24):
        expected |= {
            f"blocks.{i}.ln_wo_grad.weight": (C,),
            f"blocks.{i}.attn.q_bias": (C,), f"blocks.{i}.attn.v_bias": (C,),
            f"blocks.{i}.attn.qkv_proj.weight": (3 * C, C),
            f"blocks.{i}.attn.proj.weight": (C, C), f"blocks.{i}.attn.proj.bias": (C,),
            f"blocks.{i}.ffn.gate_proj.weight": (F, C), f"blocks.{i}.ffn.up_proj.weight": (F, C),
            f"blocks.{i}.ffn.down_proj.weight": (C, F),
        }  # fmt: skip
    for j in range(6):
        prefix = f"diffloss.net.res_blocks.{j}"
        for layer in ("mlp.0", "mlp.2"):
            expected |= {f"{prefix}.{layer}.weight": (W, W), f"{prefix}.{layer}.bias": (W,)}
        expected |= {f"{prefix}.in_ln.weight": (W,), f"{prefix}.in_ln.bias": (W,)}
        name = f"{prefix}.adaLN_modulation.1"
        expected |= {f"{name}.weight": (3 * W, W), f"{name}.bias": (3 * W,)}
    assert shapes(transformer) == expected


@pytest.mark.parametrize(
    ("changes", "added"),
    [
        ({"use_timestep_embed": False}, {"lvl_embed.weight": (14, C)}),
        ({"use_context_norm": True}, {"context_norm.weight": (D,)}),
        ({"attn_l2_norm": True}, {"blocks.0.attn.scale_mul_1H11": (1, 24, 1, 1)}),
        ({"disable_aln": False}, {"blocks.0.ada_lin.1.weight": (6 * C, C), "blocks.0.ada_lin.1.bias": (6 * C,)}),
        ({"shared_aln": True}, {"blocks.0.scale_shift_table": (6, C)}),
        ({"mlp_type": "gpt2"}, {"blocks.0.ffn.fc1.weight": (4 * C, C), "blocks.0.ffn.fc2.bias": (C,)}),
    ],
)
def test_switches_add_their_keys(changes: dict[str, Any], added: dict[str, tuple[int, ...]]) -> None:
    with torch.device("meta"):
        found = shapes(Transformer(TransformerConfig(**{**vars(RELEASED), "depth": 1, **changes}), V, Z))
    assert found.items() >= added.items()


def test_released_tokenizer_reduces_sixteenfold() -> None:
    config = TokenizerConfig(v_patch_nums=SCALES, quantizer_type="var_hybrid")
    with torch.device("meta"):
        tokenizer = HybridTokenizer(config)
        latent = tokenizer.features(torch.empty(1, 3, 1024, 1024))
        assert latent.shape == (1, 32, 64, 64)
        assert tokenizer.decode(latent).shape == (1, 3, 1024, 1024)
    assert config.image_side == 1024
    assert f"{sum(p.numel() for p in tokenizer.decoder.parameters()) / 1e6:.1f}" == "64.7"
    found = shapes(tokenizer)
    assert found["encoder.down.3.downsample.conv.weight"] == (320, 320, 3, 3)
    assert found["decoder.up.4.attn.2.qkv.weight"] == (3 * 640, 640, 1, 1)
    assert found["quantize.quant_resi.qresi_ls.3.weight"] == (32, 32, 3, 3)
