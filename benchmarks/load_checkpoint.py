"""Peak memory while a full-size checkpoint loads, over its size on disk.

    python -m benchmarks.load_checkpoint

Writes the released architecture with random weights into a temporary folder (3 GB of disk), loads each file in a
process of its own, and prints the peak resident memory of that process minus its memory before the load.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file

from benchmarks.harness.cli import run_command, workplace
from model.checkpoint import Checkpoint
from model.config import TokenizerConfig, TransformerConfig
from model.device import DTYPES
from model.tokenizer import HybridTokenizer
from model.transformer import Transformer

SCALES = (1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64)
TRANSFORMER = TransformerConfig(
    context_token=300,
    context_dim=1536,
    depth=24,
    embed_dim=1536,
    num_heads=24,
    mlp_type="llama",
    attn_type="llama",
    disable_aln=True,
    use_timestep_embed=True,
    patch_nums=SCALES,
)
TOKENIZER = TokenizerConfig(v_patch_nums=SCALES, quantizer_type="var_hybrid")
CASES = (
    ("ema_model.safetensors", torch.float16, torch.float16),
    ("ema_model.safetensors", torch.float32, torch.bfloat16),
    ("ema_model.bin", torch.float32, torch.bfloat16),
    ("ema_model.bin", torch.float32, torch.float32),
)
"""File, its precision, the precision after loading."""


def write(folder: Path, file: str, dtype: torch.dtype) -> int:
    """Write the weights and configs; return the size of the weights' file in bytes."""
    with torch.device("meta"):
        network = Transformer(TRANSFORMER, TOKENIZER.vocab_size, TOKENIZER.z_channels)
        tokenizer = HybridTokenizer(TOKENIZER)
    for part, config in (("llm", TRANSFORMER), ("tokenizer", TOKENIZER)):
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(config.to_json()))
    path = folder / "llm" / file
    state = {name: torch.randn(tensor.shape).to(dtype) for name, tensor in network.state_dict().items()}
    if path.suffix == ".bin":
        torch.save(state, path)
    else:
        save_file(state, path)
    small = {f"vae.{name}": torch.zeros(tensor.shape).half() for name, tensor in tokenizer.state_dict().items()}
    save_file(small, folder / "tokenizer" / "model.safetensors")
    return path.stat().st_size


def memory(field: str) -> int:
    """Bytes of this process, by the kernel's fields VmRSS (now) or VmHWM (peak, mapped files included)."""
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"/proc/self/status has no {field}: this benchmark needs Linux")
    return int(found[1]) * 1024


def load(folder: str, dtype: str) -> None:
    """Load in this process, and print bytes and seconds as JSON."""
    before = memory("VmRSS")
    start = time.perf_counter()
    network = Checkpoint.open(folder).load_transformer(DTYPES[dtype])
    seconds = time.perf_counter() - start
    peak = memory("VmHWM") - before
    held = sum(parameter.nbytes for parameter in network.parameters())
    print(json.dumps({"peak": peak, "held": held, "seconds": seconds}))


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load_checkpoint", description=__doc__.splitlines()[0])
    parser.add_argument(
        "one", nargs="*", metavar="FOLDER DTYPE", help="load this one in this process (default: all cases)"
    )
    words = parser.parse_args().one
    if len(words) not in (0, 2):
        parser.error("expected nothing, or a folder and a dtype")
    if words and words[1] not in DTYPES:
        parser.error(f"{words[1]}: not one of {', '.join(DTYPES)}")
    load(*words) if words else measure()
    return 0


def measure() -> None:
    """Print all cases as a table."""
    print(f"{'file':24}{'on disk':>18}{'in memory':>20}{'peak':>10}{'peak / on disk':>16}{'seconds':>10}")
    for file, stored, loaded in CASES:
        with workplace() as folder:
            size = write(folder, file, stored)
            words = [str(folder), str(loaded).removeprefix("torch.")]
            command = [sys.executable, "-m", "benchmarks.load_checkpoint", *words]
            found = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        kinds = [str(dtype).removeprefix("torch.") for dtype in (stored, loaded)]
        print(
            f"{file:24}{kinds[0]:>9}{size / 1e9:6.2f} GB{kinds[1]:>11}{found['held'] / 1e9:6.2f} GB"
            f"{found['peak'] / 1e9:7.2f} GB{found['peak'] / size:16.2f}{found['seconds']:10.1f}"
        )


if __name__ == "__main__":
    sys.exit(run_command(main))
