"""Discovery by Kubernetes: watches the ready endpoints of a Service's EndpointSlices.

Calls of the `kubernetes` client block, so they run on this source's own thread. After any failure (broken watch,
410 Gone, API unreachable) it lists again, with exponential back-off while watches fail within a second. Meanwhile the
last known set stays valid.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any

from runtime.discovery.endpoint import Endpoint

log = logging.getLogger(__name__)
Endpoints = frozenset[Endpoint]
SERVICE_LABEL = "kubernetes.io/service-name"
WATCH_SECONDS = 60  # the server ends a watch after this; the read timeout is a little longer
CONNECT_SECONDS = 5
SHORT_SECONDS = 1.0  # a shorter watch counts as failed
MIN_PAUSE, MAX_PAUSE = 0.1, 2.0


class KubernetesSource:
    """Watches one Service. `port`: a number or a port name of its slices. `api`: a DiscoveryV1Api for tests; by default
    it uses the pod's service account or, outside a cluster, the kubeconfig."""

    def __init__(self, namespace: str, service: str, port: str, model: str = "", *, api: Any = None) -> None:
        self._namespace = namespace
        self._service = service
        self._port = port
        self._model = model
        self._api = api

    async def watch(self) -> AsyncGenerator[Endpoints, None]:
        """The Service's ready endpoints: the current set, then each change."""
        loop = asyncio.get_running_loop()
        found: asyncio.Queue[Endpoints] = asyncio.Queue()
        stopped = threading.Event()

        def publish(endpoints: Endpoints) -> None:
            if not stopped.is_set():
                loop.call_soon_threadsafe(found.put_nowait, endpoints)

        # A daemon: a blocked read must not delay the process's exit.
        threading.Thread(target=self._follow, args=(publish, stopped), name="endpointslices", daemon=True).start()
        try:
            last: Endpoints | None = None
            while True:
                endpoints = await found.get()
                if endpoints != last:
                    last = endpoints
                    yield endpoints
        finally:
            stopped.set()

    def _follow(self, publish: Callable[[Endpoints], None], stopped: threading.Event) -> None:
        pause = MIN_PAUSE
        while not stopped.is_set():
            begun = time.monotonic()
            try:
                self._list_and_watch(publish, stopped)
            except Exception as error:  # keep the last known endpoints on any error
                level = logging.INFO if getattr(error, "status", None) == 410 else logging.WARNING
                log.log(level, "EndpointSlices of %s: %s; listing again", self._service, _brief(error))
            if time.monotonic() - begun >= SHORT_SECONDS:
                pause = MIN_PAUSE
            stopped.wait(pause)
            pause = min(pause * 2, MAX_PAUSE)

    def _list_and_watch(self, publish: Callable[[Endpoints], None], stopped: threading.Event) -> None:
        from kubernetes import watch as kubernetes_watch  # imported on this thread: the import takes seconds

        api = self._api or _default_api()
        selector = f"{SERVICE_LABEL}={self._service}"
        listed = api.list_namespaced_endpoint_slice(
            self._namespace, label_selector=selector, _request_timeout=(CONNECT_SECONDS, 10)
        )
        slices = {s.metadata.name: s for s in listed.items if self._ours(s)}
        publish(self._endpoints(slices))
        events = kubernetes_watch.Watch().stream(
            api.list_namespaced_endpoint_slice,
            self._namespace,
            label_selector=selector,
            resource_version=listed.metadata.resource_version,
            timeout_seconds=WATCH_SECONDS,
            _request_timeout=(CONNECT_SECONDS, WATCH_SECONDS + 10),
        )
        for event in events:
            if stopped.is_set():
                return
            changed = event["object"]
            if event["type"] == "DELETED" or not self._ours(changed):
                slices.pop(changed.metadata.name, None)
            elif event["type"] in ("ADDED", "MODIFIED"):
                slices[changed.metadata.name] = changed
            publish(self._endpoints(slices))

    def _ours(self, found: Any) -> bool:
        return bool((found.metadata.labels or {}).get(SERVICE_LABEL) == self._service)

    def _endpoints(self, slices: dict[str, Any]) -> Endpoints:
        return frozenset(
            Endpoint(_join(address, port), self._model, f"{self._service}.{self._namespace}.svc")
            for found in slices.values()
            if (port := self._number(found)) is not None
            for endpoint in found.endpoints or []
            if _usable(endpoint.conditions)
            for address in endpoint.addresses or []
        )

    def _number(self, found: Any) -> int | None:
        if self._port.isdigit():
            return int(self._port)
        return next((p.port for p in found.ports or [] if p.name == self._port), None)


def _usable(conditions: Any) -> bool:
    # By the API's definition, unknown readiness counts as ready. Terminating endpoints get no new work.
    return conditions is None or (conditions.ready is not False and not conditions.terminating)


def _default_api() -> Any:
    from kubernetes import client, config  # imported here for the same reason

    try:
        config.load_incluster_config()
    except config.ConfigException:
        config.load_kube_config()
    return client.DiscoveryV1Api()


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _brief(error: Exception) -> str:
    status = getattr(error, "status", None)
    return f"{type(error).__name__}" + (f" {status}" if status else f": {str(error)[:200]}")
