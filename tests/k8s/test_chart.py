"""k8s/chart: properties of all manifests, rendered by the real helm."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from common.version import VERSION
from k8s import render
from tests.k8s.chart import EXAMPLES, PROCESSES, deployments, environment, named, pod


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_manifest_of_every_example_is_valid(example: Path, version: str) -> None:
    found = [d for d in render.manifests("", example) if render.group_kind(d) not in render.FOREIGN]
    assert len(found) > 20
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)


@pytest.mark.parametrize("max_deadline", [20, 300, 900])
def test_termination_grace_exceeds_the_max_deadline(max_deadline: int) -> None:
    values = f"{{maxDeadlineSeconds: {max_deadline}, gateway: {{settings: {{default_deadline_seconds: 10}}}}}}"
    for process in PROCESSES:
        spec = pod(values, process)
        container = spec["containers"][0]
        variables = environment(container)
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert float(variables["HART_DRAIN_SECONDS"]) > max_deadline
        assert float(variables["HART_CONNECTION_AGE_GRACE_SECONDS"]) > max_deadline
        assert spec["terminationGracePeriodSeconds"] > pause + float(variables["HART_DRAIN_SECONDS"])
    assert environment(pod(values, "gateway")["containers"][0])["HART_MAX_DEADLINE_SECONDS"] == str(max_deadline)


def test_every_object_is_named_after_its_release() -> None:
    for document in yaml.safe_load_all(render.helm("template", "other", render.CHART, "--namespace", "a")):
        if document:
            assert document["metadata"]["name"].startswith(("other-hart", "a-other-hart")), document["kind"]
            assert document["metadata"].get("namespace", "a") == "a"


@pytest.mark.parametrize("name", ["a" * 46, "1st", "a.b"])
def test_release_name_invalid_for_services_is_refused(name: str) -> None:
    with pytest.raises(render.Refused, match=f'release name "{name}"'):
        render.helm("template", name, render.CHART)
    max_deadline = "a" * 45
    services = render.of_kind(yaml.safe_load_all(render.helm("template", max_deadline, render.CHART)), "Service")
    assert max(map(len, services)) == 63


def test_user_labels_and_annotations_replace_the_charts() -> None:
    nginx, container = "nginx.ingress.kubernetes.io/proxy-read-timeout", "kubectl.kubernetes.io/default-container"
    part = "app.kubernetes.io/part-of"
    labelled = f"{{enabled: true, labels: {{{part}: shop}}}}"
    values = f"""
        gateway:
          ingress: {{enabled: true, className: nginx, host: a.example, annotations: {{{nginx}: "9"}}}}
          podAnnotations: {{{container}: other}}
        monitoring: {{podMonitor: {labelled}, alerts: {labelled}, dashboards: {labelled}}}
    """
    for document in yaml.compose_all(render.text(values), Loader=render.LOADER):
        assert_no_key_twice(document)
    found = render.manifests(values)
    assert render.of_kind(found, "Ingress")["hart-gateway"]["metadata"]["annotations"][nginx] == "9"
    template = render.of_kind(found, "Deployment")["hart-gateway"]["spec"]["template"]
    assert template["metadata"]["annotations"][container] == "other"
    for kind in ("PodMonitor", "PrometheusRule"):
        assert render.of_kind(found, kind)["hart"]["metadata"]["labels"][part] == "shop"


def assert_no_key_twice(node: Any) -> None:
    if isinstance(node, yaml.MappingNode):
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), keys
        for _, value in node.value:
            assert_no_key_twice(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            assert_no_key_twice(value)


@pytest.mark.parametrize("process", PROCESSES)
def test_every_process_has_a_disruption_budget_and_a_priority(process: str) -> None:
    values = "priorityClass: {create: true, preemptionPolicy: Never}"
    documents = render.manifests(values)
    budget = render.of_kind(documents, "PodDisruptionBudget")[named(process)]["spec"]
    deployment = deployments(values)[named(process)]["spec"]
    assert budget["selector"] == deployment["selector"]
    ((priority, definition),) = render.of_kind(documents, "PriorityClass").items()
    assert definition["preemptionPolicy"] == "Never"
    assert deployment["template"]["spec"]["priorityClassName"] == priority
    assert deployment["template"]["spec"]["topologySpreadConstraints"]


def test_trailing_slash_of_the_registry_is_ignored() -> None:
    deployment = render.of_kind(render.manifests("image: {registry: 'ghcr.io/example/'}"), "Deployment")["hart-gateway"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"ghcr.io/example/hart-gateway:{VERSION}"
