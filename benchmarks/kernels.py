"""Each fused operation against its twin in plain torch and against torch's nearest call, on one device.

    python -m benchmarks.kernels [--json FILE]

Shapes are the released model's at its last scale and at scale 16, one image with both branches, in bfloat16 (sampling
in float32). Microseconds are medians; the share of the bandwidth is the fewest bytes that the operation must move over
what a large copy moves. The nearest call computes less than the operation, or rounds elsewhere: it says what torch
alone costs. `--toy` runs tiny shapes: a rehearsal, in Triton's interpreter where TRITON_INTERPRET=1.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.harness.cli import run_command
from benchmarks.harness.report import NO_DEVICE, Report, recorded
from benchmarks.timing import copy_rate, device_argument, device_name, seconds
from kernels import choose, launch
from kernels.group_norm import group_norm
from kernels.layer_norm import layer_norm
from kernels.rms_norm import add_rms_norm
from kernels.rotary import rotate_and_keep
from kernels.sampling import Draw, sample
from kernels.silu_mul import silu_mul

TOP_K, CHANNELS = 300, 32
REPEATS = 30


@dataclass(frozen=True)
class Case:
    """One operation at one shape."""

    name: str
    operation: Callable[[], object]
    torch_call: Callable[[], object] | None
    moved: int
    """The fewest bytes read and written."""


@dataclass(frozen=True)
class Shapes:
    """Of one image with both branches."""

    length: int
    width: int
    hidden: int
    heads: int
    diffusion: int
    vocabulary: int
    map_width: int
    map_side: int


FULL = (Shapes(4096, 1536, 4096, 24, 1024, 4096, 160, 1024), Shapes(256, 1536, 4096, 24, 1024, 4096, 640, 64))
TOY = (Shapes(4, 32, 64, 2, 16, 64, 32, 4),)


class Maker:
    """Random tensors of one dtype on one device."""

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.device, self.dtype = device, dtype

    def __call__(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        return torch.randn(shape, device=self.device, dtype=dtype or self.dtype)


def cases(shapes: Shapes, of: Maker) -> list[Case]:
    """Every operation at these shapes."""
    return [
        _silu_mul(shapes, of),
        _rms_norm(shapes, of),
        _layer_norm(shapes, of),
        _rotary(shapes, of),
        _group_norm(shapes, of),
        _sampling(shapes, of),
    ]


def _silu_mul(shapes: Shapes, of: Maker) -> Case:
    gate, up = of(2, shapes.length, shapes.hidden), of(2, shapes.length, shapes.hidden)
    return Case("silu_mul", lambda: silu_mul(gate, up), lambda: F.silu(gate), 3 * gate.nbytes)


def _rms_norm(shapes: Shapes, of: Maker) -> Case:
    x, update, weight = of(2, shapes.length, shapes.width), of(2, shapes.length, shapes.width), of(shapes.width)
    return Case(
        "add_rms_norm",
        lambda: add_rms_norm(x, update, None, weight, 1e-6),
        lambda: F.rms_norm(x, (shapes.width,), weight, 1e-6),
        4 * x.nbytes,
    )


def _layer_norm(shapes: Shapes, of: Maker) -> Case:
    width = shapes.diffusion
    x, update = (of(1, 2, shapes.length, width) for _ in range(2))
    shift, scale, gate = of(1, 2, shapes.length, 3 * width).chunk(3, dim=-1)
    lines = (of(width), of(width))
    return Case(
        "layer_norm",
        lambda: layer_norm(x, (gate, update), lines, shift, scale),
        lambda: F.layer_norm(x, (width,), *lines),
        7 * x.nbytes,
    )


def _rotary(shapes: Shapes, of: Maker) -> Case:
    heads, size = shapes.heads, shapes.width // shapes.heads
    qkv = of(2, shapes.length, 3, heads, size)
    kept = (of(2, heads, shapes.length + 8, size), of(2, heads, shapes.length + 8, size))
    table = (of(2, 1, shapes.length, size), of(2, 1, shapes.length, size))
    biases = (of(shapes.width), of(shapes.width))
    rows = torch.arange(2, device=of.device)
    return Case(
        "rotary",
        lambda: rotate_and_keep(qkv, biases, table, kept, rows, 8),
        None,
        2 * qkv.nbytes + 2 * table[0].nbytes,
    )


def _group_norm(shapes: Shapes, of: Maker) -> Case:
    x = of(1, shapes.map_width, shapes.map_side, shapes.map_side).contiguous(memory_format=torch.channels_last)
    lines = (of(shapes.map_width), of(shapes.map_width))
    dense = x.contiguous()
    return Case(
        "group_norm",
        lambda: group_norm(x, 32, *lines, 1e-6, True),
        lambda: F.silu(F.group_norm(dense, 32, *lines, 1e-6)),
        3 * x.nbytes,
    )


def _sampling(shapes: Shapes, of: Maker) -> Case:
    length, vocabulary = shapes.length, shapes.vocabulary
    logits = of(1, 2, length, vocabulary, dtype=torch.float32) * 4
    guidance, more_smooth = torch.full((1,), 4.0, device=of.device), torch.ones(1, dtype=torch.bool, device=of.device)
    keys, book = torch.tensor([[7, 0]], device=of.device), of(vocabulary, CHANNELS, dtype=torch.float32)
    draw = Draw(13, min(TOP_K, vocabulary // 2), 1.9, 0.03)

    def torch_call() -> Tensor:
        values, indices = logits[0, 0].topk(draw.top_k)
        return indices.gather(-1, values.softmax(-1).multinomial(1))

    moved = logits.nbytes + length * (8 + 4 * CHANNELS)
    return Case("sampling", lambda: sample(logits, guidance, keys, more_smooth, book, draw), torch_call, moved)


def microseconds(device: torch.device, work: Callable[[], object]) -> float:
    """The median of single runs on the device, after three that are not counted; of the wall on a CPU."""
    for _ in range(3):
        work()
    if device.type == "cpu":
        return 1e6 * statistics.median(seconds(device, work) for _ in range(3))
    flush = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    times = []
    for _ in range(REPEATS):
        flush.zero_()  # what the run before left in the cache
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(1000 * begin.elapsed_time(end))
    return statistics.median(times)


def measure(device: torch.device, case: Case, rate: float) -> dict[str, object]:
    """Kernel, twin and torch's nearest call in microseconds."""
    found: dict[str, object] = {}
    for name, mode in (("kernel", "kernel"), ("twin", "twin")):
        if name == "kernel" and not (choose.triton_is_installed() and (device.type == "cuda" or launch.interpreted())):
            found[name] = "absent: neither a CUDA device with triton nor its interpreter"
            continue
        with choose.using(mode):
            found[f"{name}, us"] = round(microseconds(device, case.operation), 1)
    if case.torch_call is not None:
        found["torch, us"] = round(microseconds(device, case.torch_call), 1)
    fastest = found.get("kernel, us")
    if isinstance(fastest, float):
        found["share of the bandwidth"] = round(1e6 * case.moved / rate / fastest, 3)
    return found


def run(device: torch.device, toy: bool, report: Report) -> None:
    """Every operation at every shape that the report lacks."""
    rate = copy_rate(device, 1 << (20 if toy else 30))
    report.put("device", {"name": device_name(device), "copy TB/s": round(rate / 1e12, 3)})
    for shapes in TOY if toy else FULL:
        for case in cases(shapes, Maker(device, torch.bfloat16)):
            name = f"{case.name}, {shapes.length} tokens"
            if name not in report:
                with recorded(report, name), torch.inference_mode():
                    report.put(name, measure(device, case, rate))


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_argument, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--toy", action="store_true", help="tiny shapes: a rehearsal")
    parser.add_argument("--json", type=Path, help="write the figures to this file as they come, and continue it")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: timing kernels wants one GPU and torch built for it.", file=sys.stderr)
        return NO_DEVICE
    run(arguments.device, arguments.toy, Report(arguments.json))
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
