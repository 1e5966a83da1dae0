"""Writes the chart's README: every value with its type (from values.schema.json), default and comment."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

CHART = Path(__file__).resolve().parent / "chart"
README = CHART / "README.md"
HEAD = """\
# hart
{description}. Written by `make k8s-files`.

    helm install hart k8s/chart -n pictures --create-namespace -f VALUES
    helm -n pictures test hart

`helm package k8s/chart` packs it; `helm push hart-VERSION.tgz oci://REGISTRY/charts` publishes it. Examples of values,
sizes, security, alerts, upgrades: [docs/operations.md](../../docs/operations.md).

## Needs
Kubernetes {kubernetes}. Optional objects belong to programs of these minimum versions:

| program | version |
|---|---|
{programs}

## Values
`gateway.settings`, `defaults.settings` and each stage's `settings` are the process's own settings: the schema and the
READMEs of gateway and services describe them. Keys of `stages.STAGE` are those of `defaults`.

| value | type | default | |
|---|---|---|---|
"""


def leaves(node: yaml.Node, path: str = "") -> Iterator[tuple[str, yaml.Node, int]]:
    """Every value that is not a map with keys of its own: its path, its node, its line."""
    if not isinstance(node, yaml.MappingNode) or not node.value:
        yield path, node, node.start_mark.line
        return
    if path and node.flow_style:
        yield path, node, node.start_mark.line
        return
    for key, value in node.value:
        where = f"{path}.{key.value}" if path else key.value
        inner = list(leaves(value, where))
        yield from ((place, found, key.start_mark.line if place == where else line) for place, found, line in inner)


def kind(schema: dict[str, Any], path: str) -> str:
    """The type of the value at this path."""
    found = schema
    for name in path.split("."):
        found = _resolved(schema, found)
        found = _properties(schema, found).get(name, {})
    found = _resolved(schema, found)
    if "enum" in found:
        return " or ".join(str(one) or '""' for one in found["enum"])
    given = found.get("type", "integer or percentage" if "oneOf" in found else "object")
    return " or ".join(given) if isinstance(given, list) else str(given)


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    found: dict[str, Any] = schema["$defs"][node["$ref"].rpartition("/")[2]]
    return found


def _properties(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dict(node.get("properties", {}))
    for part in node.get("allOf", []):
        found = {**found, **_resolved(schema, part).get("properties", {})}
    return found


def _comment(line: str) -> str:
    found = re.search(r"\s#\s(.*)$", line)
    return found[1].strip().replace("|", "\\|") if found else ""


def _default(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return f"`{text}`" if len(text) <= 60 else "see values.yaml"


def text() -> str:
    """The file's content."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    source = (CHART / "values.yaml").read_text()
    schema, lines = json.loads((CHART / "values.schema.json").read_text()), source.splitlines()
    values = yaml.safe_load(source)
    programs = {k.partition("/")[2]: v for k, v in chart["annotations"].items() if k.startswith("hart.v1/")}
    rows = []
    root = yaml.compose(source)
    for path, _, line in leaves(root) if root else ():
        value: Any = values
        for name in path.split("."):
            value = value[name]
        rows.append(f"| `{path}` | {kind(schema, path)} | {_default(value)} | {_comment(lines[line])} |")
    head = HEAD.format(
        description=chart["description"],
        kubernetes=chart["kubeVersion"].removesuffix("-0").removeprefix(">=") + " or newer",
        programs="\n".join(f"| {name} | {version} |" for name, version in programs.items()),
    )
    return head + "\n".join(rows) + "\n"


def main() -> int:
    """Write the file."""
    README.write_text(text())
    return 0


if __name__ == "__main__":
    sys.exit(main())
