"""k8s/chart: privileges, network policies and certificates, rendered by the real helm."""

from pathlib import Path
from typing import Any

import pytest

from k8s import render
from tests.k8s.chart import EXAMPLES, PROCESSES, deployments, environment, named, pod, policies


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_containers_run_with_minimal_privileges(process: str, example: Path) -> None:
    spec = pod("", process, example)
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"] + spec.get("initContainers", []):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]


def test_only_the_gateway_may_call_the_kubernetes_api() -> None:
    documents = render.manifests()
    assert {n: d["spec"]["template"]["spec"]["automountServiceAccountToken"] for n, d in deployments().items()} == {
        named(p): p == "gateway" for p in PROCESSES
    }
    (role,) = render.of_kind(documents, "Role").values()
    assert role["rules"] == [
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]}
    ]
    by_dns = render.manifests("gateway: {discovery: dns}")
    assert not render.of_kind(by_dns, "Role")
    assert not any(
        d["spec"]["template"]["spec"]["automountServiceAccountToken"] for d in by_dns if d["kind"] == "Deployment"
    )


@pytest.mark.parametrize("mode", ["none", "certManager"])
@pytest.mark.parametrize("process", PROCESSES)
def test_probes_use_plaintext_health(process: str, mode: str) -> None:
    container = pod(f"tls: {{mode: {mode}}}", process)["containers"][0]
    variables = environment(container)
    port = int(variables["HART_PORT"] if mode == "none" else variables["HART_HEALTH_PORT"])
    service = {"gateway": "Images", "text_encoder": "TextEncoder", "ar_generator": "ArGenerator"}.get(
        process, process.title()
    )
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": f"hart.v1.{service}"}
    assert container["startupProbe"]["grpc"] == {"port": port, "service": f"hart.v1.{service}"}
    assert container["livenessProbe"]["grpc"] == {"port": port}
    assert ("HART_ALLOW_PLAINTEXT" in variables) == (mode == "none")


def peers_and_ports(rule: dict[str, Any], direction: str) -> set[tuple[str, Any]]:
    """The peers and ports that a rule allows."""
    peers = rule.get(direction) or [{}]
    names = set()
    for peer in peers:
        pods = peer.get("podSelector", {}).get("matchLabels", {})
        spaces = peer.get("namespaceSelector", {}).get("matchLabels", {})
        names.add(pods.get("app.kubernetes.io/component") or spaces.get("kubernetes.io/metadata.name") or "anywhere")
    return {(name, port["port"]) for name in names for port in rule["ports"]}


def test_network_policies_allow_exactly_the_existing_calls() -> None:
    found = policies(render.manifests("", *[p for p in render.EXAMPLES if p.stem == "production"]))
    both = {
        name: (
            set().union(*(peers_and_ports(r, "from") for r in spec["ingress"])),
            set().union(*(peers_and_ports(r, "to") for r in spec["egress"])),
        )
        for name, spec in found.items()
    }
    outside = {("kube-system", 53), ("observability", 4317)}
    stage_in = {("gateway", "grpc"), ("monitoring", "metrics")}
    assert both == {
        "gateway": (
            {("gateways", "grpc"), ("test", "grpc"), ("monitoring", "metrics")},
            outside
            | {("safety", 50052), ("text-encoder", 50053), ("ar-generator", 50054), ("decoder", 50055)}
            | {("anywhere", 443), ("anywhere", 6443)},
        ),
        "safety": (stage_in, outside | {("anywhere", 443)}),
        "text-encoder": (stage_in, outside),
        "ar-generator": (stage_in, outside),
        "decoder": (stage_in, outside),
    }
    for spec in found.values():
        assert spec["policyTypes"] == ["Ingress", "Egress"]


def test_tls_between_processes_is_mutual() -> None:
    documents = render.manifests()
    certificates = render.of_kind(documents, "Certificate")
    for process in PROCESSES:
        spec = pod("", process)
        variables = environment(spec["containers"][0])
        (volume,) = [v for v in spec["volumes"] if v["name"] == "tls"]
        assert volume["secret"]["secretName"] == certificates[named(process)]["spec"]["secretName"]
        assert variables["HART_TLS_CERT"].endswith("/tls.crt")
        if process == "gateway":
            assert variables["HART_STAGE_TLS_CA"].endswith("/ca.crt")
            assert "HART_TLS_CA" not in variables  # callers need no certificate unless clientCertificates says so
        else:
            assert variables["HART_TLS_CA"].endswith("/ca.crt")
            assert "server auth" in certificates[named(process)]["spec"]["usages"]
    assert "client auth" in certificates["hart-gateway"]["spec"]["usages"]
    asked = pod("tls: {clientCertificates: true}", "gateway")["containers"][0]
    assert environment(asked)["HART_TLS_CA"].endswith("/ca.crt")


def test_given_secrets_replace_certificates() -> None:
    values = "tls: {mode: secrets, secrets: {gateway: front, stages: inner}}"
    assert not render.of_kind(render.manifests(values), "Certificate")
    for process in PROCESSES:
        (volume,) = [v for v in pod(values, process)["volumes"] if v["name"] == "tls"]
        assert volume["secret"]["secretName"] == ("front" if process == "gateway" else "inner")


def test_gateway_certificate_names_localhost_for_port_forwarding() -> None:
    certificates = render.of_kind(render.manifests(), "Certificate")
    assert "localhost" in certificates["hart-gateway"]["spec"]["dnsNames"]
    assert "localhost" not in certificates["hart-decoder"]["spec"]["dnsNames"]
