"""What the model leaves to libraries, in every way that they offer it, at the released shapes on one device.

    python -m benchmarks.libraries [--json FILE]

Attention by backend at every scale, the blocks' matrix products, the head in float32 by precision, and the decoder by
memory format and replayed as a graph. Milliseconds are medians; a rate counts the FLOPs of one call. `--toy` runs tiny
shapes: a rehearsal.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.harness.cli import run_command
from benchmarks.harness.report import NO_DEVICE, Report, recorded
from benchmarks.random_model import FULL, TOY, Size, networks
from benchmarks.timing import device_argument, device_name, seconds, wait_for
from kernels import choose
from kernels.split_product import split_product, split_weight

REPEATS, CALLS = 15, 24
BACKENDS = {
    "default": None,
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}


def milliseconds(device: torch.device, work: Callable[[], object], calls: int = 1) -> float:
    """The median of one call's time; `calls` calls are timed together, so that launches do not show."""
    for _ in range(3):
        work()
    if device.type == "cpu":
        return 1000 * seconds(device, work)
    times = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def attention(report: Report, device: torch.device, size: Size, rows: int) -> None:
    """Softmax attention of a scale over a row of the KV cache, as the generator calls it, within a graph."""
    config = size.transformer
    for side in config.patch_nums[1:]:
        before = config.context_token + sum(n * n for n in config.patch_nums[1:] if n < side)
        heads, width, length = config.num_heads, config.head_dim, side * side
        of = partial(torch.randn, device=device, dtype=torch.bfloat16)
        q = of(rows, length, heads, width).transpose(1, 2)
        k, v = of(rows, heads, before + length, width), of(rows, heads, before + length, width)
        flops = 4 * rows * heads * length * (before + length) * width
        for name, backend in BACKENDS.items():
            figure = f"attention {side}, {rows} rows, {name}"
            if figure in report or (device.type == "cpu" and backend is not None):
                continue
            with recorded(report, figure):
                calls = 1 if side > 30 else CALLS
                took = milliseconds(device, replayed(device, partial(attend, backend, q, k, v), calls)) / calls
                report.put(figure, {"ms": round(took, 4), "TFLOP/s": round(flops / took / 1e9, 1)})


def attend(backend: SDPBackend | None, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention by a backend, or by the one that torch chooses."""
    if backend is None:
        return F.scaled_dot_product_attention(q, k, v)
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v)


def replayed(device: torch.device, work: Callable[[], object], calls: int) -> Callable[[], object]:
    """So many calls, in one graph on a GPU."""

    def several() -> None:
        for _ in range(calls):
            work()

    return captured(several) if device.type == "cuda" else several


def products(report: Report, device: torch.device, size: Size) -> None:
    """The matrix products of a block and of the diffusion at several numbers of tokens."""
    config, hidden = size.transformer, 256 * int((2 * size.transformer.embed_dim * 4 / 3 + 255) // 256)
    width, narrow = config.embed_dim, config.diff_width
    shapes = {"qkv": (width, 3 * width), "proj": (width, width), "gate and up": (width, 2 * hidden),
              "gate": (width, hidden), "down": (hidden, width), "diffusion": (narrow, narrow),
              "diffusion modulation": (narrow, 3 * narrow)}  # fmt: skip
    for tokens in [2 * n * n for n in (config.patch_nums[-1], config.patch_nums[-3], config.patch_nums[-6:][0])]:
        for name, (inside, outside) in shapes.items():
            x = torch.randn(tokens, inside, device=device, dtype=torch.bfloat16)
            w = torch.randn(outside, inside, device=device, dtype=torch.bfloat16)
            figure = f"product {name}, {tokens} tokens"
            if figure not in report:
                with recorded(report, figure):
                    took = milliseconds(device, partial(F.linear, x, w), 4)
                    rate = 2 * tokens * inside * outside / took / 1e9
                    report.put(figure, {"ms": round(took, 4), "TFLOP/s": round(rate, 1)})


def head(report: Report, device: torch.device, size: Size) -> None:
    """The logits' product in float32 at the last scale, by the precision that it may use inside."""
    config = size.transformer
    tokens = 2 * config.patch_nums[-1] ** 2
    x = torch.randn(tokens, config.embed_dim, device=device)
    w = torch.randn(size.tokenizer.vocab_size, config.embed_dim, device=device) * 0.02
    exact = x[:64].double() @ w.double().T
    for precision in ("highest", "high", "medium"):
        figure = f"head, {precision}"
        if figure not in report:
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision(precision)
            with recorded(report, figure):
                took = milliseconds(device, partial(F.linear, x, w), 2)
                error = float((F.linear(x[:64], w).double() - exact).abs().max())
                report.put(figure, {"ms": round(took, 4), "max error": error})
            torch.set_float32_matmul_precision(before)
    if "head, split" not in report:
        split, bias = split_weight(w), torch.zeros(len(w), device=device)
        with recorded(report, "head, split"):
            took = milliseconds(device, partial(split_product, x, split, bias), 2)
            error = float((split_product(x[:64], split, bias).double() - exact).abs().max())
            report.put("head, split", {"ms": round(took, 4), "max error": error})


def decoder(report: Report, device: torch.device, size: Size) -> None:
    """One latent to pixels, and four at once, in every way."""
    _, tokenizer = networks(device, size)
    side = size.tokenizer.v_patch_nums[-1]
    latents = torch.randn(4, size.tokenizer.z_channels, side, side, device=device)

    def measure(name: str, count: int, graph: bool = False) -> None:
        if name in report:
            return
        with recorded(report, name):
            work: Callable[[], Any] = lambda: tokenizer.decode(latents[:count])  # noqa: E731
            if graph:
                work = captured(work)
            took = milliseconds(device, work)
            report.put(name, {"ms": round(took, 3), "ms an image": round(took / count, 3)})

    for mode, kind in (("twin", torch.contiguous_format), ("auto", torch.channels_last)):
        if device.type == "cpu" and mode == "auto":
            continue
        tokenizer.decoder.to(memory_format=kind)  # type: ignore[call-overload]
        label = f"decoder, {'kernels' if mode == 'auto' else 'torch'}"
        with choose.using(mode):
            measure(label, 1)
            measure(f"{label}, 4 at once", 4)
            if device.type == "cuda" and mode == "auto":
                measure(f"{label}, graph", 1, graph=True)


def captured(work: Callable[[], Any]) -> Callable[[], object]:
    """The replay of a CUDA graph of the work."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        work()
    wait_for(torch.device("cuda"))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def attention_alone_and_batched(report: Report, device: torch.device, size: Size) -> None:
    """Attention of one image's rows and of eight images'."""
    attention(report, device, size, 2)
    attention(report, device, size, 16)


PARTS = {"attention": attention_alone_and_batched, "decoder": decoder, "head": head, "products": products}


@torch.inference_mode()
def run(device: torch.device, size: Size, report: Report, parts: Sequence[str]) -> None:
    """Everything of these parts that the report lacks."""
    report.put("device", device_name(device))
    torch.set_float32_matmul_precision("highest")
    for part in parts:
        PARTS[part](report, device, size)


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.libraries", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_argument, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--parts", choices=list(PARTS), nargs="+", default=list(PARTS))
    parser.add_argument("--toy", action="store_true", help="tiny shapes: a rehearsal")
    parser.add_argument("--json", type=Path, help="write the figures to this file as they come, and continue it")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: timing libraries wants one GPU and torch built for it.", file=sys.stderr)
        return NO_DEVICE
    run(arguments.device, TOY if arguments.toy else FULL, Report(arguments.json), arguments.parts)
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
