"""The chart as helm renders it: deployments, pods, variables. Without helm, importing it skips the test."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from k8s import build_schema, render
from k8s.tools import ToolMissing, tool

try:
    tool("helm")
except ToolMissing as error:
    pytest.skip(str(error), allow_module_level=True)

PROCESSES = build_schema.PROCESSES
STAGES = [name for name in PROCESSES if name != "gateway"]
EXAMPLES = [pytest.param(path, id=path.stem) for path in render.EXAMPLES]


def named(process: str) -> str:
    """A process's name in Kubernetes."""
    return "hart-" + process.replace("_", "-")


def deployments(values: str = "", *files: Path) -> dict[str, Any]:
    return render.of_kind(render.manifests(values, *files), "Deployment")


def pod(values: str, process: str, *files: Path) -> dict[str, Any]:
    return deployments(values, *files)[named(process)]["spec"]["template"]["spec"]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def policies(documents: Iterable[Any]) -> dict[str, Any]:
    found = render.of_kind(documents, "NetworkPolicy").values()
    return {p["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: p["spec"] for p in found}
