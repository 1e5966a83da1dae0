"""The OpenAPI document, from the models of requests and responses and the table of errors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from common import limits
from common.version import VERSION
from gateway.http import errors, responses
from gateway.http.exchange import EVENT_STREAM
from gateway.http.generation_request import GenerationRequest, sizes
from runtime.errors import HartError

Document = dict[str, Any]
REF = "#/components/schemas/{model}"
REQUESTS, RESPONSES = (GenerationRequest,), (
    responses.ImagesResponse,
    responses.PartialImageEvent,
    responses.CompletedEvent,
    responses.Model,
    responses.ModelList,
    responses.ErrorResponse,
    responses.Health,
)  # fmt: skip
CALL_ERRORS = (400, 401, 403, 405, 429, 500, 503)
"""Of every guarded call."""
BODY_ERRORS = (408, 413, 415, 422, 504)


def document(model: str = "", size: tuple[int, int] = (0, 0)) -> Document:
    """The document. `model` and `size` (width and height in pixels) are the served model's, empty while unknown."""
    schemas = _schemas()
    if model:
        properties = schemas["GenerationRequest"]["properties"]
        properties["model"]["examples"] = [model]
        properties["size"] |= {"enum": [*_sizes(size), None], "examples": ["auto"]}
        del properties["size"]["pattern"]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HART cluster",
            "version": VERSION,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Images from text, in the shape of the OpenAI images API. Fields marked as extensions are "
            "this server's own. The same service is served over gRPC as hart.v1.Images.",
        },
        "paths": _paths(),
        "components": {
            "schemas": schemas,
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT."}},
        },
    }


def _sizes(size: tuple[int, int]) -> tuple[str, ...]:
    from hart.v1 import stage_pb2

    return sizes(stage_pb2.ModelShape(width=size[0], height=size[1]))


def _schemas() -> dict[str, Any]:
    wanted: list[tuple[type[BaseModel], Any]] = [(one, "validation") for one in REQUESTS]
    wanted += [(one, "serialization") for one in RESPONSES]
    _, schema = models_json_schema(wanted, ref_template=REF)
    found: dict[str, Any] = schema["$defs"]
    return found


def _paths() -> dict[str, Any]:
    generate = {
        "operationId": "createImage",
        "summary": "Generate images",
        "description": "Returns all images when they are finished; with `stream`, sends the events "
        "image_generation.partial_image and image_generation.completed (schemas PartialImageEvent, CompletedEvent) as "
        "they happen, and `error` (schema ErrorResponse) last if it fails midway. Closing the connection cancels the "
        "work.",
        "security": [{"bearer": []}, {}],
        "parameters": [_IDEMPOTENCY_KEY, _TIMEOUT, _TRACEPARENT],
        "requestBody": {"required": True, "content": _json("GenerationRequest")},
        "responses": {
            "200": {
                "description": "The images, or the stream.",
                "headers": {"x-request-id": _REQUEST_ID},
                "content": {**_json("ImagesResponse"), EVENT_STREAM: {"schema": _event_schema()}},
            },
            **_errors([*CALL_ERRORS, *BODY_ERRORS]),
        },
    }
    return {
        "/v1/images/generations": {"post": generate},
        "/v1/models": {"get": _get("listModels", "List the models", "ModelList", CALL_ERRORS, guarded=True)},
        "/v1/models/{model}": {
            "get": {
                **_get("retrieveModel", "Describe a model", "Model", (*CALL_ERRORS, 404), guarded=True),
                "parameters": [{"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}],
            }
        },
        "/healthz": {"get": _get("isAlive", "Whether the process lives", "Health", (405,))},
        "/readyz": {"get": _get("isReady", "Whether it accepts requests", "Health", (405, 503))},
    }


def _event_schema() -> Document:
    """One server-sent event."""
    kinds = {"image_generation.partial_image", "image_generation.completed", "error"}
    data = [{"$ref": REF.format(model=name)} for name in ("PartialImageEvent", "CompletedEvent", "ErrorResponse")]
    return {
        "type": "object",
        "description": "One event.",
        "required": ["event", "data"],
        "properties": {
            "event": {"enum": sorted(kinds)},
            "data": {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": data}},
        },
    }


def _get(operation: str, summary: str, schema: str, statuses: Iterable[int], *, guarded: bool = False) -> Document:
    found: Document = {"operationId": operation, "summary": summary}
    if guarded:
        found["security"] = [{"bearer": []}, {}]
    refused = _errors(statuses)
    if not guarded and "503" in refused:
        refused["503"] = {"description": "It does not.", "content": _json("Health")}
    return {**found, "responses": {"200": {"description": "The response.", "content": _json(schema)}, **refused}}


def _json(schema: str) -> Document:
    return {"application/json": {"schema": {"$ref": REF.format(model=schema)}}}


def _errors(statuses: Iterable[int]) -> Document:
    return {
        str(status): {"description": _described(status), "headers": _headers(status), "content": _json("ErrorResponse")}
        for status in sorted(set(statuses))
    }


def _headers(status: int) -> Document:
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer", "minimum": 1}}}
    return retry if status in (429, 503) else {}


def _described(status: int) -> str:
    kinds = [(kind, shape) for kind, shape in errors.TABLE.items() if shape.status == status]
    return "; ".join(f"`{shape.code}`: {_sentence(kind)}" for kind, shape in kinds)


def _sentence(kind: type[HartError]) -> str:
    """The first sentence of the error's docstring."""
    return (kind.__doc__ or "").partition(". ")[0].partition("\n")[0].rstrip(".") + "."


_REQUEST_ID = {"description": "The request's id.", "schema": {"type": "string"}}
_IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "Makes a repeat harmless: within ten minutes it joins the first request or gets its response. The "
    "seed is derived from it if absent. Refused with other content.",
    "schema": {
        "type": "string",
        "minLength": 1,
        "maxLength": limits.MAX_REQUEST_ID_CHARACTERS,
        "pattern": "^[!-~]+$",
    },
}
_TIMEOUT = {
    "name": "X-Request-Timeout",
    "in": "header",
    "description": "Seconds until the deadline of the request. Default 60 s, at most 300 s unless the operator says "
    "otherwise.",
    "schema": {"type": "number", "exclusiveMinimum": 0, "maximum": 1e8},
}
_TRACEPARENT = {
    "name": "traceparent",
    "in": "header",
    "description": "W3C trace context.",
    "schema": {"type": "string"},
}
