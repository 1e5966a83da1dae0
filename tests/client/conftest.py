"""A fake gateway on a real socket, with responses that the test chooses: the client is tested against real gRPC."""

from __future__ import annotations

import asyncio
import io
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection
from grpc_status import rpc_status
from hart.cli.app import app
from hart.v1 import decoder_pb2, images_pb2, images_pb2_grpc, safety_pb2, stage_pb2
from PIL import Image as PillowImage
from typer.testing import CliRunner, Result

from tests.client.secured_gateway import Images, write_certificate

SCALES = (1, 2, 4)
MODEL = stage_pb2.ModelIdentity(name="tiny", digest="ab" * 32)
FORMATS = (decoder_pb2.IMAGE_FORMAT_PNG, decoder_pb2.IMAGE_FORMAT_JPEG, decoder_pb2.IMAGE_FORMAT_WEBP)
_PILLOW = {0: "PNG", 1: "PNG", 2: "JPEG", 3: "WEBP"}


def image_file(seed: int, format: int = 1, side: int = 8) -> bytes:
    """An image file whose colour is the seed."""
    file = io.BytesIO()
    PillowImage.new("RGB", (side, side), (seed % 256, seed // 256 % 256, 0)).save(file, _PILLOW[format])
    return file.getvalue()


def report(request: images_pb2.GenerateRequest) -> images_pb2.Report:
    """A full report; "zyzzyva" is out of vocabulary."""
    answer = images_pb2.Report(
        request_id=request.request_id,
        model=MODEL,
        trace_id="0af7651916cd43dd8448eb211c80319c",
        verdict=safety_pb2.Verdict(action=safety_pb2.SAFETY_ACTION_ALLOW, policy_version="p1"),
        prompt_tokens=3,
        timings=images_pb2.Timings(wall_seconds=0.1, gateway_seconds=0.01),
    )
    for stage, start, queue, compute in (
        ("safety", 0.0, 0.0, 0.01),
        ("text_encoder", 0.0, 0.005, 0.015),
        ("ar_generator", 0.02, 0.01, 0.04),
        ("decoder", 0.07, 0.0, 0.02),
    ):
        answer.timings.calls.add(
            stage=stage,
            start_seconds=start,
            duration_seconds=queue + compute,
            queue_seconds=queue,
            compute_seconds=compute,
            transfer_bytes=2**40,
            critical=stage != "safety",
        )
    if "zyzzyva" in request.prompt:
        answer.warnings.add(
            code=images_pb2.WARNING_CODE_PROMPT_OUT_OF_VOCABULARY,
            text="The prompt has unknown words.",
            words=["zyzzyva"],
        )
    return answer


def image(request: images_pb2.GenerateRequest, index: int) -> images_pb2.Image:
    """Image `index` of a request: seeds count up from the request's."""
    format = request.format or decoder_pb2.IMAGE_FORMAT_PNG
    seed = request.seed + index
    return images_pb2.Image(index=index, data=image_file(seed, format), format=format, width=8, height=8, seed=seed)


@dataclass
class Failure:
    """The error that the fake gateway aborts with."""

    code: grpc.StatusCode
    message: str = "no"
    details: tuple[Any, ...] = ()
    times: int = 1_000_000
    """Number of failing calls; later ones succeed."""


@dataclass
class Gateway(images_pb2_grpc.ImagesServicer):
    """Returns coloured images unless a test sets `failure`, `hang` or `before`."""

    failure: Failure | None = None
    hang: bool = False
    padding: int = 0
    """Bytes added to each image of Generate."""
    endpoint: str = ""
    requests: list[images_pb2.GenerateRequest] = field(default_factory=list)
    metadata: list[dict[str, Any]] = field(default_factory=list)
    remaining: list[float | None] = field(default_factory=list)
    started: threading.Event = field(default_factory=threading.Event)
    cancelled: threading.Event = field(default_factory=threading.Event)
    before: Callable[[images_pb2.GenerateRequest], object] | None = None
    max_response_bytes: int = 0
    side: int = 8
    """Image side in pixels, as in Describe."""

    async def _enter(self, request: images_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.remaining.append(context.time_remaining())
        self.started.set()
        if self.before:
            self.before(request)
        if self.hang:
            try:
                await asyncio.sleep(600)
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        await self._maybe_fail(context)

    async def _maybe_fail(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        failure = self.failure
        if failure is None or failure.times <= 0:
            return
        failure.times -= 1
        packed = []
        for detail in failure.details:
            wrapped = any_pb2.Any()
            wrapped.Pack(detail)
            packed.append(wrapped)
        code = getattr(code_pb2, failure.code.name)
        status = rpc_status.to_status(status_pb2.Status(code=code, message=failure.message, details=packed))
        await context.abort(status.code, status.details, status.trailing_metadata)

    async def Generate(self, request: images_pb2.GenerateRequest, context: Any) -> images_pb2.GenerateResponse:
        await self._enter(request, context)
        images = [image(request, index) for index in range(request.num_images or 1)]
        for one in images:
            one.data += bytes(self.padding)
        return images_pb2.GenerateResponse(images=reversed(images), report=report(request))

    async def GenerateStream(
        self, request: images_pb2.GenerateRequest, context: Any
    ) -> AsyncIterator[images_pb2.GenerateEvent]:
        count = request.num_images or 1
        yield images_pb2.GenerateEvent(
            accepted=images_pb2.Accepted(
                request_id=request.request_id,
                seeds=[request.seed + index for index in range(count)],
                model=MODEL,
                scales=len(SCALES),
            )
        )
        await self._enter(request, context)
        ready = images_pb2.Prepared(prompt_tokens=3, warnings=report(request).warnings)
        if request.prompt == "unsafe":
            ready.revised_prompt = "a flower"
        yield images_pb2.GenerateEvent(prepared=ready)
        for scale, side in enumerate(SCALES):
            for index in range(count):
                progress = images_pb2.Progress(image_index=index, scale=scale, side=side, scales=len(SCALES))
                if request.preview_every and (scale + 1) % request.preview_every == 0:
                    progress.preview.CopyFrom(
                        images_pb2.Preview(
                            data=image_file(index, 2, 2), format=decoder_pb2.IMAGE_FORMAT_JPEG, width=2, height=2
                        )
                    )
                yield images_pb2.GenerateEvent(progress=progress)
        yield images_pb2.GenerateEvent()  # an event kind unknown to this client
        for index in reversed(range(count)):
            yield images_pb2.GenerateEvent(image=image(request, index))
        yield images_pb2.GenerateEvent(finished=images_pb2.Finished(report=report(request)))

    async def Describe(self, request: images_pb2.DescribeRequest, context: Any) -> images_pb2.DescribeResponse:
        await self._maybe_fail(context)
        shape = stage_pb2.ModelShape(scales=SCALES, width=self.side, height=self.side, context_tokens=16)
        answer = images_pb2.DescribeResponse(
            formats=FORMATS, policies=["harassment"], policy_version="p1", version="0.1.0"
        )
        answer.models.add(model=MODEL, shape=shape, example_prompts=["a red heart", "a green apple"])
        answer.limits.max_images = 8
        answer.limits.max_response_bytes = self.max_response_bytes
        answer.models[0].sampling_defaults.guidance = 4.5
        return answer

    async def Status(self, request: images_pb2.StatusRequest, context: Any) -> images_pb2.StatusResponse:
        await self._maybe_fail(context)
        answer = images_pb2.StatusResponse(uptime_seconds=5, inflight=1, version="0.1.0")
        answer.problems.append("decoder: no replica is ready (no answer from 127.0.0.1:1)")
        for stage in ("safety", "text_encoder", "ar_generator", "decoder"):
            answer.stages.add(stage=stage, replicas=2, ready=0 if stage == "decoder" else 2, load=0.25, model=MODEL)
        return answer


@pytest.fixture
def gateway() -> Iterator[Gateway]:
    """A running gateway."""
    loop = asyncio.new_event_loop()
    served = Gateway()

    async def start() -> grpc.aio.Server:
        server = grpc.aio.server(options=[("grpc.max_send_message_length", -1)])
        images_pb2_grpc.add_ImagesServicer_to_server(served, server)
        reflection.enable_server_reflection(["hart.v1.Images", reflection.SERVICE_NAME], server)
        served.endpoint = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        return server

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    server = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    yield served
    asyncio.run_coroutine_threadsafe(server.stop(0), loop).result(60)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(60)
    loop.close()


def _retry(seconds: int) -> error_details_pb2.RetryInfo:
    return error_details_pb2.RetryInfo(retry_delay=duration_pb2.Duration(seconds=seconds))


def _info(reason: str, **metadata: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=reason, domain="hart", metadata=metadata)


FAILURES: dict[str, tuple[Failure, str, dict[str, Any], int]] = {
    "bad field": (
        Failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "guidance",
            (
                error_details_pb2.BadRequest(
                    field_violations=[
                        error_details_pb2.BadRequest.FieldViolation(field="guidance", description="21 is over 20")
                    ]
                ),
            ),
        ),
        "InvalidRequest",
        {"fields": {"guidance": "21 is over 20"}},
        2,
    ),
    "unsafe": (
        Failure(
            grpc.StatusCode.INVALID_ARGUMENT,
            "unsafe",
            (_info("PROMPT_UNSAFE", policies="harassment,hate_speech", policy_version="p1"),),
        ),
        "PromptUnsafe",
        {"policies": ("harassment", "hate_speech"), "policy_version": "p1"},
        3,
    ),
    "overload": (
        Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "full",
            (_retry(3), _info("QUEUE_FULL", stage="decoder", setting="HART_MAX_QUEUED_REQUESTS")),
        ),
        "Overloaded",
        {"stage": "decoder", "setting": "HART_MAX_QUEUED_REQUESTS", "retry_after": 3.0},
        4,
    ),
    "deadline": (
        Failure(grpc.StatusCode.DEADLINE_EXCEEDED, "late", (_info("DEADLINE", stage="ar_generator"),)),
        "DeadlineExceeded",
        {"stage": "ar_generator"},
        5,
    ),
    "unavailable": (
        Failure(grpc.StatusCode.UNAVAILABLE, "none", (_retry(2), _info("NO_REPLICA", stage="safety"))),
        "Unavailable",
        {"stage": "safety", "retry_after": 2.0},
        4,
    ),
    "unauthenticated": (Failure(grpc.StatusCode.UNAUTHENTICATED, "no API key"), "Unauthenticated", {}, 3),
    "permission": (Failure(grpc.StatusCode.PERMISSION_DENIED, "not you"), "PermissionDenied", {}, 3),
    "internal": (
        Failure(grpc.StatusCode.INTERNAL, "internal error", (_info("INTERNAL", error_id="e-17"),)),
        "InternalError",
        {"error_id": "e-17"},
        1,
    ),
    "other": (Failure(grpc.StatusCode.UNIMPLEMENTED, "not here"), "HartError", {}, 1),
}
"""By name: the gateway's failure, the error's class and attributes, the command's exit code."""


@pytest.fixture(params=FAILURES, ids=[name.replace(" ", "-") for name in FAILURES])
def failing(request: pytest.FixtureRequest) -> tuple[Failure, str, dict[str, Any], int]:
    """Every kind of error in turn."""
    failure, kind, facts, code = FAILURES[request.param]
    return Failure(failure.code, failure.message, failure.details), kind, facts, code


@pytest.fixture
def hart(gateway: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command in an empty folder against the gateway."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HART_ENDPOINT", gateway.endpoint)
    monkeypatch.setenv("COLUMNS", "120")

    def run(*words: object) -> Result:
        return CliRunner().invoke(app, [str(word) for word in words])

    return run


@pytest.fixture(params=[False, True], ids=["tls", "mutual"])
def secured(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Path, bool]]:
    """A server with a certificate: its endpoint, the certificates' folder, whether it requires a client's."""
    for name, issuer in (("ca", None), ("server", "ca"), ("me", "ca"), ("other", None)):
        write_certificate(tmp_path, name, issuer)
    pair = [((tmp_path / "server.key").read_bytes(), (tmp_path / "server.pem").read_bytes())]
    server = grpc.server(futures.ThreadPoolExecutor(2))
    images_pb2_grpc.add_ImagesServicer_to_server(Images(), server)
    credentials = grpc.ssl_server_credentials(pair, (tmp_path / "ca.pem").read_bytes(), request.param)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", tmp_path, request.param
    server.stop(0).wait()


@pytest.fixture
def proxied(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An environment whose proxy never answers."""
    with socket.socket() as taken:  # bound, not listening
        taken.bind(("127.0.0.1", 0))
        for name in ("no_proxy", "no_grpc_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "grpc_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
        yield
