"""Safety and text on the real Triton Inference Server: the same images; killed and restarted like a replica."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
from hart import errors
from tritonclient.grpc.aio import InferenceServerClient
from tritonclient.utils import InferenceServerException

from benchmarks.drills.cases import RequestCase
from benchmarks.drills.harness import Harness, opened
from benchmarks.drills.load import RequestResult, any_of, capacity, draw, judge, resent_when_full
from benchmarks.drills.report import Report
from benchmarks.harness.checkpoint import UNSAFE_PROMPT
from benchmarks.harness.load import open_loop
from benchmarks.harness.ports import free_port
from common.stages import START_SECONDS
from deploy.triton import __main__ as launcher

NO_PROXY = [("grpc.enable_http_proxy", 0)]
BACK_SECONDS = 5.0
BRIEF = 5.0  # seconds: up to this the short form runs, as in the tests
SHARE = 0.25
PREFIX = "hart_drill"


class Triton:
    """A server process with both models. Its log is a file in `folder`."""

    def __init__(self, folder: Path, checkpoint: str) -> None:
        self.port = free_port()
        self._log = folder / f"triton-{self.port}.log"
        self._prefix = f"{PREFIX}_{self.port}_"
        self._variables = {**launcher.environment(), "HART_CHECKPOINT": checkpoint}

    def start(self) -> None:
        """Start it and return at once."""
        words = launcher.command(self.port, prefix=self._prefix)
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                words, env=self._variables, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def ready(self) -> None:
        """Return when every model is ready, which is later than the server. Raises RuntimeError with its log's end."""
        end = time.monotonic() + START_SECONDS
        async with InferenceServerClient(f"127.0.0.1:{self.port}", channel_args=NO_PROXY) as client:
            for name in launcher.NAMES:
                while not await _is_ready(client, name):
                    if self.process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"Triton is not ready:\n{self._log.read_text()[-3000:]}")
                    await asyncio.sleep(0.1)

    def kill_stub(self, model: str) -> None:
        """SIGKILL to the process that runs this model's Python; the server goes on and reports the model ready."""
        for child in psutil.Process(self.process.pid).children():
            if any(f"/{model}/" in word for word in child.cmdline()):
                child.kill()

    def kill(self) -> None:
        """SIGKILL to the server."""
        self.process.kill()
        self.process.wait()

    def where(self) -> dict[str, str]:
        """Each model's endpoint, by stage."""
        return {name: f"oip://127.0.0.1:{self.port}/{name}" for name in launcher.NAMES}

    def clean(self) -> None:
        """End it, and remove what it left behind."""
        if self.process.poll() is None:
            self.kill()
        for left in Path("/dev/shm").glob(f"{self._prefix}*"):  # noqa: S108 - its own files there
            left.unlink(missing_ok=True)


async def _is_ready(client: InferenceServerClient, name: str) -> bool:
    try:
        return bool(await client.is_model_ready(name))
    except InferenceServerException:
        return False


@asynccontextmanager
async def _triton(harness: Harness) -> AsyncIterator[Triton]:
    checkpoint = harness.cluster.stages["safety"][0].settings["checkpoint"]
    triton = Triton(harness.cluster.folder, checkpoint)
    triton.start()
    try:
        await triton.ready()
        yield triton
    finally:
        triton.clean()


async def triton(harness: Harness, seconds: float, report: Report) -> None:
    """Safety and text on Triton: the same images. Then it is killed and restarted, first alone, then beside ours."""
    async with _triton(harness) as triton:
        async with opened(harness.cluster, harness.references, **triton.where()) as there:
            await _same(there, there.cases if seconds > BRIEF else there.cases[::4], report)
            if seconds > BRIEF:  # Triton takes several seconds to detect it, at each attempt
                triton.kill_stub("safety")
                await _gone(there, "its Python process killed", ("safety",), report)
            triton.kill()
            await _gone(there, "the server killed", launcher.NAMES, report)
            triton.start()
            await triton.ready()
            await _back(there, report)
        both = {name: f"{harness.cluster.where()[name]},{oip}" for name, oip in triton.where().items()}
        async with opened(harness.cluster, harness.references, **both) as mixed:
            await _beside_our_own(mixed, triton, max(5.0, seconds), report)
    await harness.settled()


async def _same(harness: Harness, cases: list[RequestCase], report: Report) -> None:
    outcomes = [await draw(harness.client, case, harness.references) for case in cases]
    report.invariant(
        "with safety and text on Triton every image is the same", all(o.ok for o in outcomes), _ends(outcomes)
    )
    try:
        await harness.client.generate(UNSAFE_PROMPT, timeout=60)
        said = "an image"
    except errors.HartError as error:
        said = type(error).__name__
    report.invariant("and an unsafe prompt is refused", said == "PromptUnsafe", said)
    status = {stage.stage: stage for stage in (await harness.client.status()).stages}
    report.invariant("the status counts it", all(status[name].ready == 1 for name in launcher.NAMES))


async def _gone(harness: Harness, how: str, stages: tuple[str, ...], report: Report) -> None:
    outcomes = await asyncio.gather(
        *(draw(harness.client, case, harness.references, 30.0) for case in harness.cases[:4])
    )
    named = all(isinstance(o.error, errors.Unavailable) and o.error.stage in stages for o in outcomes)
    report.invariant(f"{how}: no image, UNAVAILABLE that names the stage", named, _ends(outcomes))
    report.figure("  longest wait for it, seconds", max(o.seconds for o in outcomes))


async def _back(harness: Harness, report: Report) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS:
        if (await draw(harness.client, harness.cases[0], harness.references)).ok:
            break
        await asyncio.sleep(0.1)
    took = time.monotonic() - began
    report.invariant(
        f"with Triton back there is an image within {BACK_SECONDS:g} s", took < BACK_SECONDS, f"{took:.2f} s"
    )


async def _beside_our_own(harness: Harness, triton: Triton, seconds: float, report: Report) -> None:
    """One replica of each stage is ours, one is Triton's; under load one model's process is killed, then the server."""
    rate = max(0.5, SHARE * await capacity(harness.client, harness.cases, harness.references, 4, min(5.0, seconds / 3)))
    report.figure("requests/s sent beside it", rate)

    async def fall() -> None:
        await asyncio.sleep(seconds / 4)
        triton.kill_stub("text_encoder")
        await asyncio.sleep(seconds / 4)
        triton.kill()

    falling = asyncio.create_task(fall())
    send = resent_when_full(any_of(harness.client, harness.cases, harness.references))
    outcomes = await open_loop(rate, seconds, send, until=falling)
    await falling
    judge(report, outcomes, harness.references, share=0.99)


def _ends(outcomes: list[RequestResult]) -> Counter[str]:
    return Counter(f"{o.code} {getattr(o.error, 'stage', '')}{o.fault}".strip() for o in outcomes)


def available() -> str:
    """Why Triton cannot run here; "" if it can. Fetches it."""
    if os.environ.get("HART_WITHOUT_TRITON"):
        return "HART_WITHOUT_TRITON is set"
    try:
        launcher.server()
    except launcher.ToolMissing as error:
        return str(error)
    return ""
