"""The external scaler in Kubernetes: its own port and its own Service, for KEDA and the gateways alone."""

from __future__ import annotations

from typing import Any

import pytest

from common.stages import GATEWAY_PORT, SCALER_PORT_OFFSET
from gateway.config import GatewaySettings
from k8s import render
from tests.k8s.chart import environment, named, pod, policies
from tests.k8s.test_walls import peers_and_ports

PORT = GATEWAY_PORT + SCALER_PORT_OFFSET
FROM_ZERO = "defaults: {autoscaling: {kind: keda, trigger: gateway, minReplicas: 0}}"
HOST = "hart-gateway-scaler.pictures.svc"


def scaler_service(values: str) -> Any:
    return render.of_kind(render.manifests(values), "Service").get("hart-gateway-scaler")


def test_there_is_no_scaler_port_unless_a_trigger_asks_the_gateway() -> None:
    (gateway,) = pod("", "gateway")["containers"]
    assert not {name for name in environment(gateway) if "SCALER" in name}
    assert PORT not in {port["containerPort"] for port in gateway["ports"]}
    assert scaler_service("") is None


@pytest.mark.parametrize(
    "gateways", ["gateway: {replicas: 3}", "gateway: {autoscaling: {enabled: true}}", "gateway: {replicas: 1}"]
)
def test_stages_scale_from_zero_at_any_number_of_gateways(gateways: str) -> None:
    values = f"{gateways}\n{FROM_ZERO}"
    for stage in ("safety", "text_encoder", "ar_generator", "decoder"):
        scaled = render.of_kind(render.manifests(values), "ScaledObject")[named(stage)]["spec"]
        assert scaled["minReplicaCount"] == 0
        assert scaled["triggers"][0]["metadata"]["scalerAddress"] == f"{HOST}:{PORT}"


@pytest.mark.parametrize(
    ("discovery", "peers"),
    [("kubernetes", "kubernetes://pictures/hart-gateway-scaler:scaler"), ("dns", f"dns:///{HOST}:{PORT}")],
)
def test_gateways_find_one_another_by_the_headless_service(discovery: str, peers: str) -> None:
    values = f"gateway: {{discovery: {discovery}}}\n{FROM_ZERO}"
    (gateway,) = pod(values, "gateway")["containers"]
    variables = environment(gateway)
    assert (variables["HART_SCALER_PORT"], variables["HART_SCALER_PEERS"]) == (str(PORT), peers)
    GatewaySettings.load(scaler_port=PORT, scaler_peers=peers)  # it is a source that the gateway accepts
    assert {"name": "scaler", "containerPort": PORT} in gateway["ports"]
    service = scaler_service(values)["spec"]
    assert service["clusterIP"] == "None"
    assert (service["ports"][0]["name"], service["ports"][0]["port"]) == ("scaler", PORT)
    assert service["selector"]["app.kubernetes.io/component"] == "gateway"


def test_the_gateways_certificate_names_the_scalers_service() -> None:
    certificates = render.of_kind(render.manifests(FROM_ZERO), "Certificate")
    assert HOST in certificates["hart-gateway"]["spec"]["dnsNames"]
    assert HOST not in certificates["hart-decoder"]["spec"]["dnsNames"]
    assert HOST not in render.of_kind(render.manifests(), "Certificate")["hart-gateway"]["spec"]["dnsNames"]


@pytest.mark.parametrize("callers", ["", "callersFrom: [{podSelector: {matchLabels: {app: web}}}]"])
def test_only_keda_and_gateways_reach_the_scalers_port(callers: str) -> None:
    found = policies(render.manifests(f"{FROM_ZERO}\nnetworkPolicy: {{{callers}}}"))
    incoming = set().union(*(peers_and_ports(rule, "from") for rule in found["gateway"]["ingress"]))
    assert {peer for peer, port in incoming if port == "scaler"} == {"keda", "gateway"}
    assert "keda" not in {peer for peer, port in incoming if port == "grpc"}
    assert ("gateway", PORT) in set().union(*(peers_and_ports(rule, "to") for rule in found["gateway"]["egress"]))
    assert PORT not in {port for _, port in incoming}
    services = render.of_kind(render.manifests(FROM_ZERO), "Service")
    assert [port["name"] for port in services["hart-gateway"]["spec"]["ports"]] == ["grpc"]
