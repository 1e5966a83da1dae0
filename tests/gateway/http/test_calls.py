"""An HTTP call is a call like any other: keys, limits, deadlines, cancellation, traces, metrics, audit
(gateway.http.endpoint, gateway.http.exchange)."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import httpx2
import pytest
from hart.v1 import images_pb2

from gateway.http.exchange import Bounds
from runtime.errors import StageUnavailable
from tests.gateway.calls import holding, raising, refused, request
from tests.gateway.http.support import PATH, HttpFront, error_of, http_front
from tests.gateway.support import until


def metric(http: HttpFront, name: str, **labels: str) -> float:
    return http.front.app.telemetry.registry.get_sample_value(name, {"stage": "gateway", **labels}) or 0.0


async def test_a_wrong_or_absent_key_is_refused() -> None:
    async with http_front(api_keys="alice=a") as http:
        for headers in ({}, {"Authorization": "Bearer b"}, {"Authorization": "Basic a"}):
            for response in (await http.generate(headers), await http.client.get("/v1/models", headers=headers)):
                assert response.status_code == 401
                assert response.headers["www-authenticate"] == "Bearer"
                assert error_of(response)["code"] == "invalid_api_key"
        assert (await http.generate({"Authorization": "Bearer a"})).status_code == 200
        assert (await http.client.get("/healthz")).status_code == 200


async def test_a_callers_rate_counts_over_both_protocols() -> None:
    async with http_front(api_keys="alice=a", caller_requests_per_second=0.01, caller_burst=2) as http:
        await http.front.stub.Generate(request(), metadata=(("authorization", "Bearer a"),))
        assert (await http.generate({"Authorization": "Bearer a"})).status_code == 200
        response = await http.generate({"Authorization": "Bearer a"})
    assert response.status_code == 429
    assert error_of(response)["code"] == "rate_limit_exceeded"
    assert 1 <= int(response.headers["retry-after"]) <= 100
    assert response.headers["x-should-retry"] == "true"


async def test_the_gateways_limit_counts_over_both_protocols() -> None:
    async with http_front(max_ongoing_requests=1) as http:
        gate = asyncio.Event()
        http.front.stage("safety").before = holding(gate)
        held = asyncio.ensure_future(http.generate())
        await until(lambda: http.front.inflight == 1)
        code, info, _ = await refused(http.front.stub.Generate(request(seed=8)))
        response = await http.generate(seed=8)
        gate.set()
        assert (await held).status_code == 200
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert info.metadata["setting"] == "HART_MAX_ONGOING_REQUESTS"
    assert response.status_code == 429
    assert "HART_MAX_ONGOING_REQUESTS" in error_of(response)["message"]


async def test_a_deadline_is_the_callers_and_names_the_stage_where_time_ran_out() -> None:
    async with http_front() as http:
        http.front.stage("ar_generator").before = holding(asyncio.Event())
        response = await http.generate({"X-Request-Timeout": "0.5"})
        await until(lambda: http.front.stage("ar_generator").cancelled == 1)
    assert response.status_code == 504
    assert "ar_generator" in error_of(response)["message"]
    assert response.headers["x-should-retry"] == "false"


async def test_a_deadline_that_is_none_is_refused() -> None:
    async with http_front() as http:
        for given in ("0", "-1", "nan", "soon", "inf", ""):
            response = await http.generate({"X-Request-Timeout": given})
            assert response.status_code == 400
            assert error_of(response)["param"] == "X-Request-Timeout"


async def test_a_missing_stage_is_unavailable_and_says_when_to_retry() -> None:
    async with http_front(retry_attempts=1) as http:
        http.front.stage("text_encoder").before = raising(StageUnavailable("text_encoder", "it rests", 7.0), 99)
        response = await http.generate()
    assert response.status_code == 503
    assert error_of(response)["type"] == "server_error"
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
async def test_a_caller_that_disconnects_cancels_its_work(stream: bool) -> None:
    async with http_front() as http:
        http.front.stage("ar_generator").before = holding(asyncio.Event())
        task = asyncio.ensure_future(http.generate(stream=stream))
        await until(lambda: http.front.stage("ar_generator").received)
        task.cancel()
        await until(lambda: http.front.stage("ar_generator").cancelled == 1, 10)
        await until(lambda: http.front.inflight == 0 and http.front.app.calls.working == 0, 10)
        assert metric(http, "hart_cancelled_total") == 1
        assert metric(http, "hart_requests_total", code="CANCELLED") == 1


async def test_a_caller_that_leaves_midway_through_a_stream_cancels_within_a_scale() -> None:
    async with http_front() as http:
        http.front.stage("ar_generator").scale_seconds = 0.3
        body = {"prompt": "x", "stream": True, "partial_images": 2}
        async with http.client.stream("POST", PATH, json=body) as response:
            await anext(response.aiter_lines())
        await until(lambda: http.front.stage("ar_generator").cancelled == 1, 10)


async def test_a_call_is_traced_from_the_callers_context_to_the_stages() -> None:
    trace, parent = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    async with http_front() as http:
        await http.generate({"traceparent": f"00-{trace}-{parent}-01"})
        await until(lambda: len(http.front.spans.get_finished_spans()) >= 5)
        spans = http.front.spans.get_finished_spans()
    server = next(span for span in spans if span.name == f"POST {PATH}")
    assert f"{server.context.trace_id:032x}" == trace
    assert server.parent is not None
    assert f"{server.parent.span_id:016x}" == parent
    assert {span.context.trace_id for span in spans} == {server.context.trace_id}
    assert server.attributes is not None
    assert server.attributes["http.response.status_code"] == 200
    assert server.attributes["gen_ai.request.seed"] == 7
    assert "rpc.system" not in server.attributes


async def test_calls_are_counted_by_the_same_metrics() -> None:
    async with http_front() as http:
        await http.generate()
        await http.generate(n=0)
        await http.client.get("/v1/models")
        assert metric(http, "hart_requests_total", code="OK") == 1
        assert metric(http, "hart_requests_total", code="INVALID_ARGUMENT") == 1
        for code in ("OK", "INVALID_ARGUMENT"):
            assert metric(http, "hart_request_duration_seconds_count", code=code) == 1


async def test_every_request_leaves_an_audit_line_with_its_users_hash(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hart.audit")
    async with http_front(api_keys="alice=a,bob=b") as http:
        await http.generate({"Authorization": "Bearer a"}, user="me@example.org")
        await http.generate({"Authorization": "Bearer b"}, safety_identifier="me@example.org", user="other")
        await http.generate({"Authorization": "Bearer a"}, n=0)
        await http.generate()
    lines: list[dict[str, Any]] = [record.audit for record in caplog.records if record.name == "hart.audit"]  # type: ignore[attr-defined]
    assert [(line["caller"], line["code"]) for line in lines] == [
        ("alice", "OK"),
        ("bob", "OK"),
        ("alice", "INVALID_ARGUMENT/INVALID_REQUEST"),
        ("", "UNAUTHENTICATED/UNAUTHENTICATED"),
    ]
    assert len(lines[0]["user"]) == 16
    assert lines[0]["user"] != lines[1]["user"]
    assert "example.org" not in caplog.text
    assert "heart" not in json.dumps(lines)


async def test_an_internal_error_says_its_id_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with http_front() as http:
        http.front.stage("decoder").before = raising(RuntimeError("a secret"), 99)
        response = await http.generate()
    error = error_of(response)
    assert (response.status_code, error["code"]) == (500, "internal_error")
    assert error["message"].removeprefix("internal error ") in caplog.text
    assert "secret" not in response.text


async def test_a_draining_gateway_finishes_what_runs_and_refuses_the_rest() -> None:
    async with http_front() as http:
        gate = asyncio.Event()
        http.front.stage("safety").before = holding(gate)
        assert (await http.client.get("/readyz")).status_code == 200
        held = asyncio.ensure_future(http.generate())
        await until(lambda: http.front.inflight == 1)
        drained = asyncio.ensure_future(http.front.app.drain(60))
        await until(lambda: http.front.app.draining.is_set())
        assert (await http.client.get("/healthz")).status_code == 200
        assert (await http.client.get("/readyz")).status_code == 503
        response = await http.generate(seed=8)
        assert response.status_code == 503
        assert response.headers["connection"] == "close"
        assert not drained.done()
        gate.set()
        assert (await held).status_code == 200
        assert await drained


async def test_models_are_those_that_describe_names() -> None:
    async with http_front() as http:
        described = await http.front.stub.Describe(images_pb2.DescribeRequest())
        listed = (await http.client.get("/v1/models")).json()
        one = await http.client.get("/v1/models/tiny")
        other = await http.client.get("/v1/models/gpt-image-2")
    assert [(model["id"], model["digest"]) for model in listed["data"]] == [
        (model.model.name, model.model.digest) for model in described.models
    ]
    assert one.json() == listed["data"][0]
    assert one.json()["size"] == "64x64"
    assert (other.status_code, error_of(other)["code"]) == (404, "model_not_found")


UNKNOWN = [
    ("GET", "/v1/images", 404, "not_found"),
    ("POST", "/v1/images/edits", 404, "not_found"),
    ("GET", "/v1/models/", 404, "model_not_found"),
    ("GET", PATH, 405, "method_not_allowed"),
    ("DELETE", "/v1/models/tiny", 405, "method_not_allowed"),
    ("PUT", "/docs", 405, "method_not_allowed"),
]


async def test_an_unknown_path_or_method_is_an_error_in_the_apis_shape() -> None:
    async with http_front() as http:
        for method, path, status, code in UNKNOWN:
            response = await http.client.request(method, path)
            assert (response.status_code, error_of(response)["code"]) == (status, code)
            assert status != 405 or response.headers["allow"]


def test_responses_close_their_connection_only_where_the_process_drains() -> None:
    assert not Bounds(1, 1.0, 1.0).closing()


async def test_a_response_of_one_caller_is_not_cached_by_what_lies_between() -> None:
    async with http_front() as http:
        response: httpx2.Response = await http.generate()
    assert response.headers["cache-control"] == "no-store"
