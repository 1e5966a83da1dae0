"""Safety and text on the real Triton Inference Server: the same pictures, and its death and return like a replica's."""

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

from benchmarks.drills.asks import Ask
from benchmarks.drills.load import RequestResult, any_of, capacity, draw, judge, open_loop, patient
from benchmarks.drills.report import Report
from benchmarks.drills.site import Site, opened
from common.stages import START_SECONDS
from deploy.triton import __main__ as launcher
from tests.e2e.checkpoint import UNSAFE_PROMPT
from tests.e2e.processes import free_port

NO_PROXY = [("grpc.enable_http_proxy", 0)]
BACK_SECONDS = 5.0
BRIEF = 5.0  # seconds: the short form, in the tests
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
        """Return when every model is ready: the server is before they are. Raises RuntimeError with its log's end."""
        end = time.monotonic() + START_SECONDS
        async with InferenceServerClient(f"127.0.0.1:{self.port}", channel_args=NO_PROXY) as client:
            for name in launcher.NAMES:
                while not await _is_ready(client, name):
                    if self.process.poll() is not None or time.monotonic() > end:
                        raise RuntimeError(f"Triton is not ready:\n{self._log.read_text()[-3000:]}")
                    await asyncio.sleep(0.1)

    def kill_stub(self, model: str) -> None:
        """SIGKILL to the process that runs this model's Python; the server goes on, and calls the model ready."""
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
async def _triton(site: Site) -> AsyncIterator[Triton]:
    checkpoint = site.cluster.stages["safety"][0].settings["checkpoint"]
    triton = Triton(site.cluster.folder, checkpoint)
    triton.start()
    try:
        await triton.ready()
        yield triton
    finally:
        triton.clean()


async def triton(site: Site, seconds: float, report: Report) -> None:
    """Safety and text on Triton: the same pictures; then it dies and comes back, first alone, then beside our own."""
    async with _triton(site) as triton:
        async with opened(site.cluster, site.truth, **triton.where()) as there:
            await _same(there, there.asks if seconds > BRIEF else there.asks[::4], report)
            if seconds > BRIEF:  # Triton takes several seconds to notice, at each attempt
                triton.kill_stub("safety")
                await _gone(there, "its Python process killed", ("safety",), report)
            triton.kill()
            await _gone(there, "the server killed", launcher.NAMES, report)
            triton.start()
            await triton.ready()
            await _back(there, report)
        both = {name: f"{site.cluster.where()[name]},{oip}" for name, oip in triton.where().items()}
        async with opened(site.cluster, site.truth, **both) as mixed:
            await _beside_our_own(mixed, triton, max(5.0, seconds), report)
    await site.settled()


async def _same(site: Site, asks: list[Ask], report: Report) -> None:
    outcomes = [await draw(site.client, ask, site.truth) for ask in asks]
    report.law("with safety and text on Triton every picture is the same", all(o.ok for o in outcomes), _ends(outcomes))
    try:
        await site.client.generate(UNSAFE_PROMPT, timeout=60)
        said = "a picture"
    except errors.HartError as error:
        said = type(error).__name__
    report.law("and an unsafe prompt is refused", said == "PromptUnsafe", said)
    status = {stage.stage: stage for stage in (await site.client.status()).stages}
    report.law("the status counts it", all(status[name].ready == 1 for name in launcher.NAMES))


async def _gone(site: Site, how: str, stages: tuple[str, ...], report: Report) -> None:
    outcomes = await asyncio.gather(*(draw(site.client, ask, site.truth, 30.0) for ask in site.asks[:4]))
    named = all(isinstance(o.error, errors.Unavailable) and o.error.stage in stages for o in outcomes)
    report.law(f"{how}: no picture, UNAVAILABLE that names the stage", named, _ends(outcomes))
    report.figure("  longest wait for it, seconds", max(o.seconds for o in outcomes))


async def _back(site: Site, report: Report) -> None:
    began = time.monotonic()
    while time.monotonic() - began < START_SECONDS:
        if (await draw(site.client, site.asks[0], site.truth)).ok:
            break
        await asyncio.sleep(0.1)
    took = time.monotonic() - began
    report.law(f"with Triton back there is a picture within {BACK_SECONDS:g} s", took < BACK_SECONDS, f"{took:.2f} s")


async def _beside_our_own(site: Site, triton: Triton, seconds: float, report: Report) -> None:
    """One replica of each stage is ours and one is Triton's, which dies under load, first in a part."""
    rate = max(0.5, SHARE * await capacity(site.client, site.asks, site.truth, 4, min(5.0, seconds / 3)))
    report.figure("requests/s sent beside it", rate)

    async def fall() -> None:
        await asyncio.sleep(seconds / 4)
        triton.kill_stub("text_encoder")
        await asyncio.sleep(seconds / 4)
        triton.kill()

    falling = asyncio.create_task(fall())
    ask = patient(any_of(site.client, site.asks, site.truth))
    outcomes = await open_loop(rate, seconds, ask, beside=falling)
    await falling
    judge(report, outcomes, site.truth, share=0.99)


def _ends(outcomes: list[RequestResult]) -> Counter[str]:
    return Counter(f"{o.code} {getattr(o.error, 'stage', '')}{o.fault}".strip() for o in outcomes)


def available() -> str:
    """Why there is no Triton here; "" where there is one. Fetches it."""
    if os.environ.get("HART_WITHOUT_TRITON"):
        return "HART_WITHOUT_TRITON is set"
    try:
        launcher.server()
    except launcher.ToolMissing as error:
        return str(error)
    return ""
