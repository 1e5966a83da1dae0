"""The typed clients, blocking and asyncio, against a gateway on a real socket."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
import time
from typing import Any

import grpc
import hart
import pytest
from hart.channel import Connection, is_loopback
from PIL import Image as PillowImage


def both(gateway: Any, action: str, *arguments: Any, **options: Any) -> list[Any]:
    """The same call on both clients: [blocking outcome, asyncio outcome]; a stream's outcome is its list of events."""

    async def asynchronous() -> Any:
        async with hart.AsyncClient(gateway.endpoint) as client:
            if action == "stream":
                return [event async for event in client.stream(*arguments, **options)]
            return await getattr(client, action)(*arguments, **options)

    with hart.Client(gateway.endpoint) as client:
        outcome = getattr(client, action)(*arguments, **options)
        if action == "stream":
            outcome = list(outcome)
    return [outcome, asyncio.run(asynchronous())]


def test_generate_returns_pictures_in_order_with_seeds_and_report(gateway: Any) -> None:
    for answer in both(gateway, "generate", "a red heart", seed=7, images=3):
        assert [image.index for image in answer] == [0, 1, 2]
        assert [image.seed for image in answer] == [7, 8, 9]
        assert len(answer) == 3
        assert answer[1] is answer.images[1]
        assert answer.report.timings.wall_seconds == pytest.approx(0.1)
        assert PillowImage.open(io.BytesIO(answer[2].data)).getpixel((0, 0)) == (9, 0, 0)


def test_every_option_reaches_the_wire(gateway: Any) -> None:
    options = {
        "model": "tiny",
        "images": 2,
        "seed": 2**64 - 1,
        "guidance": 0.0,
        "smooth": False,
        "top_p": 0.5,
        "format": "jpeg",
        "quality": 1,
        "preview_every": 2,
        "metadata": False,
        "request_id": "r-1",
    }
    assert set(options) == set(hart.request.Options.__annotations__)  # type: ignore[attr-defined]
    with hart.Client(gateway.endpoint) as client, pytest.raises(hart.HartError):
        client.generate("x", **options)  # The fake's own seed arithmetic overflows; the request has arrived.
    sent = gateway.requests[0]
    assert sent.prompt == "x"
    for name, value in options.items():
        assert getattr(sent, name) == (2 if name == "format" else value), name


def test_absent_options_stay_absent_except_the_request_id(gateway: Any) -> None:
    both(gateway, "generate", "x")
    for sent in gateway.requests:
        present = {descriptor.name for descriptor, _ in sent.ListFields()}
        assert present == {"prompt", "request_id"}
    assert gateway.requests[0].request_id != gateway.requests[1].request_id


def test_stream_yields_typed_events_in_order_and_skips_unknown_ones(gateway: Any) -> None:
    for events in both(gateway, "stream", "x", seed=3, images=2, preview_every=3):
        kinds = [type(event).__name__ for event in events]
        assert kinds == ["Accepted"] + ["Progress"] * 6 + ["Image"] * 2 + ["Finished"]
        assert events[0].seeds == (3, 4)
        assert [event.preview is not None for event in events[1:7]] == [False] * 4 + [True] * 2
        assert events[6].preview.format == "jpeg"
        assert events[-1].report.model.name == "tiny"


def test_describe_and_status_answer(gateway: Any) -> None:
    for answer in both(gateway, "describe"):
        assert answer.models[0].example_prompts == ["a red heart", "a green apple"]
    for answer in both(gateway, "status"):
        assert [stage.ready for stage in answer.stages] == [2, 2, 2, 0]


def test_save_writes_the_bytes_and_leaves_nothing_half(gateway: Any, tmp_path: Any) -> None:
    answer = hart.Client(gateway.endpoint).generate("x", seed=1)
    path = answer[0].save(tmp_path / "a.png")
    assert path.read_bytes() == answer[0].data
    with pytest.raises(OSError, match="missing"):
        answer[0].save(tmp_path / "missing" / "a.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(OSError, match="folder"):
        answer[0].save(tmp_path / "folder.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "folder.png"]


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_every_error_becomes_its_type_with_its_facts(gateway: Any, failing: Any, action: str) -> None:
    gateway.failure, kind, facts, _ = failing
    if action == "stream" or kind != "Unavailable":
        gateway.failure.times = 2
    with hart.Client(gateway.endpoint) as client, pytest.raises(hart.HartError) as blocking:
        list(getattr(client, action)("x", request_id="r-9"))

    async def asynchronous() -> None:
        async with hart.AsyncClient(gateway.endpoint) as client:
            if action == "generate":
                await client.generate("x", request_id="r-9")
            else:
                _ = [event async for event in client.stream("x", request_id="r-9")]

    with pytest.raises(hart.HartError) as asynchronously:
        asyncio.run(asynchronous())
    for error in (blocking.value, asynchronously.value):
        assert type(error).__name__ == kind
        assert error.code == gateway.failure.code
        assert error.message == gateway.failure.message
        assert error.request_id == "r-9"
        assert {name: getattr(error, name) for name in facts} == facts


def test_a_call_that_finds_no_replica_is_repeated_with_the_same_request_id(gateway: Any, failing: Any) -> None:
    failure, kind, _, _ = failing
    failure.times = 1
    gateway.failure = failure
    with hart.Client(gateway.endpoint) as client:
        if kind == "Unavailable":
            assert len(client.generate("x")) == 1
            assert len({request.request_id for request in gateway.requests}) == 1
            assert len(gateway.requests) == 2
        else:
            with pytest.raises(hart.HartError):
                client.generate("x")
            assert len(gateway.requests) == 1


def test_no_server_is_unavailable_and_not_for_long() -> None:
    start = time.monotonic()
    with pytest.raises(hart.Unavailable):
        hart.Client("127.0.0.1:9").generate("x")
    assert time.monotonic() - start < 20


def test_timeout_is_the_calls_deadline_on_the_server(gateway: Any) -> None:
    gateway.hang = True
    for action in (hart.Client.generate, lambda *a, **k: list(hart.Client.stream(*a, **k))):
        with hart.Client(gateway.endpoint) as client, pytest.raises(hart.DeadlineExceeded):
            action(client, "x", timeout=0.3)
    assert gateway.remaining
    assert all(remaining <= 0.35 for remaining in gateway.remaining)  # the wire rounds
    gateway.hang = False
    hart.Client(gateway.endpoint).generate("x")
    assert gateway.remaining[-1] is None or gateway.remaining[-1] > 300


def test_closing_a_stream_cancels_on_the_server(gateway: Any) -> None:
    gateway.hang = True
    with hart.Client(gateway.endpoint) as client:
        events = client.stream("x")
        assert isinstance(next(iter(events)), hart.Accepted)
        assert gateway.started.wait(5)
        events.close()  # type: ignore[attr-defined]
        assert gateway.cancelled.wait(5)


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_cancelling_the_task_cancels_on_the_server(gateway: Any, action: str) -> None:
    gateway.hang = True

    async def scenario() -> None:
        async with hart.AsyncClient(gateway.endpoint) as client:

            async def draw() -> None:
                if action == "generate":
                    await client.generate("x")
                else:
                    _ = [event async for event in client.stream("x")]

            task = asyncio.create_task(draw())
            await asyncio.to_thread(gateway.started.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(gateway.cancelled.wait, 5)

    asyncio.run(scenario())


def test_an_api_key_travels_as_bearer_token(gateway: Any) -> None:
    hart.Client(gateway.endpoint, api_key="s3cret").generate("x")
    assert gateway.metadata[0]["authorization"] == "Bearer s3cret"
    hart.Client(gateway.endpoint).generate("x")
    assert "authorization" not in gateway.metadata[1]


def test_an_api_key_is_not_sent_in_the_open_to_another_machine() -> None:
    for endpoint in ("gateway.example:443", "dns:///10.0.0.1:50051"):
        with pytest.raises(ValueError, match="api_key"):
            Connection(endpoint, "k")
        Connection(endpoint, "k", insecure=True)
        Connection(endpoint, "k", tls=hart.TLS())
    local = ("127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/a/b", "dns:///127.0.0.1:5")
    assert all(map(is_loopback, local))


def test_answers_over_four_mebibytes_arrive_and_describe_raises_the_limit(gateway: Any) -> None:
    gateway.padding = 3 << 20
    with hart.Client(gateway.endpoint) as client:
        assert len(client.generate("x", images=3)) == 3
        gateway.padding = 65 << 20
        with pytest.raises(hart.Overloaded, match="larger than max"):
            client.generate("x")
        gateway.max_answer_bytes = 80 << 20
        client.describe()
        assert len(client.generate("x")[0].data) > 65 << 20


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "seven"}, "seed"),
        ({"images": 1.5}, "images"),
        ({"images": True}, "images"),
        ({"guidance": "strong"}, "guidance"),
        ({"smooth": "yes"}, "smooth"),
        ({"format": "gif"}, "format"),
        ({"format": 7}, "format"),
        ({"steps": 50}, "steps"),
    ],
)
def test_an_option_of_a_wrong_type_is_refused_by_name_before_anything_is_sent(
    gateway: Any, options: dict[str, Any], field: str
) -> None:
    with pytest.raises(hart.InvalidRequest) as error:
        hart.Client(gateway.endpoint).generate("x", **options)
    assert set(error.value.fields) == {field}
    assert not gateway.requests


def test_a_prompt_that_is_no_text_is_refused_by_name(gateway: Any) -> None:
    for prompt in (None, 5, "\ud800"):
        with pytest.raises(hart.InvalidRequest) as error:
            hart.Client(gateway.endpoint).generate(prompt)  # type: ignore[arg-type]
        assert "prompt" in error.value.fields


def test_an_error_whose_details_do_not_parse_keeps_code_and_sentence() -> None:
    class Broken:
        def code(self) -> grpc.StatusCode:
            return grpc.StatusCode.UNAVAILABLE

        def details(self) -> str:
            return "a proxy's words"

        def trailing_metadata(self) -> Any:
            return (("grpc-status-details-bin", b"\xff\xff\xff"),)

    error = hart.errors.from_rpc(Broken())  # type: ignore[attr-defined]
    assert type(error) is hart.Unavailable
    assert error.message == "a proxy's words"


def test_tls_wants_certificate_and_key_together() -> None:
    with pytest.raises(ValueError, match="together"):
        hart.TLS(cert="a.pem")


def test_importing_hart_imports_nothing_else() -> None:
    code = "import sys, hart; print([m for m in ('grpc', 'google.protobuf', 'torch', 'typer') if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"
    assert set(hart.__all__) <= set(dir(hart))
    for name in hart.__all__:
        assert getattr(hart, name) is not None
    with pytest.raises(AttributeError, match="nothing"):
        _ = hart.nothing


@pytest.mark.parametrize(
    "endpoint",
    ["", "nonsense", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "host:port", "h:70000", "http://h:1", ":1", "[::1]"],
)
def test_an_endpoint_that_is_none_is_refused_at_once(endpoint):
    with pytest.raises(ValueError, match="endpoint"):
        hart.Client(endpoint)


@pytest.mark.parametrize("endpoint", ["h:1", "[::1]:50051", "unix:/run/hart.sock", "dns:///hart:443"])
def test_targets_of_grpc_are_endpoints(endpoint):
    hart.Client(endpoint).close()


def test_with_tls_a_bare_host_means_port_443():
    Connection("gateway.example", tls=hart.TLS())


def test_numbers_out_of_range_are_told_their_range():
    with pytest.raises(hart.InvalidRequest) as refused:
        hart.Client("127.0.0.1:9").generate("x", seed=2**64, images=-1)
    assert refused.value.fields["seed"].endswith(f"must be 0 to {2**64 - 1}")
    assert refused.value.fields["images"].endswith(f"must be 0 to {2**32 - 1}")


def test_an_answer_shows_itself_in_a_line(gateway):
    with hart.Client(gateway.endpoint) as client:
        assert "\n" not in repr(client.generate("x", seed=1))


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), "5", True])
@pytest.mark.parametrize("client", [hart.Client, hart.AsyncClient])
def test_a_timeout_that_is_none_is_refused_by_name(gateway, client, timeout):
    def draw(action):
        with pytest.raises(hart.InvalidRequest) as refused:
            outcome = action()
            if asyncio.iscoroutine(outcome):
                asyncio.run(outcome)
        assert set(refused.value.fields) == {"timeout"}

    one = client(gateway.endpoint)
    draw(lambda: one.stream("x", timeout=timeout))
    if client is hart.Client:
        draw(lambda: one.generate("x", timeout=timeout))
        draw(lambda: one.status(timeout=timeout))
    else:
        draw(lambda: one.generate("x", timeout=timeout))
    assert not gateway.requests


@pytest.mark.parametrize("key", ["a\nb", "ключ", "\x00", b"bytes"])
def test_an_api_key_that_no_header_can_carry_is_refused_and_not_repeated(key):
    with pytest.raises(ValueError, match="api_key") as refused:
        hart.Client("127.0.0.1:1", api_key=key)
    assert repr(key) not in str(refused.value)


def test_a_closed_client_says_so(gateway):
    one = hart.Client(gateway.endpoint)
    one.generate("x")
    one.close()
    one.close()
    with pytest.raises(ValueError, match="closed"):
        one.generate("x")

    async def asynchronous():
        two = hart.AsyncClient(gateway.endpoint)
        await two.generate("x")
        await two.close()
        await two.close()
        with pytest.raises(ValueError, match="closed"):
            await two.generate("x")
        with pytest.raises(ValueError, match="closed"):
            _ = [event async for event in two.stream("x")]

    asyncio.run(asynchronous())
    assert len(gateway.requests) == 2


@pytest.mark.parametrize("action", ["generate", "stream"])
def test_closing_the_async_client_ends_its_calls_and_cancels_nobodys_task(gateway, action):
    gateway.hang = True

    async def scenario():
        client = hart.AsyncClient(gateway.endpoint)

        async def draw():
            with pytest.raises(hart.Cancelled):
                if action == "generate":
                    await client.generate("x")
                else:
                    _ = [event async for event in client.stream("x")]
            return "went on"

        task = asyncio.create_task(draw())
        await asyncio.to_thread(gateway.started.wait, 5)
        await client.close()
        assert await asyncio.wait_for(task, 5) == "went on"
        assert await asyncio.to_thread(gateway.cancelled.wait, 5)

    asyncio.run(scenario())


def test_a_picture_that_cannot_be_saved_names_the_callers_path(gateway, tmp_path):
    picture = hart.Client(gateway.endpoint).generate("x", seed=1)[0]
    with pytest.raises(FileNotFoundError) as missing:
        picture.save(tmp_path / "missing" / "a.png")
    assert missing.value.filename == str(tmp_path / "missing" / "a.png")
