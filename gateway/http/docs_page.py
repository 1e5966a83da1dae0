"""The documentation as one HTML page, from the OpenAPI document. It has no script and loads nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from gateway.http import errors
from gateway.http.generation_request import rule

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #8885 }
h3 { margin-bottom: .3rem }
pre { overflow-x: auto; padding: .8rem; background: #8882; border-radius: .4rem }
code { font: .9em ui-monospace, monospace }
table { border-collapse: collapse; width: 100%; display: block; overflow-x: auto }
th, td { text-align: left; vertical-align: top; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #8883 }
"""
STREAM_EXAMPLE = """curl -N {base}/v1/images/generations -H 'Content-Type: application/json' \\
  -d '{{"prompt": "a red heart", "stream": true, "partial_images": 2}}'"""
EXAMPLE = """curl {base}/v1/images/generations -H 'Content-Type: application/json' \\
  -d '{{"prompt": "a red heart", "seed": 7}}' | jq -r '.data[0].b64_json' | base64 -d > heart.png"""
PYTHON = """from openai import OpenAI

client = OpenAI(base_url="{base}/v1", api_key="none")   # or the key that the operator gave you
image = client.images.generate(prompt="a red heart", extra_body={{"seed": 7}}).data[0]"""


def page(document: Mapping[str, Any], base: str) -> str:
    """The page. `base`: the URL at which the client reached the server."""
    schemas = document["components"]["schemas"]
    examples = "".join(f"<pre><code>{escape(one.format(base=base))}</code></pre>" for one in _EXAMPLES)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{escape(document["info"]["title"])}</title><style>{STYLE}</style></head><body>
<h1>{escape(document["info"]["title"])} {escape(document["info"]["version"])}</h1>
<p>{_prose(document["info"]["description"])} The document: <a href="openapi.json">openapi.json</a>.</p>
<h2>Examples</h2>{examples}
<h2>Paths</h2>{"".join(_path(path, methods) for path, methods in document["paths"].items())}
<h2>Request</h2>{_fields(schemas["GenerationRequest"])}
<h2>Responses</h2>{"".join(f"<h3>{name}</h3>{_fields(schemas[name])}" for name in _SHOWN)}
<h2>Errors</h2>{_errors()}
</body></html>"""


def _path(path: str, methods: Mapping[str, Any]) -> str:
    parts = []
    for method, operation in methods.items():
        parts.append(f"<h3><code>{method.upper()} {escape(path)}</code></h3><p>{_prose(operation['summary'])}.")
        parts.append(f" {_prose(operation.get('description', ''))}</p>")
        headers = [one for one in operation.get("parameters", ()) if one["in"] == "header"]
        if headers:
            rows = [(f"<code>{one['name']}</code>", _prose(one["description"])) for one in headers]
            parts.append(_table(("Header", ""), rows))
    return "".join(parts)


def _fields(schema: Mapping[str, Any]) -> str:
    required = schema.get("required", ())
    rows = [
        (
            f"<code>{escape(name)}</code>{' (required)' if name in required else ''}",
            escape(rule(field)) if rule(field) != "valid" else "",
            _prose(field.get("description", "")),
        )
        for name, field in schema["properties"].items()
    ]
    return f"<p>{_prose(schema.get('description', ''))}</p>{_table(('Field', 'Value', ''), rows)}"


def _errors() -> str:
    rows = [
        (
            str(shape.status),
            f"<code>{shape.type}</code>",
            f"<code>{shape.code}</code>",
            f"<code>{errors.grpc_code(kind).name}</code>",
            "yes" if shape.retry else "",
        )
        for kind, shape in errors.TABLE.items()
    ]
    return _table(("Status", "type", "code", "over gRPC", "may be retried"), rows)


def _table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A table of HTML cells."""
    head = "".join(f"<th>{one}</th>" for one in heads)
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _prose(text: str) -> str:
    return re.sub(r"`([^`]*)`", r"<code>\1</code>", escape(text, quote=False))


_EXAMPLES = (EXAMPLE, STREAM_EXAMPLE, PYTHON)
_SHOWN = ("ImagesResponse", "ImageData", "Usage", "PartialImageEvent", "CompletedEvent", "Model", "ErrorDetail")
