"""The ASGI application: routes, and errors of HTTP itself."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import partial
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from gateway.access.rate_limits import DESCRIBE, GENERATE
from gateway.config import GatewaySettings
from gateway.http import docs_page, errors, openapi
from gateway.http.endpoint import Endpoint
from gateway.http.exchange import COMMON_HEADERS, Bounds
from gateway.http.generation import Generation
from gateway.http.models import Models
from gateway.http.responses import Health
from gateway.request.executor import RequestExecutor
from gateway.routing.served_model import ServedModel
from runtime.errors import HartError, InvalidRequest, NotFound
from runtime.server.app import App
from runtime.status import as_hart_error


def application(app: App, settings: GatewaySettings, executor: RequestExecutor, model: ServedModel) -> Starlette:
    """The HTTP API of a gateway process."""
    bounds = Bounds(
        settings.max_message_bytes, settings.receive_seconds, settings.send_seconds, closing=app.draining.is_set
    )
    generation, models = Generation(settings, executor, model), Models(model)
    described = partial(Endpoint, method=DESCRIBE, calls=app.calls, bounds=bounds, observed=False)
    routes = [
        Route("/v1/images/generations", Endpoint(generation, GENERATE, app.calls, bounds), methods=["POST"]),
        Route("/v1/models", described(models.list), methods=["GET"]),
        Route("/v1/models/{model:path}", described(models.get), methods=["GET"]),
        Route("/healthz", partial(_health, lambda: True)),
        Route("/readyz", partial(_health, lambda: app.ready)),
        Route("/openapi.json", partial(_document, model)),
        Route("/docs", partial(_page, model)),
        Route("/", _to_docs),
    ]
    found = Starlette(routes=routes, exception_handlers={HTTPException: _refused, Exception: _failed})
    found.router.redirect_slashes = False
    return found


async def _health(healthy: Callable[[], bool], request: Request) -> Response:
    state = Health(status="ok" if healthy() else "not ready")
    return _json(200 if healthy() else 503, state.to_json())


async def _document(model: ServedModel, request: Request) -> Response:
    return _json(200, json.dumps(_described(model)).encode())


async def _page(model: ServedModel, request: Request) -> Response:
    base = str(request.base_url).rstrip("/")
    base = base if urlsplit(base).hostname else ""
    html = docs_page.page(_described(model), base)
    return HTMLResponse(html, headers={**COMMON_HEADERS, "content-security-policy": docs_page.POLICY})


async def _to_docs(request: Request) -> Response:
    return RedirectResponse("docs")


def _described(model: ServedModel) -> openapi.Document:
    shape = model.shape()
    return openapi.document(model.name() if shape.width else "", (shape.width, shape.height))


def _json(status: int, body: bytes, headers: dict[str, str] | None = None) -> Response:
    return Response(body, status, {**COMMON_HEADERS, **(headers or {})}, "application/json")


async def _refused(request: Request, error: Exception) -> Response:
    """The router's own errors: an unknown path, a wrong method."""
    where = request.scope["path"][:80]
    known: HartError = InvalidRequest.field("", f"{request.method} {where} is not understood")
    if isinstance(error, HTTPException) and error.status_code == 404:
        known = NotFound(f"unknown path {where!r}; GET /docs lists the paths")
    elif isinstance(error, HTTPException) and error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        known = errors.MethodNotAllowed.field("", f"{where} accepts {allowed}, not {request.method}")
    allow = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return _json(errors.shape_of(known).status, errors.to_json(known), {**errors.headers_of(known), **allow})


async def _failed(request: Request, error: Exception) -> Response:
    known = as_hart_error(error, "gateway")
    return _json(errors.shape_of(known).status, errors.to_json(known), errors.headers_of(known))


Handler = Callable[[Request], Awaitable[Response]]
