"""The chart's manifests, rendered by the real helm: what holds of all of them."""

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


@pytest.mark.parametrize("longest", [20, 300, 900])
def test_the_grace_is_longer_than_the_longest_deadline(longest: int) -> None:
    values = f"{{maxDeadlineSeconds: {longest}, gateway: {{settings: {{default_deadline_seconds: 10}}}}}}"
    for process in PROCESSES:
        spec = pod(values, process)
        container = spec["containers"][0]
        said = environment(container)
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert float(said["HART_DRAIN_SECONDS"]) > longest
        assert float(said["HART_CONNECTION_AGE_GRACE_SECONDS"]) > longest
        assert spec["terminationGracePeriodSeconds"] > pause + float(said["HART_DRAIN_SECONDS"])
    assert environment(pod(values, "gateway")["containers"][0])["HART_MAX_DEADLINE_SECONDS"] == str(longest)


def test_everything_belongs_to_its_release_alone() -> None:
    for document in yaml.safe_load_all(render.helm("template", "other", render.CHART, "--namespace", "a")):
        if document:
            assert document["metadata"]["name"].startswith(("other-hart", "a-other-hart")), document["kind"]
            assert document["metadata"].get("namespace", "a") == "a"


@pytest.mark.parametrize("name", ["a" * 46, "1st", "a.b"])
def test_a_release_whose_services_could_not_be_named_is_refused(name: str) -> None:
    with pytest.raises(render.Refused, match=f'release name "{name}"'):
        render.helm("template", name, render.CHART)
    longest = "a" * 45
    services = render.of_kind(yaml.safe_load_all(render.helm("template", longest, render.CHART)), "Service")
    assert max(map(len, services)) == 63


def test_a_users_label_or_annotation_takes_the_place_of_the_charts() -> None:
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
def test_a_budget_and_a_priority_keep_every_process_running(process: str) -> None:
    values = "priorityClass: {create: true, preemptionPolicy: Never}"
    documents = render.manifests(values)
    budget = render.of_kind(documents, "PodDisruptionBudget")[named(process)]["spec"]
    deployment = deployments(values)[named(process)]["spec"]
    assert budget["selector"] == deployment["selector"]
    ((priority, definition),) = render.of_kind(documents, "PriorityClass").items()
    assert definition["preemptionPolicy"] == "Never"
    assert deployment["template"]["spec"]["priorityClassName"] == priority
    assert deployment["template"]["spec"]["topologySpreadConstraints"]


def test_a_registrys_trailing_slash_does_no_harm() -> None:
    deployment = render.of_kind(render.manifests("image: {registry: 'ghcr.io/example/'}"), "Deployment")["hart-gateway"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == f"ghcr.io/example/hart-gateway:{VERSION}"
