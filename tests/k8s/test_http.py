"""The HTTP API in Kubernetes: off by default; one value opens its port and lets callers reach it."""

from __future__ import annotations

from typing import Any

import pytest

from common.stages import GATEWAY_PORT, HTTP_PORT_OFFSET
from k8s import render
from tests.k8s.chart import environment, named, pod

ON = "gateway: {http: {enabled: true}}"
PORT = GATEWAY_PORT + HTTP_PORT_OFFSET
ROUTED = """
gateway:
  http: {enabled: true, hostnames: [images.example.com]}
  ingress: {enabled: true, host: hart.example.com}
  route: {enabled: true, parents: [{name: public}], hostnames: [hart.example.com]}
"""


def http_objects(values: str) -> dict[str, Any]:
    """The objects of the HTTP API by kind."""
    name = f"{named('gateway')}-http"
    return {one["kind"]: one for one in render.manifests(values) if one["metadata"]["name"] == name}


def test_it_is_off_by_default() -> None:
    (gateway,) = pod("", "gateway")["containers"]
    assert http_objects("") == {}
    assert "HART_HTTP_PORT" not in environment(gateway)
    assert "http" not in [port["name"] for port in gateway["ports"]]


def test_one_value_opens_the_port_of_the_gateway_alone() -> None:
    (gateway,) = pod(ON, "gateway")["containers"]
    assert environment(gateway)["HART_HTTP_PORT"] == str(PORT)
    assert {"name": "http", "containerPort": PORT} in gateway["ports"]
    (decoder,) = pod(ON, "decoder")["containers"]
    assert "HART_HTTP_PORT" not in environment(decoder)
    assert "http" not in [port["name"] for port in decoder["ports"]]
    found = http_objects(ON)
    assert sorted(found) == ["NetworkPolicy", "Service"]
    assert found["Service"]["spec"]["ports"] == [
        {"name": "http", "port": 80, "targetPort": "http", "appProtocol": "https"}
    ]
    assert found["NetworkPolicy"]["spec"]["ingress"] == [{"ports": [{"port": "http", "protocol": "TCP"}]}]


def test_callers_are_limited_as_those_of_grpc() -> None:
    peers = "networkPolicy: {callersFrom: [{podSelector: {matchLabels: {app: web}}}]}\n"
    (rule,) = http_objects(ON + "\n" + peers)["NetworkPolicy"]["spec"]["ingress"]
    assert rule["from"] == [{"podSelector": {"matchLabels": {"app": "web"}}}]


def test_ingress_and_route_serve_it_where_they_are_on() -> None:
    found = http_objects(ROUTED)
    (rule,) = found["Ingress"]["spec"]["rules"]
    assert rule["host"] == "hart.example.com"
    assert {path["backend"]["service"]["port"]["name"] for path in rule["http"]["paths"]} == {"http"}
    annotations = found["Ingress"]["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/backend-protocol"] == "HTTPS"
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"  # events are sent as they happen
    assert found["HTTPRoute"]["spec"]["hostnames"] == ["images.example.com"]
    assert found["HTTPRoute"]["spec"]["rules"][0]["backendRefs"] == [{"name": "hart-gateway-http", "port": 80}]
    assert found["BackendTLSPolicy"]["spec"]["targetRefs"][0]["name"] == "hart-gateway-http"


def test_a_route_without_host_names_is_refused() -> None:
    with pytest.raises(Exception, match=r"gateway\.http\.hostnames is empty"):
        http_objects(ROUTED.replace("hostnames: [images.example.com]", "hostnames: []"))
