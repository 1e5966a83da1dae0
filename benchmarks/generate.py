"""How fast the released architecture draws on one device, with random weights in bfloat16.

    python -m benchmarks.generate [--batches 1 8] [--modes eager kernels] [--json FILE] [--profile FILE]

For each batch and mode: milliseconds of each scale and of the decoder, images a second, peak memory, and the share of
the floor: the part's FLOPs over the rate of a large matrix product measured in the same run. Modes: eager (torch's
operations), kernels (`kernels/`), graphs (`model.graphs` over torch's operations), both. Then the memory's growth over
200 images, and the profiler's table of one image. Random weights take the time of trained ones. Each figure is written
as soon as it is measured, and a run with the same --json continues where the last one ended; what failed is recorded
and not tried again. Without the device it ends with 2. `--toy` runs everything at a toy size: a rehearsal, no measure.
"""

import argparse
import importlib
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.harness.cli import run_command
from benchmarks.harness.report import NO_DEVICE, Report, recorded
from benchmarks.random_model import FULL, TOY, Size, conditioning, networks
from benchmarks.timing import (
    copy_rate,
    device_argument,
    device_name,
    matrix_rate,
    peak_gigabytes,
    seconds,
    wait_for,
)
from model.capture import Replay
from model.generation import GenerationState, Generator
from model.noise import SeededNoise
from model.params import SamplingParams

Decode = Callable[[torch.Tensor], torch.Tensor]
MODES = ("eager", "kernels", "graphs", "both")
BATCHES = (1, 8, 4, 2)
ROUNDS = 5
GROWTH_IMAGES = 200
META = torch.device("meta")
TERA = 1e12


class AbsentModeError(Exception):
    """This checkout has no such mode; the message names what is missing."""


class Subject:
    """One generator and its decoder in a mode."""

    def __init__(self, device: torch.device, size: Size, batch: int, mode: str) -> None:
        self.device, self.size, self.batch, self.mode = device, size, batch, mode
        net, tokenizer = networks(device, size)
        self.decoder: Decode = tokenizer.decode
        with implementation(mode):
            if mode in ("kernels", "both"):  # as checkpoints are loaded for them
                tokenizer.decoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            self.generator = Generator(net, tokenizer.quantize, slots=batch)
            if mode in ("graphs", "both"):
                graphs = importlib.import_module("model.graphs")
                graphs.attach(self.generator, [batch])
                side = size.tokenizer.v_patch_nums[-1]
                example = torch.zeros(1, size.tokenizer.z_channels, side, side, device=device)
                with torch.inference_mode():
                    replay = Replay(lambda latent: (tokenizer.decode(latent),), example)
                self.decoder = lambda latent: replay(latent)[0]

    @torch.inference_mode()
    def draw(self, first_seed: int = 0) -> dict[str, float]:
        """Seconds of each part of one batch of images."""
        with implementation(self.mode):
            given = conditioning(self.device, self.size)
            states: list[GenerationState] = []

            def begin() -> None:
                seeds = range(first_seed, first_seed + self.batch)
                states.extend(self.generator.begin(given, SeededNoise(i, self.device), SamplingParams()) for i in seeds)

            parts = {"begin": seconds(self.device, begin)}
            for n in self.size.transformer.patch_nums:
                parts[f"scale {n}"] = seconds(self.device, lambda: self.generator.advance(states))
            parts["decoder"] = seconds(self.device, lambda: decode(self.decoder, states))
            for state in states:
                self.generator.release(state)
        if not all(bool(state.latent.isfinite().all()) for state in states):
            raise ArithmeticError("a latent is not finite")
        return parts

    @torch.inference_mode()
    def draw_unobserved(self, first_seed: int = 0) -> None:
        """The same without waiting for the device between parts."""
        with implementation(self.mode):
            given = conditioning(self.device, self.size)
            seeds = range(first_seed, first_seed + self.batch)
            states = [self.generator.begin(given, SeededNoise(i, self.device), SamplingParams()) for i in seeds]
            for _ in self.size.transformer.patch_nums:
                self.generator.advance(states)
            decode(self.decoder, states)
            for state in states:
                self.generator.release(state)


def decode(decoder: Decode, states: Sequence[GenerationState]) -> torch.Tensor:
    """Images (n, 3, S, S), one after another as the decoder service does."""
    return torch.cat([decoder(state.latent[None]) for state in states])


def implementation(mode: str) -> AbstractContextManager[object]:
    """The context in which a mode's operations run: torch's own, or kernels where the device has them."""
    if importlib.util.find_spec("kernels") is None:
        if mode in ("kernels", "both"):
            raise AbsentModeError("there is no kernels/")
        return nullcontext()
    choose = importlib.import_module("kernels.choose")
    context: AbstractContextManager[object] = choose.using("auto" if mode in ("kernels", "both") else "twin")
    return context


def absent(device: torch.device, mode: str) -> str | None:
    """Why this checkout cannot run a mode on the device, or None."""
    if mode in ("kernels", "both"):
        if importlib.util.find_spec("kernels") is None:
            return "absent: there is no kernels/"
        if device.type == "cuda" and importlib.util.find_spec("triton") is None:
            return "absent: triton is not installed"
    if mode in ("graphs", "both") and importlib.util.find_spec("model.graphs") is None:
        return "absent: there is no model/graphs.py"
    return None


@torch.inference_mode()
def floating_point_operations(size: Size) -> dict[str, int]:
    """FLOPs of each part of one image, counted on `meta`: matrix products, attention and convolutions."""
    net, tokenizer = networks(META, size)
    generator = Generator(net, tokenizer.quantize)
    state = generator.begin(conditioning(META, size), SeededNoise(0, META), SamplingParams())
    parts = {f"scale {n}": _flops(lambda: generator.advance([state])) for n in size.transformer.patch_nums}
    return {**parts, "decoder": _flops(lambda: tokenizer.decode(state.latent[None]))}


def _flops(work: Callable[[], object]) -> int:
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure(subject: Subject, rounds: int, floor: dict[str, float]) -> dict[str, Any]:
    """Medians of a batch by part in milliseconds, and what follows from them."""
    start = time.perf_counter()
    subject.draw()  # compiles, captures and fills caches
    first = time.perf_counter() - start
    if subject.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(subject.device)
    found = [subject.draw(first_seed=100 * i) for i in range(rounds)]
    medians = {name: 1000 * statistics.median(one[name] for one in found) for name in found[0]}
    whole = [1000 * seconds(subject.device, subject.draw_unobserved) for _ in range(rounds)]
    total = statistics.median(whole)
    shares = {name: round(subject.batch * floor[name] / medians[name], 3) for name in floor}
    return {
        "ms by part": {name: round(value, 3) for name, value in medians.items()},
        "share of the floor by part": shares,
        "ms": round(total, 2),
        "ms, min": round(min(whole), 2),
        "images a second": round(1000 * subject.batch / total, 3),
        "share of the floor": round(subject.batch * sum(floor.values()) / total, 3),
        "peak GB": round(peak_gigabytes(subject.device), 2),
        "first draw, seconds": round(first, 1),
    }


def growth(subject: Subject, images: int) -> dict[str, Any]:
    """Memory allocated on the device after batches of images, and by how much the last exceeds the first."""
    held: list[int] = []
    for i in range(max(3, images // subject.batch)):
        subject.draw_unobserved(first_seed=i * subject.batch)
        wait_for(subject.device)
        held.append(torch.cuda.memory_allocated(subject.device) if subject.device.type == "cuda" else 0)
    settled = held[1:]  # the first draw fills caches
    return {"images": subject.batch * len(held), "bytes": settled[:: max(1, len(settled) // 10)],
            "growth, bytes": settled[-1] - settled[0]}  # fmt: skip


def profile(subject: Subject, path: Path) -> dict[str, Any]:
    """Writes the profiler's table of one batch; returns the number of launches and the device's busy milliseconds."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if subject.device.type == "cuda":
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    subject.draw_unobserved()
    wait_for(subject.device)
    with torch.profiler.profile(activities=activities) as profiler:
        subject.draw_unobserved()
        wait_for(subject.device)
    averages = profiler.key_averages()
    on_device = [one for one in averages if ("CPU" in str(one.device_type)) is (subject.device.type == "cpu")]
    spent = "self_cpu_time_total" if subject.device.type == "cpu" else "self_device_time_total"
    ranked = sorted(on_device, key=attrgetter(spent), reverse=True)
    lines = [f"{getattr(one, spent):12.0f} {one.count:6d}  {one.key[:150]}" for one in ranked]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(f"batch {subject.batch}, {subject.mode}: microseconds, calls\n{chr(10).join(lines)}\n\n")
    return {
        "launches": sum(one.count for one in averages if "LaunchKernel" in one.key or "GraphLaunch" in one.key),
        "kernels and copies": sum(one.count for one in on_device),
        "device ms": round(sum(getattr(one, spent) for one in on_device) / 1000, 2),
        "table": path.name,
    }


def floors(report: Report, device: torch.device, size: Size) -> dict[str, float]:
    """Milliseconds that an image's parts take at the rate of a large matrix product."""
    small = device.type == "cpu"
    if "floor, ms" not in report:
        flops = floating_point_operations(size)
        rate = matrix_rate(device, 512 if small else 8192)
        report.put("device", {"name": device_name(device), "torch": torch.__version__})
        report.put("matrix TFLOP/s", round(rate / TERA, 1 if rate > TERA else 4))
        report.put("copy TB/s", round(copy_rate(device, 1 << (24 if small else 30)) / TERA, 3))
        report.put("TFLOP an image", {name: round(value / TERA, 6) for name, value in flops.items()})
        report.put("floor, ms", {name: 1000 * value / rate for name, value in flops.items()})
    found: dict[str, float] = report.figures["floor, ms"]
    return found


def run(arguments: argparse.Namespace, report: Report) -> None:
    """Everything that the report lacks, the most wanted first."""
    device, size = arguments.device, TOY if arguments.toy else FULL
    if device.type == "cuda":
        torch.set_float32_matmul_precision("highest")
    floor = floors(report, device, size)
    for number, batch in enumerate(arguments.batches):
        for mode in arguments.modes:
            name = f"batch {batch}, {mode}"
            if reason := absent(device, mode):
                report.put(name, reason)
                continue
            if name not in report:
                with recorded(report, name):
                    report.put(name, measure(Subject(device, size, batch, mode), arguments.rounds, floor))
            name = f"profile, batch {batch}, {mode}"
            if number == 0 and arguments.profile and name not in report:
                with recorded(report, name):
                    report.put(name, profile(Subject(device, size, batch, mode), arguments.profile))
        name = f"growth, batch {batch}"
        if number == 1 and name not in report:
            with recorded(report, name):
                best = [mode for mode in arguments.modes if absent(device, mode) is None][-1]
                report.put(name, {"mode": best, **growth(Subject(device, size, batch, best), arguments.growth)})


def main() -> int:
    """Follow the command line; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__.splitlines()[0])
    parser.add_argument("--device", type=device_argument, default="cuda", help="cpu, cuda or cuda:N")
    parser.add_argument("--batches", type=_count, nargs="+", default=list(BATCHES), help="images drawn at once")
    parser.add_argument("--modes", choices=MODES, nargs="+", default=list(MODES))
    parser.add_argument("--rounds", type=_count, default=ROUNDS, help="the median of so many")
    parser.add_argument("--growth", type=_count, default=GROWTH_IMAGES, help="images while memory is watched")
    parser.add_argument("--toy", action="store_true", help="a toy size: a rehearsal")
    parser.add_argument("--json", type=Path, help="write the figures to this file as they come, and continue it")
    parser.add_argument("--profile", type=Path, help="write the profiler's tables of the first batch to this file")
    arguments = parser.parse_args()
    if arguments.device.type == "cuda" and not torch.cuda.is_available():
        print("No CUDA device: full-size drawing wants one GPU and torch built for it.", file=sys.stderr)
        return NO_DEVICE
    run(arguments, Report(arguments.json))
    return 0


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text}: must be at least 1")
    return value


if __name__ == "__main__":
    sys.exit(run_command(main))
