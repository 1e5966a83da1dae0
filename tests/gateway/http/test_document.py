"""The OpenAPI document and the docs page say what the server does (gateway.http.openapi, gateway.http.docs_page)."""

from __future__ import annotations

import re
from typing import get_args

import jsonschema  # type: ignore[import-untyped]
from jsonschema.validators import Draft202012Validator  # type: ignore[import-untyped]

from common import image_formats
from gateway.http import errors, openapi
from gateway.http.generation_request import GenerationRequest
from gateway.http.responses import OutputFormat
from runtime import errors as domain
from tests.gateway.http.support import GENERATE, http_front


def test_every_domain_error_has_a_shape_of_its_own_code() -> None:
    own = [one for one in vars(domain).values() if isinstance(one, type) and issubclass(one, domain.HartError)]
    assert (
        len({errors.shape_of(kind.__new__(kind)).code for kind in own if kind is not domain.Internal}) == len(own) - 1
    )
    assert [shape.status for shape in errors.TABLE.values()] == sorted(shape.status for shape in errors.TABLE.values())


def test_an_error_has_the_status_of_its_grpc_code() -> None:
    statuses: dict[str, set[int]] = {}
    for kind, shape in errors.TABLE.items():
        statuses.setdefault(kind.code.name, set()).add(shape.status)
    assert all(
        status < 500 for code in ("INVALID_ARGUMENT", "NOT_FOUND", "UNAUTHENTICATED") for status in statuses[code]
    )
    assert statuses["UNAVAILABLE"] == {503}
    assert statuses["RESOURCE_EXHAUSTED"] == {429}


def test_the_formats_are_the_projects() -> None:
    assert {name.upper() for name in get_args(OutputFormat)} == set(image_formats.FORMATS)


def test_every_field_is_described() -> None:
    schemas = openapi.document()["components"]["schemas"]
    assert all(field.get("description") for field in schemas["GenerationRequest"]["properties"].values())
    for schema in schemas.values():
        Draft202012Validator.check_schema(schema)


async def test_the_document_names_the_served_model_and_its_size() -> None:
    async with http_front() as http:
        document = (await http.client.get("/openapi.json")).json()
    fields = document["components"]["schemas"]["GenerationRequest"]["properties"]
    assert document["openapi"] == "3.1.0"
    assert fields["size"]["enum"] == ["auto", "64x64", None]
    assert fields["model"]["examples"] == ["tiny"]
    assert set(fields) == set(GenerationRequest.model_fields)


async def test_responses_fit_the_document() -> None:
    async with http_front() as http:
        document = (await http.client.get("/openapi.json")).json()
        found = {
            "ImagesResponse": (await http.generate(n=2)).json(),
            "ModelList": (await http.client.get("/v1/models")).json(),
            "Model": (await http.client.get("/v1/models/tiny")).json(),
            "Health": (await http.client.get("/readyz")).json(),
            "ErrorResponse": (await http.generate(n=0)).json(),
            "CompletedEvent": (await http.events())[-1][1],
        }
    jsonschema.validate(GENERATE, {**document, **document["components"]["schemas"]["GenerationRequest"]})
    for name, body in found.items():
        jsonschema.validate(body, {**document, **document["components"]["schemas"][name]})
        assert document["components"]["schemas"][name].get("additionalProperties") is False


async def test_the_docs_page_loads_nothing_and_runs_nothing() -> None:
    async with http_front() as http:
        page = await http.client.get("/", follow_redirects=True)
        base = str(http.client.base_url).rstrip("/")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert not re.search(r"<script|<img|<link|<iframe|@import|url\(|\bsrc=", page.text)
    assert re.findall(r'href="([^"]*)"', page.text) == ["openapi.json"]
    assert base in page.text
    assert all(shape.code in page.text for shape in errors.TABLE.values())


async def test_the_docs_page_escapes_what_clients_send() -> None:
    async with http_front() as http:
        for host in ('"><script>alert(1)</script>', "evil.example/<b>"):
            page = await http.client.get("/docs", headers={"Host": host})
            assert "<script>" not in page.text
            assert "<b>" not in page.text
