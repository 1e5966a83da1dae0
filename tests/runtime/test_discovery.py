"""runtime.discovery: endpoint sources; Kubernetes by the real client against a fake API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes
import pytest
from aiohttp import web

from runtime.discovery.endpoint import Endpoint, parse
from runtime.discovery.kubernetes import KubernetesSource
from runtime.discovery.sources import DnsSource, FileSource, Source, StaticSource, source
from tests.runtime.support import until

LABEL = "kubernetes.io/service-name"


def endpoint_slice(name: str, *addresses: str, service: str = "decoder", **conditions: bool) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "hart", "labels": {LABEL: service}},
        "addressType": "IPv4",
        "ports": [{"name": "grpc", "port": 50055}, {"name": "metrics", "port": 51055}],
        "endpoints": [{"addresses": [a], "conditions": {"ready": True, **conditions}} for a in addresses],
    }


class FakeApi:
    """EndpointSlices of one namespace: list and watch, with the failures of real API servers."""

    def __init__(self) -> None:
        self.slices: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.watchers: list[asyncio.Queue[dict[str, Any] | None]] = []
        self.lists = 0
        self.broken = 0  # status to answer every call with
        self.gone = False  # answer watches with 410
        self.port = 0

    async def __aenter__(self) -> FakeApi:
        app = web.Application()
        app.router.add_get("/apis/discovery.k8s.io/v1/namespaces/hart/endpointslices", self._get)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await self._listen()
        return self

    async def _listen(self) -> None:
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]
        self._site = site

    async def __aexit__(self, *_: object) -> None:
        self.break_watches()
        await self._runner.cleanup()

    async def away(self) -> None:
        self.break_watches()
        await self._site.stop()

    async def back(self) -> None:
        await self._listen()

    def break_watches(self) -> None:
        for watcher in self.watchers:
            watcher.put_nowait(None)
        self.watchers.clear()

    def put(self, kind: str, found: dict[str, Any]) -> None:
        self.version += 1
        found["metadata"]["resourceVersion"] = str(self.version)
        if kind == "DELETED":
            self.slices.pop(found["metadata"]["name"], None)
        else:
            self.slices[found["metadata"]["name"]] = found
        for watcher in self.watchers:
            watcher.put_nowait({"type": kind, "object": found})

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if self.broken:
            return web.json_response({"kind": "Status", "code": self.broken}, status=self.broken)
        if request.query.get("watch"):
            return await self._watch(request)
        self.lists += 1
        metadata = {"resourceVersion": str(self.version)}
        items = list(self.slices.values())  # unfiltered: the source must check labels itself
        return web.json_response({"kind": "EndpointSliceList", "metadata": metadata, "items": items})

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        if self.gone:
            self.gone = False
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": gone}).encode() + b"\n")
            return response
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.watchers.append(events)
        while (event := await events.get()) is not None:
            await response.write(json.dumps(event).encode() + b"\n")
        return response

    def source(self, port: str = "grpc") -> KubernetesSource:
        configuration = kubernetes.client.Configuration()
        configuration.host = f"http://127.0.0.1:{self.port}"
        configuration.retries = False
        api = kubernetes.client.DiscoveryV1Api(kubernetes.client.ApiClient(configuration))
        return KubernetesSource("hart", "decoder", port, api=api)


@pytest.fixture
async def api() -> AsyncIterator[FakeApi]:
    async with FakeApi() as running:
        yield running


def at(*addresses: str) -> frozenset[Endpoint]:
    return frozenset(Endpoint(a) for a in addresses)


async def next_endpoints(changes: Any) -> frozenset[Endpoint]:
    return await asyncio.wait_for(anext(changes), 60)


async def watch_opened(api: FakeApi) -> None:
    await until(lambda: api.watchers)


async def test_ready_endpoints_of_all_slices_are_followed(api: FakeApi) -> None:
    api.put("ADDED", endpoint_slice("a", "10.0.0.1", "10.0.0.2"))
    api.put("ADDED", endpoint_slice("other", "10.9.9.9", service="safety"))
    async with aclosing(api.source().watch()) as changes:
        assert await next_endpoints(changes) == at("10.0.0.1:50055", "10.0.0.2:50055")
        await watch_opened(api)
        api.put("ADDED", endpoint_slice("b", "10.0.0.3"))
        assert await next_endpoints(changes) == at("10.0.0.1:50055", "10.0.0.2:50055", "10.0.0.3:50055")
        api.put("MODIFIED", endpoint_slice("a", "10.0.0.1", "10.0.0.2", terminating=True))
        assert await next_endpoints(changes) == at("10.0.0.3:50055")
        api.put("DELETED", endpoint_slice("b", "10.0.0.3"))
        assert await next_endpoints(changes) == at()


async def test_unready_endpoints_are_skipped_and_ports_resolve(api: FakeApi) -> None:
    api.put("ADDED", endpoint_slice("a", "10.0.0.1", ready=False))
    api.put("ADDED", endpoint_slice("b", "10.0.0.2"))
    async with aclosing(api.source("metrics").watch()) as changes:
        assert await next_endpoints(changes) == at("10.0.0.2:51055")
    async with aclosing(api.source("7").watch()) as changes:
        assert await next_endpoints(changes) == at("10.0.0.2:7")


async def test_broken_watch_resumes_with_missed_changes(api: FakeApi) -> None:
    api.put("ADDED", endpoint_slice("a", "10.0.0.1"))
    async with aclosing(api.source().watch()) as changes:
        await next_endpoints(changes)
        await watch_opened(api)
        api.break_watches()
        api.put("DELETED", endpoint_slice("a", "10.0.0.1"))
        api.put("ADDED", endpoint_slice("b", "10.0.0.2"))
        assert await next_endpoints(changes) == at("10.0.0.2:50055")


async def test_410_gone_causes_a_new_list(api: FakeApi) -> None:
    api.gone = True
    api.put("ADDED", endpoint_slice("a", "10.0.0.1"))
    async with aclosing(api.source().watch()) as changes:
        await next_endpoints(changes)
        await watch_opened(api)
        assert api.lists >= 2
        api.put("MODIFIED", endpoint_slice("a", "10.0.0.5"))
        assert await next_endpoints(changes) == at("10.0.0.5:50055")


def test_short_watches_back_off_before_the_next_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("runtime.discovery.kubernetes.SHORT_SECONDS", 60.0)
    source = KubernetesSource("hart", "decoder", "grpc")
    pauses: list[float] = []
    monkeypatch.setattr(source, "_list_and_watch", lambda send, stopped: None)
    stopped: Any = SimpleNamespace(is_set=lambda: len(pauses) == 6, wait=pauses.append)
    source._follow(lambda endpoints: None, stopped)
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0]


@pytest.mark.parametrize("failure", ["away", "403", "500"])
async def test_last_known_endpoints_stay_while_the_api_is_down(api: FakeApi, failure: str) -> None:
    api.put("ADDED", endpoint_slice("a", "10.0.0.1"))
    async with aclosing(api.source().watch()) as changes:
        await next_endpoints(changes)
        await watch_opened(api)
        if failure == "away":
            await api.away()
        else:
            api.broken = int(failure)
            api.break_watches()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(waiting := asyncio.ensure_future(anext(changes))), 0.5)
        api.put("ADDED", endpoint_slice("b", "10.0.0.2"))
        if failure == "away":
            await api.back()
        api.broken = 0
        assert await asyncio.wait_for(waiting, 60) == at("10.0.0.1:50055", "10.0.0.2:50055")


async def test_dns_gives_every_address_and_keeps_the_last_known(monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[Any] = [["10.0.0.1", "10.0.0.2"], OSError("no such name"), ["10.0.0.2", "fd00::1"]]

    async def resolve(host: str, port: int, **_: Any) -> list[Any]:
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, OSError):
            raise answer
        return [(None, None, None, "", (address, port)) for address in answer]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)
    async with aclosing(DnsSource("decoder", 50055, every=0.01).watch()) as changes:
        assert await next_endpoints(changes) == at("10.0.0.1:50055", "10.0.0.2:50055")
        assert await next_endpoints(changes) == at("10.0.0.2:50055", "[fd00::1]:50055")


async def test_dns_uses_the_system_resolver() -> None:
    async with aclosing(DnsSource("localhost", 50055).watch()) as changes:
        assert "127.0.0.1:50055" in {e.address for e in await next_endpoints(changes)}


async def test_invalid_line_in_a_file_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    listed = tmp_path / "decoder"
    listed.write_text("127.0.0.1:1\n# nothing\noip://127.0.0.1:2/decoder\n")
    async with aclosing(FileSource(listed, every=0.01).watch()) as changes:
        assert await next_endpoints(changes) == {Endpoint("127.0.0.1:1"), Endpoint("127.0.0.1:2", "decoder")}
        listed.write_text("127.0.0.1:1\nwhat is this\n")
        waiting = asyncio.ensure_future(anext(changes))
        await until(lambda: "what is this" in caplog.text)
        await asyncio.sleep(0.1)
        assert not waiting.done()
        listed.write_text("")
        assert await asyncio.wait_for(waiting, 60) == frozenset()


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("127.0.0.1:50055, oip://[::1]:8001/m", StaticSource),
        ("file:///etc/hart/decoder", FileSource),
        ("dns:///decoder.hart.svc:50055", DnsSource),
        ("kubernetes://hart/decoder:grpc?oip=decoder", KubernetesSource),
    ],
)
def test_source_is_chosen_by_its_scheme(text: str, kind: type[Source]) -> None:
    assert isinstance(source(text), kind)


@pytest.mark.parametrize(
    "text",
    [
        " , ",
        "nowhere",
        "host:0",
        "host:70000",
        "oip://host:1",
        "dns:///host",
        "dns:///host:http",
        "dns:///host:70000",
        "kubernetes:///a:1",
        "kubernetes://hart/a:0",
        "file://etc/hart/decoder",
        "file:decoder",
    ],
)
def test_invalid_source_is_refused_with_its_text(text: str) -> None:
    with pytest.raises(ValueError, match=text.replace("?", ".")):
        source(text)


def test_invalid_source_error_lists_every_form() -> None:
    forms = (
        "expected host:port, unix:/path or oip://host:port/model; or instead of a list: file:///path, "
        "dns:///host:port or kubernetes://namespace/service:port"
    )
    with pytest.raises(ValueError, match=f"^'foo' is not an endpoint: {forms}$"):
        source("127.0.0.1:1,foo")


def test_endpoint_round_trips_through_text() -> None:
    for text in ("host:1", "[::1]:65535", "unix:/run/hart.sock", "oip://host:8001/text_encoder"):
        assert str(parse(text)) == text
