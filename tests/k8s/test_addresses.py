"""k8s/chart: addresses of stages and gateway, and the notes, rendered by the real helm."""

import pytest

from k8s import render
from runtime.discovery.sources import source
from tests.k8s.chart import STAGES, environment, named, pod, policies


@pytest.mark.parametrize("discovery", ["kubernetes", "dns"])
def test_gateway_gets_the_addresses_of_the_stages(discovery: str) -> None:
    documents = render.manifests(f"gateway: {{discovery: {discovery}}}")
    services = render.of_kind(documents, "Service")
    variables = environment(pod(f"gateway: {{discovery: {discovery}}}", "gateway")["containers"][0])
    for stage in STAGES:
        service = services[named(stage)]
        assert service["spec"]["clusterIP"] == "None"
        where = variables["HART_" + stage.upper()]
        source(where)
        host, _, port = where.rpartition("/")[2].rpartition(":")
        assert host.partition(".")[0] == named(stage)
        assert port in (str(service["spec"]["ports"][0]["port"]), service["spec"]["ports"][0]["name"])
        assert where.startswith(f"{discovery}://")
        assert render.NAMESPACE in where


def test_external_stage_is_not_deployed_but_called() -> None:
    values = "stages: {decoder: {endpoints: ['oip://triton.models:8001/decoder']}}"
    documents = render.manifests(values)
    assert not [d for d in documents if d["metadata"]["name"] == "hart-decoder"]
    assert environment(pod(values, "gateway")["containers"][0])["HART_DECODER"] == "oip://triton.models:8001/decoder"
    ports = [p["port"] for rule in policies(documents)["gateway"]["egress"] for p in rule["ports"]]
    assert 8001 in ports


def test_ingress_and_route_lead_to_the_gateway() -> None:
    values = "gateway: {ingress: {enabled: true, host: h.example, className: nginx, tlsSecret: t}}"
    ingress = render.of_kind(render.manifests(values), "Ingress")["hart-gateway"]
    assert ingress["metadata"]["annotations"]["nginx.ingress.kubernetes.io/backend-protocol"] == "GRPCS"
    values = "gateway: {route: {enabled: true, parents: [{name: public}], hostnames: [h.example]}}"
    documents = render.manifests(values)
    assert render.of_kind(documents, "GRPCRoute")["hart-gateway"]["spec"]["parentRefs"] == [{"name": "public"}]
    policy = render.of_kind(documents, "BackendTLSPolicy")["hart-gateway"]["spec"]
    names = render.of_kind(documents, "Certificate")["hart-gateway"]["spec"]["dnsNames"]
    assert policy["validation"]["hostname"] in names


def notes(values: str) -> str:
    variables = render.helm(
        "install", "hart", render.CHART, "--dry-run=client", "-n", "pictures", "-f", "-", stdin=values
    )
    return variables.partition("NOTES:")[2]


def test_notes_state_how_to_call_and_what_cannot_work() -> None:
    plain = notes("tls: {mode: none}")
    assert "hart generate" in plain
    assert "--tls-ca" not in plain
    assert "plaintext" in plain
    secured = notes("gateway: {auth: {apiKeys: {secret: keys}}}")
    assert "get secret hart-gateway-tls" in secured
    assert "--tls-ca ca.crt --api-key KEY" in secured
    assert "stages.decoder.replicas is 0" in notes("stages: {decoder: {replicas: 0}}")
