"""Signals over OTLP say from which pod they come."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.resources import Resource

from k8s import render
from tests.k8s.chart import PROCESSES, named, pod

COLLECTOR = "telemetry: {otlpEndpoint: 'http://collector:4317', otlpLogs: true}"


def variables(values: str, process: str) -> dict[str, dict[str, object]]:
    return {one["name"]: one for one in pod(values, process)["containers"][0]["env"]}


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_gets_its_pod_by_the_downward_api(process: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = variables(COLLECTOR, process)
    text = str(found["OTEL_RESOURCE_ATTRIBUTES"]["value"])
    names = list(found)
    for name, path in (
        ("POD_NAME", "metadata.name"),
        ("POD_UID", "metadata.uid"),
        ("POD_NAMESPACE", "metadata.namespace"),
        ("NODE_NAME", "spec.nodeName"),
    ):
        assert found[name]["valueFrom"] == {"fieldRef": {"fieldPath": path}}
        assert names.index(name) < names.index("OTEL_RESOURCE_ATTRIBUTES"), "Kubernetes expands earlier names alone"
        text = text.replace(f"$({name})", name.lower())
    assert "$" not in text
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", text)
    attributes = Resource.create({}).attributes
    assert attributes["k8s.pod.name"] == "pod_name"
    assert attributes["k8s.pod.uid"] == "pod_uid"
    assert attributes["k8s.namespace.name"] == "pod_namespace"
    assert attributes["k8s.node.name"] == "node_name"
    assert attributes["k8s.deployment.name"] == named(process)
    assert attributes["hart.release"] == "hart"
    assert found["HART_OTLP_LOGS"]["value"] == "true"


def test_without_a_collector_no_attribute_is_set() -> None:
    assert "OTEL_RESOURCE_ATTRIBUTES" not in variables("", "decoder")


def test_logs_need_a_collector() -> None:
    with pytest.raises(render.Refused, match=r"otlpLogs is true, and telemetry\.otlpEndpoint is empty"):
        render.text("telemetry: {otlpLogs: true}")
