"""runtime.server, runtime.status: calls, errors, health, limits and draining over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from hart.v1 import decoder_pb2

from runtime import errors, status
from runtime.observability.telemetry import Telemetry
from runtime.server import messages
from runtime.server.call_scope import CallInfo
from runtime.server.interceptor import CallInterceptor
from runtime.settings import ProcessSettings
from runtime.tensors import from_numpy
from tests.runtime.support import Launch, Running, detail, refusal, request, until


async def send_raw(channel: grpc.aio.Channel, data: bytes, method: str = "/hart.v1.Decoder/Decode") -> Any:
    call: Any = channel.unary_unary(method)
    return await call(data)


async def test_request_is_computed(served: Running) -> None:
    answer = await served.stub.Decode(request(4.0))
    assert answer.image == b"4.0"
    assert answer.timing.batch_size == 1


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x05ab", b"\x0a\x02\xff\xfe"], ids=["noise", "cut", "utf8"])
async def test_bytes_that_do_not_parse_are_refused_as_invalid(served: Running, data: bytes) -> None:
    code, proto, text = await refusal(send_raw(served.channel, data))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a message" in text
    assert detail(proto, error_details_pb2.BadRequest).field_violations
    assert (await served.stub.Decode(request(2.0))).image == b"2.0"


async def test_unknown_fields_and_enum_values_are_refused_by_name(served: Running) -> None:
    deep = request()
    deep.latent.MergeFromString(b"\xa2\x06\x01x")  # field 100 of the tensor
    deep.encoding.format = 77  # type: ignore[assignment]
    code, proto, _ = await refusal(served.stub.Decode(deep))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    fields = {v.field for v in detail(proto, error_details_pb2.BadRequest).field_violations}
    assert fields == {"latent.100", "encoding.format"}


def test_named_unknown_fields_are_bounded() -> None:
    message = decoder_pb2.DecodeRequest.FromString(b"\xf8\x07\x01" * 10_000)  # field 127
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert len(caught.value.violations) == status.MAX_VIOLATIONS


@pytest.mark.parametrize("where", ["", "latent"])
def test_many_bytes_of_unknown_fields_are_refused_unwalked(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def walk(_: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(messages, "violations", walk)
    message = decoder_pb2.DecodeRequest()
    (getattr(message, where) if where else message).MergeFromString(b"\xf8\x07\x01" * 30_000)  # field 127
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert "bytes of the message are unknown fields" in caught.value.violations[0].description


def test_unknown_field_in_a_large_message_is_named() -> None:
    message = decoder_pb2.DecodeRequest(latent=from_numpy(np.zeros((8, 64, 64), np.float32)))
    messages.refuse_unknown(message)
    message.latent.MergeFromString(b"\xf8\x07\x01")
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert [violation.field for violation in caught.value.violations] == ["latent.127"]


async def test_internal_error_exposes_its_id_alone(served: Running, caplog: pytest.LogCaptureFixture) -> None:
    served.engine.fail[3.0] = RuntimeError("the secret of the house")
    code, proto, text = await refusal(served.stub.Decode(request(3.0)))
    error_id = detail(proto, error_details_pb2.ErrorInfo).metadata["error_id"]
    assert code is grpc.StatusCode.INTERNAL
    assert text == f"internal error {error_id}"
    assert "secret" not in str(proto)
    logged = [r for r in caplog.records if getattr(r, "error_id", "") == error_id]
    assert logged
    assert "the secret of the house" in str(logged[0].exc_info)


EVERY_ERROR = [
    errors.InvalidRequest([errors.Violation("seed", "must not be -1"), errors.Violation("n", "9 is over 8")]),
    errors.PromptUnsafe(["violence", "hate"], "v2"),
    errors.NotFound("unknown model 'x'"),
    errors.Overloaded("decoder", "HART_MAX_QUEUED_REQUESTS", 2.5),
    errors.DeadlineExceeded("decoder", "0.100 s are left"),
    errors.StageUnavailable("decoder", "no replica is ready", 3.0),
    errors.Unauthenticated("no API key"),
    errors.PermissionDenied("not yours"),
    errors.Internal("abc"),
]


DAMAGED = status_pb2.Status(
    code=14, details=[any_pb2.Any(type_url="type.googleapis.com/google.rpc.ErrorInfo", value=b"\xff\xff")]
).SerializeToString()


@pytest.mark.parametrize("details", [b"\xff\xff", DAMAGED])
def test_malformed_status_details_keep_the_code(details: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", details))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata, "away")
    back = status.from_rpc_error(error, "decoder")
    assert isinstance(back, errors.StageUnavailable)
    assert back.stage == "decoder"


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
async def test_every_error_round_trips_over_the_wire(served: Running, error: errors.HartError) -> None:
    served.engine.fail[5.0] = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Decode(request(5.0))
    back = status.from_rpc_error(caught.value, "somewhere")
    assert type(back) is type(error)
    assert back.message == error.message
    for name in ("stage", "violations", "policies", "policy_version", "setting", "retry_after", "detail", "error_id"):
        if getattr(error, name, ""):
            assert getattr(back, name) == getattr(error, name), name


async def test_process_is_live_before_ready_and_refuses_calls(launch: Launch) -> None:
    import threading

    release = threading.Event()
    running = await launch(
        wait=False, before_start=lambda app: app.on_start(lambda: app.device_thread.run(release.wait, 120))
    )
    health = health_pb2_grpc.HealthStub(running.channel)

    async def state(name: str) -> int:
        return int((await health.Check(health_pb2.HealthCheckRequest(service=name), wait_for_ready=True)).status)

    assert await state("") == 1
    assert await state("hart.v1.Decoder") == 2
    code, proto, _ = await refusal(running.stub.Decode(request()))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert detail(proto, error_details_pb2.RetryInfo).retry_delay.seconds >= 1
    watch = health.Watch(health_pb2.HealthCheckRequest(service="hart.v1.Decoder"))
    assert (await watch.read()).status == 2
    release.set()
    await running.starting
    assert (await watch.read()).status == 1
    assert (await running.stub.Decode(request())).image == b"1.0"
    watch.cancel()


async def test_cancelled_health_watch_does_not_affect_others(served: Running) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    asked = health_pb2.HealthCheckRequest(service="hart.v1.Decoder")
    stays, leaves = health.Watch(asked), health.Watch(asked)
    assert (await stays.read()).status == (await leaves.read()).status == 1
    leaves.cancel()
    await until(lambda: served.app.health._watchers == 1)
    served.app.health.set("hart.v1.Decoder", False)
    assert (await asyncio.wait_for(stays.read(), 60)).status == 2
    stays.cancel()


async def test_full_queue_refuses_at_once_while_health_stays_serving(served: Running) -> None:
    served.engine.release.clear()
    calls = [served.stub.Decode(request(), timeout=60)]
    await until(lambda: served.engine.batches)
    calls += [served.stub.Decode(request(), timeout=60) for _ in range(4)]
    await until(lambda: served.batcher.admission.queued == 4)
    code, proto, _ = await refusal(served.stub.Decode(request(), timeout=60))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = detail(proto, error_details_pb2.ErrorInfo)
    assert (info.metadata["stage"], info.metadata["setting"]) == ("decoder", "HART_MAX_QUEUED_REQUESTS")
    assert detail(proto, error_details_pb2.RetryInfo).retry_delay.ToMilliseconds() > 0
    health = health_pb2_grpc.HealthStub(served.channel)
    answer = await health.Check(health_pb2.HealthCheckRequest(service="hart.v1.Decoder"), timeout=60)
    assert answer.status == 1
    served.engine.release.set()
    assert [(await c).image for c in calls] == [b"1.0"] * 5


async def test_message_over_the_limit_is_refused(launch: Launch) -> None:
    running = await launch(ProcessSettings(port=0, max_message_bytes=2**16))
    big = decoder_pb2.DecodeRequest(latent=from_numpy(np.zeros((1, 200, 200), np.float32)))
    code, _, _ = await refusal(running.stub.Decode(big))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await running.stub.Decode(request())).image == b"1.0"


async def test_start_on_a_port_in_use_fails(launch: Launch) -> None:
    first = await launch()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.app.port}"):
        await launch(ProcessSettings(port=first.app.port, metrics_port=0))


async def test_guard_refuses_before_the_message_is_read(launch: Launch) -> None:
    @contextlib.asynccontextmanager
    async def guard(call: CallInfo) -> AsyncIterator[None]:
        if call.header("authorization") != "Bearer right":
            raise errors.Unauthenticated("no valid API key")
        yield

    running = await launch(before_start=lambda app: app.guard(guard))
    stalled: Any = running.channel.stream_unary("/hart.v1.Decoder/Decode")(timeout=60)
    code, _, text = await refusal(stalled)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert text == "no valid API key"
    answer = await running.stub.Decode(request(), metadata=(("authorization", "Bearer right"),))
    assert answer.image == b"1.0"
    health = health_pb2_grpc.HealthStub(running.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1, "health needs no key"


async def test_slow_sender_is_refused_after_receive_seconds(launch: Launch) -> None:
    running = await launch(ProcessSettings(port=0, receive_seconds=0.2))
    stalled: Any = running.channel.stream_unary("/hart.v1.Decoder/Decode")(timeout=60)
    code, _, text = await refusal(stalled)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "receiving" in text


async def test_call_without_a_message_is_invalid(served: Running) -> None:
    empty: Any = served.channel.stream_unary("/hart.v1.Decoder/Decode")(iter(()))
    code, _, _ = await refusal(empty)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_cancelled_call_frees_its_queue_slot(served: Running) -> None:
    served.engine.release.clear()
    first = served.stub.Decode(request())
    await until(lambda: served.engine.batches)
    waiting = [served.stub.Decode(request()) for _ in range(4)]
    await until(lambda: served.batcher.admission.queued == 4)
    waiting[0].cancel()
    waiting[1].cancel()
    await until(lambda: served.batcher.admission.queued == 2)
    served.engine.release.set()
    assert [(await c).image for c in (first, waiting[2], waiting[3])] == [b"1.0"] * 3
    assert served.batcher.admission.load == 0
    assert sum(served.engine.batches) == 3, "cancelled work is not computed"


class LostCall:
    """A call whose client has disconnected, as gRPC first shows it: a write fails."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> None: ...

    async def write(self, answer: bytes) -> None:
        raise grpc.aio.InternalError("failed to send a message")

    async def abort(self, *status: Any) -> None:
        raise AssertionError(f"aborted with {status}")


@pytest.mark.parametrize("method", ["Draw", "Describe"])
async def test_disconnect_during_a_write_is_not_an_internal_error(
    method: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def draw(request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"answer"

    async def find(details: Any) -> Any:
        return grpc.unary_stream_rpc_method_handler(draw)

    async def sent() -> AsyncIterator[bytes]:
        yield b""

    telemetry = Telemetry("decoder")
    interceptor = CallInterceptor(telemetry, lambda method: None, receive_seconds=60, send_seconds=60)
    handler: Any = await interceptor.intercept_service(find, SimpleNamespace(method=f"/x.X/{method}"))
    with pytest.raises(asyncio.CancelledError):
        await handler.stream_stream(sent(), LostCall())
    value = telemetry.registry.get_sample_value
    counted = int(method == "Draw")
    assert value("hart_cancelled_total", {"stage": "decoder"}) == counted
    assert value("hart_requests_total", {"stage": "decoder", "code": "CANCELLED"}) == counted
    assert value("hart_requests_total", {"stage": "decoder", "code": "INTERNAL"}) == 0
    assert not caplog.records


async def test_drain_finishes_running_calls_and_refuses_new_ones(served: Running) -> None:
    served.engine.release.clear()
    running = served.stub.Decode(request())
    await until(lambda: served.engine.batches)
    drained = asyncio.create_task(served.app.drain(60))
    await until(served.app.draining.is_set)
    code, proto, _ = await refusal(served.stub.Decode(request()))
    assert code is grpc.StatusCode.UNAVAILABLE
    assert detail(proto, error_details_pb2.RetryInfo)
    health = health_pb2_grpc.HealthStub(served.channel)
    for name in ("", "hart.v1.Decoder"):
        assert (await health.Check(health_pb2.HealthCheckRequest(service=name))).status == 2
    assert not drained.done()
    served.engine.release.set()
    assert await drained
    assert (await running).image == b"1.0"


@pytest.mark.parametrize("method", ["Decode", "Describe"])
async def test_cancellation_inside_a_handler_is_an_internal_error(launch: Launch, method: str) -> None:
    async def cancelled(request: Any, context: Any) -> Any:
        waited = asyncio.get_running_loop().create_future()
        waited.cancel()
        await waited

    def break_it(app: Any) -> None:
        names: dict[str, Any] = {method: grpc.unary_unary_rpc_method_handler(cancelled)}
        app.add(lambda _, server: server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("x.X", names)]),
                None)  # fmt: skip

    running = await launch(before_start=break_it)
    async with asyncio.timeout(60):  # the call has no deadline that would end it
        code, proto, _ = await refusal(send_raw(running.channel, b"", f"/x.X/{method}"))
    assert code is grpc.StatusCode.INTERNAL
    assert detail(proto, error_details_pb2.ErrorInfo).metadata["error_id"]


async def test_unknown_method_is_unimplemented(served: Running) -> None:
    code, _, _ = await refusal(send_raw(served.channel, b"", "/hart.v1.Decoder/Paint"))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_connection_closed_for_its_age_loses_no_call(launch: Launch) -> None:
    running = await launch(
        ProcessSettings(port=0, connection_age_seconds=0.3, connection_age_grace_seconds=30), queue_limit=50
    )
    running.engine.seconds = 0.05
    calls = []
    for _ in range(15):
        calls += [running.stub.Decode(request(), timeout=60) for _ in range(3)]
        await asyncio.sleep(0.1)
    assert [(await call).image for call in calls] == [b"1.0"] * 45


async def test_random_cancellations_leak_no_slot_task_or_call(launch: Launch) -> None:
    running = await launch(queue_limit=200)
    rng = random.Random(3)
    running.engine.seconds = 0.002
    assert (await running.stub.Decode(request())).image == b"1.0"
    tasks = len(asyncio.all_tasks())
    calls = []
    for i in range(100):
        calls.append(running.stub.Decode(request(float(i)), timeout=60))
        if rng.random() < 0.5:
            await asyncio.sleep(rng.random() * 0.01)
        if rng.random() < 0.5:
            rng.choice(calls).cancel()
    for i, call in enumerate(calls):
        with contextlib.suppress(asyncio.CancelledError):
            assert (await call).image == str(float(i)).encode()
    assert 0 < sum(call.cancelled() for call in calls) < 100
    await until(lambda: running.batcher.admission.load == 0 and running.app._interceptor.working == 0)
    await until(lambda: len(asyncio.all_tasks()) <= tasks)
