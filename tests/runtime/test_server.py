"""Laws of the server that every process stands on, over real sockets."""

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
from tests.runtime.support import detail, refusal, request, until


async def send_raw(channel: grpc.aio.Channel, data: bytes, method: str = "/hart.v1.Decoder/Decode") -> Any:
    return await channel.unary_unary(method)(data)


async def test_a_request_comes_back_computed(served: Any) -> None:
    answer = await served.stub.Decode(request(4.0))
    assert answer.image == b"4.0"
    assert answer.timing.batch_size == 1


@pytest.mark.parametrize("data", [b"\xff\xff\xff", b"\x12\x05ab", b"\x0a\x02\xff\xfe"], ids=["noise", "cut", "utf8"])
async def test_bytes_that_are_no_message_are_invalid_and_harmless(served: Any, data: bytes) -> None:
    code, proto, text = await refusal(send_raw(served.channel, data))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "not a message" in text
    assert detail(proto, error_details_pb2.BadRequest).field_violations
    assert (await served.stub.Decode(request(2.0))).image == b"2.0"


async def test_unknown_fields_and_enum_values_are_refused_by_name(served: Any) -> None:
    deep = request()
    deep.latent.MergeFromString(b"\xa2\x06\x01x")  # field 100 of the tensor
    deep.encoding.format = 77  # type: ignore[assignment]
    code, proto, _ = await refusal(served.stub.Decode(deep))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    fields = {v.field for v in detail(proto, error_details_pb2.BadRequest).field_violations}
    assert fields == {"latent.100", "encoding.format"}


def test_of_many_unknown_fields_as_many_are_named_as_an_answer_holds() -> None:
    message = decoder_pb2.DecodeRequest.FromString(b"\xf8\x07\x01" * 10_000)  # field 127
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert len(caught.value.violations) == status.MAX_VIOLATIONS


@pytest.mark.parametrize("where", ["", "latent"])
def test_many_bytes_of_unknown_fields_are_refused_without_a_walk(monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    def walk(_: object) -> None:
        raise AssertionError("walked")

    monkeypatch.setattr(messages, "violations", walk)
    message = decoder_pb2.DecodeRequest()
    (getattr(message, where) if where else message).MergeFromString(b"\xf8\x07\x01" * 30_000)  # field 127
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert "bytes of the message are unknown fields" in caught.value.violations[0].description


def test_a_large_message_of_known_fields_is_taken_and_its_few_unknown_ones_named() -> None:
    message = decoder_pb2.DecodeRequest(latent=from_numpy(np.zeros((8, 64, 64), np.float32)))
    messages.refuse_unknown(message)
    message.latent.MergeFromString(b"\xf8\x07\x01")
    with pytest.raises(errors.InvalidRequest) as caught:
        messages.refuse_unknown(message)
    assert [violation.field for violation in caught.value.violations] == ["latent.127"]


async def test_an_internal_error_tells_the_caller_an_id_alone(served: Any, caplog: pytest.LogCaptureFixture) -> None:
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
def test_details_that_are_none_leave_the_code(details: bytes) -> None:
    metadata = grpc.aio.Metadata(("grpc-status-details-bin", details))
    error = grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), metadata, "away")
    back = status.from_rpc_error(error, "decoder")
    assert isinstance(back, errors.StageUnavailable)
    assert back.stage == "decoder"


@pytest.mark.parametrize("error", EVERY_ERROR, ids=lambda e: type(e).__name__)
async def test_every_error_survives_the_wire(served: Any, error: errors.HartError) -> None:
    served.engine.fail[5.0] = error
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.stub.Decode(request(5.0))
    back = status.from_rpc_error(caught.value, "somewhere")
    assert type(back) is type(error)
    assert back.message == error.message
    for name in ("stage", "violations", "policies", "policy_version", "setting", "retry_after", "detail", "error_id"):
        if getattr(error, name, ""):
            assert getattr(back, name) == getattr(error, name), name


async def test_alive_before_ready_and_work_is_refused_until_then(launch: Any) -> None:
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


async def test_a_watcher_that_leaves_does_not_silence_the_others(served: Any) -> None:
    health = health_pb2_grpc.HealthStub(served.channel)
    asked = health_pb2.HealthCheckRequest(service="hart.v1.Decoder")
    stays, leaves = health.Watch(asked), health.Watch(asked)
    assert (await stays.read()).status == (await leaves.read()).status == 1
    leaves.cancel()
    await until(lambda: served.app.health._watchers == 1)
    served.app.health.set("hart.v1.Decoder", False)
    assert (await asyncio.wait_for(stays.read(), 60)).status == 2
    stays.cancel()


async def test_busy_is_not_unready_and_a_full_queue_answers_at_once(served: Any) -> None:
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


async def test_a_message_over_the_limit_is_refused_and_the_process_lives(launch: Any) -> None:
    running = await launch(ProcessSettings(port=0, max_message_bytes=2**16))
    big = decoder_pb2.DecodeRequest(latent=from_numpy(np.zeros((1, 200, 200), np.float32)))
    code, _, _ = await refusal(running.stub.Decode(big))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert (await running.stub.Decode(request())).image == b"1.0"


async def test_a_second_process_on_the_same_port_fails_to_start(launch: Any) -> None:
    first = await launch()
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.app.port}"):
        await launch(ProcessSettings(port=first.app.port, metrics_port=0))


async def test_a_guard_refuses_before_the_message_is_read(launch: Any) -> None:
    @contextlib.asynccontextmanager
    async def guard(call: CallInfo) -> AsyncIterator[None]:
        if call.header("authorization") != "Bearer right":
            raise errors.Unauthenticated("no valid API key")
        yield

    running = await launch(before_start=lambda app: app.guard(guard))
    silent = running.channel.stream_unary("/hart.v1.Decoder/Decode")(timeout=60)
    code, _, text = await refusal(silent)
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert text == "no valid API key"
    answer = await running.stub.Decode(request(), metadata=(("authorization", "Bearer right"),))
    assert answer.image == b"1.0"
    health = health_pb2_grpc.HealthStub(running.channel)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == 1, "health wants no key"


async def test_a_sender_that_is_too_slow_is_sent_away(launch: Any) -> None:
    running = await launch(ProcessSettings(port=0, receive_seconds=0.2))
    silent = running.channel.stream_unary("/hart.v1.Decoder/Decode")(timeout=60)
    code, _, text = await refusal(silent)
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "receiving" in text


async def test_a_call_that_ends_without_a_message_is_invalid(served: Any) -> None:
    empty = served.channel.stream_unary("/hart.v1.Decoder/Decode")(iter(()))
    code, _, _ = await refusal(empty)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_caller_that_goes_away_frees_its_queue_slot(served: Any) -> None:
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
    """A call whose caller has gone, as gRPC shows it first: what is being written cannot be."""

    def invocation_metadata(self) -> tuple[()]:
        return ()

    def time_remaining(self) -> None: ...

    async def write(self, answer: bytes) -> None:
        raise grpc.aio.InternalError("failed to send a message")

    async def abort(self, *status: Any) -> None:
        raise AssertionError(f"nobody hears {status}")


@pytest.mark.parametrize("method", ["Draw", "Describe"])
async def test_a_caller_who_leaves_while_an_answer_is_written_is_no_internal_error(
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


async def test_drain_finishes_what_runs_refuses_what_is_new_and_says_not_serving(served: Any) -> None:
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
async def test_a_cancel_that_nobody_asked_for_is_an_error_and_not_silence(launch: Any, method: str) -> None:
    async def cancelled(request: Any, context: Any) -> Any:
        waited = asyncio.get_running_loop().create_future()
        waited.cancel()
        await waited

    def break_it(app: Any) -> None:
        names = {method: grpc.unary_unary_rpc_method_handler(cancelled)}
        app.add(lambda _, server: server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("x.X", names)]),
                None)  # fmt: skip

    running = await launch(before_start=break_it)
    async with asyncio.timeout(60):  # the call has no deadline that would end it
        code, proto, _ = await refusal(send_raw(running.channel, b"", f"/x.X/{method}"))
    assert code is grpc.StatusCode.INTERNAL
    assert detail(proto, error_details_pb2.ErrorInfo).metadata["error_id"]


async def test_an_unknown_method_is_unimplemented(served: Any) -> None:
    code, _, _ = await refusal(send_raw(served.channel, b"", "/hart.v1.Decoder/Paint"))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_connection_that_is_asked_to_go_loses_no_call(launch: Any) -> None:
    running = await launch(
        ProcessSettings(port=0, connection_age_seconds=0.3, connection_age_grace_seconds=30), queue_limit=50
    )
    running.engine.seconds = 0.05
    calls = []
    for _ in range(15):
        calls += [running.stub.Decode(request(), timeout=60) for _ in range(3)]
        await asyncio.sleep(0.1)
    assert [(await call).image for call in calls] == [b"1.0"] * 45


async def test_a_hundred_random_cancels_leave_no_slot_task_or_call_behind(launch: Any) -> None:
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
