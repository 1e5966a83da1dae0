"""What the gateway counts for its operator: images, pixels, first previews and each caller's share."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from hart.v1 import images_pb2
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.request.usage import Usage
from runtime.observability.telemetry import Telemetry
from tests.gateway.support import running_gateway, until


def total(telemetry: Telemetry, name: str, **labels: str) -> float:
    families = text_string_to_metric_families(generate_latest(telemetry.registry).decode())
    samples = [s for family in families for s in family.samples if s.name == name]
    return sum(s.value for s in samples if labels.items() <= s.labels.items())


async def test_images_and_pixels_are_counted_where_calls_are_not_enough() -> None:
    async with running_gateway() as running:
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a red heart", num_images=3))
        telemetry = running.app.telemetry
        assert total(telemetry, "hart_requests_total", code="OK") == 1
        assert total(telemetry, "hart_images_total", caller="anonymous") == 3
        assert total(telemetry, "hart_pixels_total") == 3 * 64 * 64
        assert total(telemetry, "hart_caller_requests_total", caller="anonymous", code="OK") == 1
        assert total(telemetry, "gen_ai_server_request_duration_seconds_count") == 1


async def test_a_repeat_draws_no_image() -> None:
    async with running_gateway() as running:
        for _ in range(2):
            await running.stub.Generate(images_pb2.GenerateRequest(prompt="a red heart", request_id="one"))
        assert total(running.app.telemetry, "hart_images_total") == 1
        assert total(running.app.telemetry, "hart_caller_requests_total", code="OK") == 2


async def test_the_first_preview_of_a_request_is_timed() -> None:
    async def slow(_: Any, scale: int) -> None:
        await asyncio.sleep(0.1)

    async with running_gateway() as running:
        running.stage("ar_generator").at_scale = slow
        message = images_pb2.GenerateRequest(prompt="a red heart", preview_every=1)
        events = [event async for event in running.stub.GenerateStream(message)]
        assert any(event.progress.HasField("preview") for event in events)
        assert total(running.app.telemetry, "hart_first_preview_duration_seconds_count") == 1
        assert total(running.app.telemetry, "hart_first_preview_duration_seconds_sum") > 0.1


async def test_a_failed_request_counts_for_its_caller() -> None:
    async with running_gateway() as running:
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Generate(images_pb2.GenerateRequest(prompt=" "))
        labels = {"caller": "anonymous", "code": "INVALID_ARGUMENT"}
        assert total(running.app.telemetry, "hart_caller_requests_total", **labels) == 1
        assert total(running.app.telemetry, "hart_images_total") == 0


def test_callers_above_the_maximum_share_a_label() -> None:
    usage = Usage(Telemetry("gateway").metrics, max_callers=2)
    assert [usage.label(name) for name in ("a", "b", "c", "a", "", "d")] == [
        "a",
        "b",
        "other",
        "a",
        "anonymous",
        "other",
    ]


async def test_the_model_of_each_stage_is_known() -> None:
    async with running_gateway() as running:
        await running.stub.Generate(images_pb2.GenerateRequest(prompt="a red heart"))
        assert total(running.app.telemetry, "hart_model_info", stage="decoder") == 1


async def test_waiting_images_are_apart_from_ongoing_requests() -> None:
    released = asyncio.Event()

    async def wait(_: Any) -> None:
        await released.wait()

    async with running_gateway(max_pending_decodes=1) as running:
        running.stage("decoder").before = wait
        telemetry = running.app.telemetry
        message = images_pb2.GenerateRequest(prompt="a red heart", num_images=3)
        call = running.stub.Generate(message)
        await until(lambda: total(telemetry, "hart_queue_depth", stage="gateway") == 2)
        assert running.inflight == 1
        assert total(telemetry, "hart_queue_limit", stage="gateway") == 256 * 8
        released.set()
        await call
        assert total(telemetry, "hart_queue_depth", stage="gateway") == 0


async def test_a_caller_above_its_own_limit_is_no_failure_of_the_gateway() -> None:
    async with running_gateway(caller_requests_per_second=1, caller_burst=1) as running:
        message = images_pb2.GenerateRequest(prompt="a red heart")
        await running.stub.Generate(message)
        with pytest.raises(grpc.aio.AioRpcError):
            await running.stub.Generate(message)
        telemetry = running.app.telemetry
        assert total(telemetry, "hart_shed_total", reason="caller_limit") == 1
        counted = {"stage": "gateway", "code": "RESOURCE_EXHAUSTED"}  # after the error has left
        await until(lambda: total(telemetry, "hart_requests_total", **counted) == 1)
        labels = {"caller": "anonymous", "code": "RESOURCE_EXHAUSTED"}
        assert total(telemetry, "hart_caller_requests_total", **labels) == 1
