"""A checkpoint for drills: the tests' tiny one with a slower transformer, so that faults hit images in progress."""

import dataclasses
import json
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.harness import checkpoint as tiny
from model.checkpoint import Checkpoint
from model.transformer import Transformer

SCALES = (1, 2, 3, 4, 6, 8)
WIDTH, HEADS, DEPTH = 128, 4, 12


def build(parent: Path) -> Path:
    """Write the checkpoint into `parent`/tiny and return that folder. The same weights every time."""
    folder = tiny.build(parent)
    tokenizer = folder / "tokenizer" / "config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "v_patch_nums": SCALES}))
    found = Checkpoint.open(folder)
    config = dataclasses.replace(
        found.transformer_config, embed_dim=WIDTH, num_heads=HEADS, depth=DEPTH, patch_nums=SCALES
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        network = Transformer(config, found.tokenizer_config.vocab_size, found.tokenizer_config.z_channels)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.1)
    for old in (folder / "llm").glob("*"):
        old.unlink()
    (folder / "llm" / "config.json").write_text(json.dumps(config.to_json()))
    save_file(dict(network.state_dict()), folder / "llm" / "ema_model.safetensors")
    return folder
