"""Stages at zero replicas, two gateways, callers that wait: replicas start when the external scaler says so."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import grpc
from hart.aio import AsyncClient
from hart.results import Starting

from benchmarks.drills.cases import RequestCase
from benchmarks.drills.endpoints import FileListing
from benchmarks.drills.harness import Harness
from benchmarks.drills.load import RequestResult, draw, judge
from benchmarks.drills.report import Report
from benchmarks.harness.ports import free_port
from benchmarks.harness.processes import STAGES, Process
from gateway.keda import externalscaler_pb2, externalscaler_pb2_grpc

DELAYS = (20.0, 150.0)
"""Seconds from the scaler's word to the start of a process: a pod waits for a node, an image, a model."""
CALLERS = 20
TIMEOUT = 290.0
COOLDOWN = 2.0
"""Seconds for which the scaler says active after the last request."""
PUSHED_WITHIN = 3.0
"""Seconds: a poll of the other gateway each second, and a slow machine."""
Start = Callable[[str, Harness], Awaitable[Process]]
"""Starts a replica of a stage and returns it when it is ready."""


@dataclass
class Pass:
    """What was seen from the first request to the last image."""

    began: float
    active_at: dict[str, float] = field(default_factory=dict)
    """By stage: when the scaler said that it needs a replica."""
    states: dict[str, list[bool]] = field(default_factory=dict)
    """By stage: what the scaler said, change by change."""
    listed_at: dict[str, float] = field(default_factory=dict)
    replicas: dict[str, Process] = field(default_factory=dict)
    starting: list[Starting] = field(default_factory=list)


@dataclass
class FromZero:
    """Two gateways, and the lists of replicas that both follow."""

    asked: Process
    """The gateway that the autoscaler asks."""
    other: Process
    listings: dict[str, FileListing]
    clients: tuple[AsyncClient, AsyncClient]
    """Of `asked` and of `other`."""


async def from_zero(harness: Harness, seconds: float, report: Report) -> None:
    """Twenty callers at two gateways while all stages are at zero. An autoscaler asks one gateway's external scaler and
    starts real processes 20 s, then 150 s after it says so: all callers get their images."""
    async with _at_zero(harness) as zero:
        for delay in DELAYS:
            report.figure("processes start after the scaler's word by", f"{delay:g} s")
            found = await _wake(harness, zero, delay, report)
            for replica in found.replicas.values():
                await asyncio.to_thread(replica.stop)


async def from_zero_briefly(harness: Harness, seconds: float, report: Report, *, callers: int) -> None:
    """The same with few callers, and replicas that run already and are listed when the scaler says so."""

    async def running(stage: str, harness: Harness) -> Process:
        return harness.replicas(stage)[0]

    async with _at_zero(harness) as zero:
        await _wake(harness, zero, seconds, report, callers=callers, start=running)


async def _start(stage: str, harness: Harness) -> Process:
    settings = {k: v for k, v in harness.replicas(stage)[0].settings.items() if k != "max_queued_requests"}
    process = Process(stage, harness.cluster.folder, settings).start()
    return await asyncio.to_thread(process.await_ready)


async def _wake(
    harness: Harness, zero: FromZero, delay: float, report: Report, *, callers: int = CALLERS, start: Start = _start
) -> Pass:
    """One pass: callers arrive, replicas start, all are served, and the replicas are taken from the lists again."""
    cases = [case for case in harness.cases if case.num_images == 1]
    cases = [cases[number % len(cases)] for number in range(callers)]
    seen = Pass(time.monotonic())
    async with asyncio.TaskGroup() as group:
        scaling = [group.create_task(_scale(harness, zero, stage, seen, delay, start)) for stage in STAGES]
        # The first callers are the other gateway's: the asked one has no request of its own.
        outcomes = _send(harness, zero.clients[1], cases[::2], group)
        watching = group.create_task(_watch_start(zero.clients[1], cases[0], seen))
        while len(seen.active_at) < len(STAGES):
            await asyncio.sleep(0.01)
        outcomes += _send(harness, zero.clients[0], cases[1::2], group)
        await asyncio.gather(*outcomes, watching)
        ended = time.monotonic()
        states = {stage: list(changes) for stage, changes in seen.states.items()}
        await asyncio.gather(*scaling)
    _report(report, seen, [task.result() for task in outcomes], harness)
    steady = all(said[-1] and said.count(True) == 1 for said in states.values())
    report.invariant("the scaler says active without a break until the last image", steady, states)
    report.figure("seconds from the last image to the scaler's end", time.monotonic() - ended)
    return seen


def _send(
    harness: Harness, client: AsyncClient, cases: list[RequestCase], group: asyncio.TaskGroup
) -> list[asyncio.Task[RequestResult]]:
    return [group.create_task(draw(client, case, harness.references, TIMEOUT)) for case in cases]


async def _watch_start(client: AsyncClient, case: RequestCase, seen: Pass) -> None:
    """One more caller, who notes the `starting` events of its stream."""
    async for event in client.stream(case.prompt, timeout=TIMEOUT, **case.options()):
        if isinstance(event, Starting):
            seen.starting.append(event)


async def _scale(harness: Harness, zero: FromZero, stage: str, seen: Pass, delay: float, start: Start) -> None:
    """The autoscaler of a stage, as KEDA is: one replica while the scaler says active, none when it says inactive."""
    address = f"127.0.0.1:{zero.asked.settings['scaler_port']}"
    asked = externalscaler_pb2.ScaledObjectRef(name=stage, namespace="drill", scalerMetadata={"stage": stage})
    changes = seen.states.setdefault(stage, [])
    starting: asyncio.Task[None] | None = None

    async def begin() -> None:
        await asyncio.sleep(delay)
        replica = await start(stage, harness)
        seen.replicas[stage] = replica
        zero.listings[stage].add(replica.address)
        seen.listed_at[stage] = time.monotonic()

    async with grpc.aio.insecure_channel(address) as channel:
        stub: externalscaler_pb2_grpc.ExternalScalerAsyncStub = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        while True:
            async for answer in stub.StreamIsActive(asked):
                if not changes or changes[-1] is not answer.result:
                    changes.append(answer.result)
                if answer.result and starting is None:
                    seen.active_at[stage] = time.monotonic()
                    starting = asyncio.create_task(begin())
                elif not answer.result and starting is not None:
                    await starting
                    zero.listings[stage].leave(seen.replicas[stage].address)
                    return


def _report(report: Report, seen: Pass, outcomes: list[RequestResult], harness: Harness) -> None:
    pushed = max(seen.active_at.values()) - seen.began
    report.figure("seconds until the scaler said active, max", pushed)
    report.figure("seconds until the last stage was listed", max(seen.listed_at.values()) - seen.began)
    estimates = [event.estimated_seconds for event in seen.starting]
    report.figure("`starting` events of one stream, first estimate", f"{len(estimates)}, {estimates[0]}")
    report.invariant("a request at the other gateway is pushed", pushed < PUSHED_WITHIN, pushed)
    judge(report, outcomes, harness.references, share=1.0)


@asynccontextmanager
async def _at_zero(harness: Harness) -> AsyncIterator[FromZero]:
    folder = harness.cluster.folder
    listings = {stage: FileListing(folder / f"zero-{stage}") for stage in STAGES}
    ports = [free_port() for _ in range(2)]
    settings = {
        **harness.cluster.gateway.settings,
        **{stage: listing.setting for stage, listing in listings.items()},
        "scale_to_zero_stages": ",".join(STAGES),
        "scaler_cooldown_seconds": str(COOLDOWN),
        "scaler_peers": ",".join(f"127.0.0.1:{port}" for port in ports),
    }
    gateways = [Process("gateway", folder, {**settings, "scaler_port": str(port)}).start() for port in ports]
    try:
        for gateway in gateways:
            await asyncio.to_thread(gateway.await_ready, 60)
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(AsyncClient(gateway.address)) for gateway in gateways]
            yield FromZero(gateways[0], gateways[1], listings, (clients[0], clients[1]))
    finally:
        for gateway in gateways:
            await asyncio.to_thread(gateway.stop)
