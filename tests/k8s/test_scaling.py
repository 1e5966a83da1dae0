"""k8s/chart: GPUs and autoscalers, rendered by the real helm."""

from common.version import VERSION
from k8s import render
from tests.k8s.chart import STAGES, deployments, environment, named, pod


def test_gpu_sets_device_resource_and_image_variant() -> None:
    values = "stages: {decoder: {gpu: {count: 1, resource: nvidia.com/mig-1g.10gb}}}"
    container = pod(values, "decoder")["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert environment(container)["HART_DEVICE"] == "cuda"
    assert container["image"] == f"hart-stage:{VERSION}-gpu"
    assert pod(values, "safety")["containers"][0]["image"] == f"hart-stage:{VERSION}-cpu"
    assert pod(values, "gateway")["containers"][0]["image"] == f"hart-gateway:{VERSION}"


def test_stage_values_override_defaults_even_if_empty() -> None:
    values = """
defaults: {gpu: {count: 1}, replicas: 3, settings: {max_queued_requests: 5}}
stages: {safety: {gpu: {count: 0}, replicas: 0, topologySpread: [], settings: {batch_wait_timeout_seconds: 0}}}"""
    safety = deployments(values)["hart-safety"]["spec"]
    spec = safety["template"]["spec"]
    assert safety["replicas"] == 0
    assert "topologySpreadConstraints" not in spec
    assert "HART_DEVICE" not in environment(spec["containers"][0])
    assert environment(spec["containers"][0])["HART_MAX_QUEUED_REQUESTS"] == "5"
    assert environment(spec["containers"][0])["HART_BATCH_WAIT_TIMEOUT_SECONDS"] == "0"
    assert deployments(values)["hart-decoder"]["spec"]["replicas"] == 3


def test_keda_scales_by_hart_load_and_owns_the_replicas() -> None:
    values = "defaults: {autoscaling: {kind: keda, targetLoad: 0.7}}"
    documents = render.manifests(values)
    for stage in STAGES:
        scaled = render.of_kind(documents, "ScaledObject")[named(stage)]["spec"]
        assert scaled["scaleTargetRef"] == {"name": named(stage)}
        (trigger,) = scaled["triggers"]
        assert trigger["type"] == "prometheus"
        assert f'hart_load{{namespace="pictures",stage="{stage}"' in trigger["metadata"]["query"]
        assert trigger["metadata"]["threshold"] == "0.7"
        assert "replicas" not in deployments(values)[named(stage)]["spec"]


def test_scale_to_zero_uses_the_gateways_external_scaler() -> None:
    values = "defaults: {autoscaling: {kind: keda, trigger: gateway, minReplicas: 0}}"
    documents = render.manifests(values)
    (trigger,) = render.of_kind(documents, "ScaledObject")["hart-decoder"]["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    assert trigger["metadata"]["stage"] == "decoder"
    assert float(trigger["metadata"]["targetLoad"]) == 0.8
    assert trigger["metadata"]["enableTLS"] == "true"
    host, port = trigger["metadata"]["scalerAddress"].split(":")
    certificate = render.of_kind(documents, "Certificate")["hart-gateway"]["spec"]
    assert host in certificate["dnsNames"]
    assert int(port) == render.of_kind(documents, "Service")["hart-gateway-scaler"]["spec"]["ports"][0]["port"]
    trusted = render.of_kind(documents, "TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]
    assert trusted["secretTargetRef"] == [{"parameter": "caCert", "name": certificate["secretName"], "key": "ca.crt"}]


def test_hpa_scales_by_the_same_load() -> None:
    hpa = render.of_kind(render.manifests("defaults: {autoscaling: {kind: hpa}}"), "HorizontalPodAutoscaler")
    (metric,) = hpa["hart-ar-generator"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "hart_load"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "800m"}
