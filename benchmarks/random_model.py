"""The released architecture, or a toy of it, with random weights: in memory, or as a checkpoint on disk."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from benchmarks.load_checkpoint import TOKENIZER, TRANSFORMER
from model.config import TokenizerConfig, TransformerConfig
from model.generation import Conditioning
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer

POLICIES = ("dangerous_content", "harassment", "hate_speech", "sexually_explicit")
NEVER_UNSAFE = 0.9999
"""A threshold that random answers do not exceed: this checkpoint's prompts all count as safe."""
WORDS = (
    "a",
    "the",
    "red",
    "green",
    "blue",
    "small",
    "large",
    "heart",
    "house",
    "tree",
    "painting",
    "of",
    "with",
    "and",
)
CHAT_TEMPLATE = "{{ messages[0]['content'] }} {{ guideline }}"


@dataclass(frozen=True)
class Size:
    """The configs of both parts, and of the language models in the order layers, width, heads, hidden width."""

    transformer: TransformerConfig
    tokenizer: TokenizerConfig
    text: tuple[int, int, int, int]
    safety: tuple[int, int, int, int]


FULL = Size(TRANSFORMER, TOKENIZER, (28, 1536, 12, 8960), (26, 2304, 8, 9216))
_TOY_SIDES = (1, 2, 3, 4)
TOY = Size(
    TransformerConfig(
        context_token=16,
        context_dim=64,
        depth=2,
        embed_dim=128,
        num_heads=2,
        mlp_type="llama",
        attn_type="llama",
        disable_aln=True,
        use_timestep_embed=True,
        patch_nums=_TOY_SIDES,
        diff_width=64,
        diff_depth=2,
    ),
    TokenizerConfig(vocab_size=256, ch=32, ch_mult=(1, 2), v_patch_nums=_TOY_SIDES, quantizer_type="var_hybrid"),
    (2, 64, 2, 128),
    (2, 64, 2, 128),
)


def networks(
    device: torch.device, size: Size = FULL, dtype: torch.dtype = torch.bfloat16
) -> tuple[Transformer, HybridTokenizer]:
    """Random weights in `dtype`; those that checkpoints are loaded with in float32 stay so."""
    with device:
        net = Transformer(size.transformer, size.tokenizer.vocab_size, size.tokenizer.z_channels).to(dtype)
        tokenizer = HybridTokenizer(size.tokenizer).to(dtype)
    for module in (*net.keep_float32(), tokenizer.quantize):
        module.float()
    return net.eval().requires_grad_(False), tokenizer.eval().requires_grad_(False)


def conditioning(device: torch.device, size: Size = FULL, tokens: int = 10) -> Conditioning:
    """A random prompt of so many tokens; without values on `meta`."""
    slots = size.transformer.context_token
    mask = torch.arange(slots, device=device) < tokens
    context = torch.randn(slots, size.transformer.context_dim, device=device)
    return Conditioning(context, mask, mask.long().cumsum(0) - 1)


def write_checkpoint(folder: Path, size: Size, device: torch.device) -> None:
    """All four parts, made on the device, stored in bfloat16; the language models have vocabularies of a few words."""
    net, tokenizer = networks(device, size)
    _write(folder / "llm", "ema_model.safetensors", size.transformer.to_json(), dict(net.state_dict()))
    state = {f"vae.{name}": tensor for name, tensor in tokenizer.state_dict().items()}
    _write(folder / "tokenizer", "model.safetensors", size.tokenizer.to_json(), state)
    _write_text_encoder(folder / "text_encoder", size.text, device)
    _write_safety(folder / "safety", size.safety, device)
    (folder / "prompts.txt").write_text("a red heart\nthe small house with a tree\n")


def _write(folder: Path, file: str, config: dict[str, Any], state: dict[str, torch.Tensor]) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: tensor.bfloat16().contiguous().cpu() for name, tensor in state.items()}, folder / file)


def _write_text_encoder(folder: Path, shape: tuple[int, int, int, int], device: torch.device) -> None:
    from transformers import Qwen2Config, Qwen2Model

    layers, width, heads, hidden = shape
    vocabulary = _write_word_tokenizer(folder, [])
    with device:
        network = Qwen2Model(
            Qwen2Config(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=max(1, heads // 6),
            )
        )
    network.bfloat16().save_pretrained(folder)
    (folder / "system_prompt.txt").write_text("a painting of ")


def _write_safety(folder: Path, shape: tuple[int, int, int, int], device: torch.device) -> None:
    from transformers import Gemma2Config, Gemma2ForCausalLM

    layers, width, heads, hidden = shape
    vocabulary = _write_word_tokenizer(folder, ["Yes", "No"], chat_template=CHAT_TEMPLATE)
    with device:
        network = Gemma2ForCausalLM(
            Gemma2Config(
                vocab_size=vocabulary,
                hidden_size=width,
                intermediate_size=hidden,
                num_hidden_layers=layers,
                num_attention_heads=heads,
                num_key_value_heads=max(1, heads // 2),
                head_dim=256 if width > 1000 else width // heads,
                pad_token_id=0,
                bos_token_id=1,
                eos_token_id=2,
            )
        )
    network.bfloat16().save_pretrained(folder)
    rows = [{"name": name, "guideline": "the painting with a tree"} for name in POLICIES]
    policies = {"version": "random", "threshold": NEVER_UNSAFE, "policies": rows}
    (folder / "policies.json").write_text(json.dumps(policies))


def _write_word_tokenizer(folder: Path, more: list[str], **options: str) -> int:
    """A tokenizer of whole words; returns the size of its vocabulary."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<pad>", "<bos>", "<eos>", unknown := "<unk>"]
    vocabulary = {word: number for number, word in enumerate([*special, *more, *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens(special)
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), special, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **options).save_pretrained(folder)
    return len(vocabulary)
