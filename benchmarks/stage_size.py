"""Memory and throughput of each process, measured stage by stage.

    python -m benchmarks.stage_size [--seconds 10] [--checkpoint FOLDER] [--threads 1] [--callers 16]

One cluster on this machine. Each stage is called directly, without the gateway, first one call at a time and then by
many callers, while the other stages are idle; the gateway comes last, with all stages busy. Memory is resident memory
when ready, and its peak at the end; the text encoder's cache is off.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import hart
import psutil
from hart.v1 import (
    ar_generator_pb2,
    ar_generator_pb2_grpc,
    decoder_pb2,
    decoder_pb2_grpc,
    safety_pb2,
    safety_pb2_grpc,
    text_encoder_pb2,
    text_encoder_pb2_grpc,
)

from benchmarks.harness.cli import run_command
from benchmarks.harness.load import closed_loop
from benchmarks.harness.local_cluster import FAILURES, local_cluster
from common.limits import DEFAULT_GUIDANCE
from common.stages import STAGES

PROMPT = "a red heart"
WARM_UP = 3
Call = Callable[[int], Awaitable[Any]]


@dataclass(frozen=True)
class Speed:
    """Latency and throughput of a process."""

    alone: float
    """Median seconds of one call on an idle cluster."""
    rate: float
    """Calls per second with many callers."""


def memory(port: int) -> tuple[float, float]:
    """Resident MB of the process that listens on this port: now, and the peak so far."""
    pid = next(c.pid for c in psutil.net_connections("tcp") if c.laddr and c.laddr[1] == port and c.status == "LISTEN")
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return kilobytes["VmRSS"] / 1e3, kilobytes["VmHWM"] / 1e3


async def measure(call: Call, seconds: float, callers: int) -> Speed:
    """Call one at a time, then with many callers."""
    numbers = itertools.count(1)
    taken: list[float] = []
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end or len(taken) <= WARM_UP:
        begun = time.perf_counter()
        await call(next(numbers))
        taken.append(time.perf_counter() - begun)
    started = time.monotonic()
    done = await closed_loop(callers, seconds, lambda due: call(next(numbers)))
    return Speed(statistics.median(taken[WARM_UP:]), len(done) / (time.monotonic() - started))


async def stages(first: int, seconds: float, callers: int) -> dict[str, Speed]:
    """Every stage alone, then the gateway."""
    options = [("grpc.max_receive_message_length", -1), ("grpc.enable_http_proxy", 0)]
    channels = {name: grpc.aio.insecure_channel(f"127.0.0.1:{first + 1 + n}", options) for n, name in enumerate(STAGES)}
    safety: Any = safety_pb2_grpc.SafetyStub(channels["safety"])
    encoder: Any = text_encoder_pb2_grpc.TextEncoderStub(channels["text_encoder"])
    generator: Any = ar_generator_pb2_grpc.ArGeneratorStub(channels["ar_generator"])
    decoder: Any = decoder_pb2_grpc.DecoderStub(channels["decoder"])
    encoded = await encoder.Encode(text_encoder_pb2.EncodeRequest(prompt=PROMPT))

    async def latent(seed: int) -> Any:
        message = ar_generator_pb2.GenerateLatentRequest(
            context=encoded.context,
            mask=encoded.mask,
            positions=encoded.positions,
            seed=seed,
            guidance=DEFAULT_GUIDANCE,
            more_smooth=True,
        )
        async for event in generator.Generate(message):
            if event.HasField("result"):
                return event.result.latent
        raise RuntimeError("the stream ended without a latent")

    drawn = await latent(1)
    png = decoder_pb2.ImageEncoding(format=decoder_pb2.IMAGE_FORMAT_PNG)
    async with hart.AsyncClient(f"127.0.0.1:{first}") as client:
        calls: dict[str, Call] = {
            "safety": lambda n: safety.Check(safety_pb2.CheckRequest(prompt=PROMPT)),
            "text_encoder": lambda n: encoder.Encode(text_encoder_pb2.EncodeRequest(prompt=PROMPT)),
            "ar_generator": latent,
            "decoder": lambda n: decoder.Decode(decoder_pb2.DecodeRequest(latent=drawn, encoding=png)),
            "gateway": lambda n: client.generate(PROMPT, seed=n),
        }
        found = {name: await measure(call, seconds, callers) for name, call in calls.items()}
    for channel in channels.values():
        await channel.close()
    return found


def main() -> int:
    """Run the command line and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stage_size", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=10.0, help="with many callers, per process")
    parser.add_argument("--checkpoint", default="", help="default: the bundled one")
    parser.add_argument("--threads", type=int, default=1, help="of torch, per process; 0: torch's choice")
    parser.add_argument("--callers", type=int, default=16)
    chosen = parser.parse_args()
    with local_cluster(chosen.checkpoint, None, cache_bytes="0", torch_threads=str(chosen.threads)) as endpoint:
        first = int(endpoint.rpartition(":")[2])
        ports = dict(zip(STAGES, range(first + 1, first + 5), strict=True)) | {"gateway": first}
        idle = {name: memory(port)[0] for name, port in ports.items()}
        speeds = asyncio.run(stages(first, chosen.seconds, chosen.callers))
        peak = {name: memory(port)[1] for name, port in ports.items()}
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}; torch threads {chosen.threads}")
    print(f"{'process':<14}{'ready':>10}{'peak':>10}{'alone':>12}{chosen.callers:>8} callers")
    for name, speed in speeds.items():
        shown = f"{idle[name]:7.0f} MB{peak[name]:7.0f} MB{1e3 * speed.alone:9.1f} ms{speed.rate:14.2f}/s"
        print(f"{name:<14}{shown}{'   whole images' if name == 'gateway' else ''}")
    print(f"{'together':<14}{sum(idle.values()):7.0f} MB{sum(peak.values()):7.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main, *FAILURES))
