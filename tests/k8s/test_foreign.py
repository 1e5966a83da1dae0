"""Objects of other projects match those projects' own schemas, and a fault in one would be found."""

from __future__ import annotations

import copy
import shutil
from typing import Any

import pytest

from k8s import check, foreign, render
from k8s.tools import ToolMissing, tool

try:
    tool("helm")
    if not shutil.which("npm"):
        raise ToolMissing("npm is not installed")
    tool("foreign-schemas")
except ToolMissing as error:
    pytest.skip(str(error), allow_module_level=True)


def test_every_object_of_the_examples_is_valid() -> None:
    said = check.foreign_kinds()
    for kind in render.FOREIGN:
        assert kind.partition("/")[2] in said


def broken(kind: str, *path: str | int, value: Any) -> dict[str, Any]:
    """An object of production with one field changed."""
    production = [p for p in render.EXAMPLES if p.stem == "production"]
    found = copy.deepcopy(next(iter(render.of_kind(render.manifests("", *production), kind).values())))
    inner: Any = found
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    changed: dict[str, Any] = found
    return changed


@pytest.mark.parametrize(
    ("document", "fault"),
    [
        (("ScaledObject", "spec", "fallback", "behaviour", "x"), "behaviour"),
        (("ScaledObject", "spec", "maxReplicaCount", "many"), "maxReplicaCount|string"),
        (("ScaledObject", "spec", "triggers", 0, "metadta", {}), "metadta"),
        (("Certificate", "spec", "privateKey", "algorithm", "DSA"), "DSA|algorithm"),
        (("PodMonitor", "spec", "podMetricsEndpoints", 0, "intervall", "15s"), "intervall"),
        (("PrometheusRule", "spec", "groups", 0, "rules", 0, "runbook", "x"), "runbook"),
        (("GRPCRoute", "spec", "rules", 0, "backendRef", []), "backendRef"),
        (("BackendTLSPolicy", "spec", "validation", "hostname", 7), "hostname|number"),
    ],
)
def test_a_fault_is_found(document: tuple[Any, ...], fault: str) -> None:
    kind, *path, value = document
    with pytest.raises(foreign.Invalid, match=fault) as caught:
        foreign.validate({"it": broken(kind, *path, value=value)})
    assert "it:" in str(caught.value)


def test_a_group_without_a_schema_is_named() -> None:
    with pytest.raises(foreign.Unchecked, match=r"example\.com/v1 Thing"):
        foreign.validate({"it": {"apiVersion": "example.com/v1", "kind": "Thing"}})
