"""Replica lists that a gateway watches while a drill changes them: a file, and EndpointSlices of a small Kubernetes API
server. Knows no stage."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from aiohttp import web

NAMESPACE = "drill"
PATH = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"


class Listing(Protocol):
    """A replica list that a gateway watches."""

    setting: str
    """The value of the gateway's setting for the stage."""

    def add(self, address: str) -> None:
        """A replica is ready."""

    def leave(self, address: str) -> None:
        """A replica must get no new work."""


class FileListing:
    """`file:///path`."""

    def __init__(self, path: Path) -> None:
        self._path, self._addresses = path, list[str]()
        self.setting = f"file://{path}"
        self._write()

    def add(self, address: str) -> None:
        """A line more."""
        self._addresses.append(address)
        self._write()

    def leave(self, address: str) -> None:
        """A line less."""
        self._addresses.remove(address)
        self._write()

    def _write(self) -> None:
        partial = self._path.with_suffix(".new")
        partial.write_text("".join(f"{address}\n" for address in self._addresses))
        partial.rename(self._path)


class KubernetesListing:
    """`kubernetes://namespace/service:port`: a slice for each replica, as here each has a port of its own."""

    def __init__(self, service: str) -> None:
        self._service = service
        self._version = 1
        self._slices: dict[str, dict[str, Any]] = {}
        self._watchers: list[asyncio.Queue[dict[str, Any]]] = []
        self.setting = f"kubernetes://{NAMESPACE}/{service}:grpc"

    def add(self, address: str) -> None:
        """Its endpoint is ready."""
        self._publish("ADDED", address, {"ready": True, "serving": True, "terminating": False})

    def leave(self, address: str) -> None:
        """Its pod is being deleted: the endpoint is terminating, and still serves what it has."""
        self._publish("MODIFIED", address, {"ready": False, "serving": True, "terminating": True})

    def _publish(self, kind: str, address: str, conditions: dict[str, bool]) -> None:
        self._version += 1
        host, _, port = address.rpartition(":")
        found = {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"{self._service}-{port}",
                "namespace": NAMESPACE,
                "labels": {"kubernetes.io/service-name": self._service},
                "resourceVersion": str(self._version),
            },
            "addressType": "IPv4",
            "ports": [{"name": "grpc", "port": int(port)}],
            "endpoints": [{"addresses": [host], "conditions": conditions}],
        }
        self._slices[found["metadata"]["name"]] = found  # type: ignore[index]
        for watcher in self._watchers:
            watcher.put_nowait({"type": kind, "object": found})

    @asynccontextmanager
    async def served(self, folder: Path) -> AsyncIterator[None]:
        """The API server; processes started meanwhile find it through KUBECONFIG."""
        app = web.Application()
        app.router.add_get(PATH, self._get)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps(_kubeconfig(runner.addresses[0][1])))
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(kubeconfig)
        try:
            yield
        finally:
            os.environ.pop("KUBECONFIG")
            if before is not None:
                os.environ["KUBECONFIG"] = before
            await runner.cleanup()

    async def _get(self, request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await self._watch(request)
        metadata = {"resourceVersion": str(self._version)}
        return web.json_response(
            {"kind": "EndpointSliceList", "metadata": metadata, "items": list(self._slices.values())}
        )

    async def _watch(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._watchers.append(events)
        try:
            async with asyncio.timeout(float(request.query.get("timeoutSeconds", "60"))):
                while True:
                    await response.write(json.dumps(await events.get()).encode() + b"\n")
        except TimeoutError:  # as a real one ends a watch
            return response
        finally:
            self._watchers.remove(events)


def _kubeconfig(port: int) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "drill", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
        "users": [{"name": "drill", "user": {}}],
        "contexts": [{"name": "drill", "context": {"cluster": "drill", "user": "drill"}}],
        "current-context": "drill",
    }
