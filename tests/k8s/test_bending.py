"""What an operator adds to the chart's objects arrives there; the chart's own names stay checked."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest

from k8s import render
from tests.k8s.chart import PROCESSES, STAGES, deployments, environment, named, pod

FETCHED = "model: {source: s3, s3: {bucket: b}, files: {a: '" + "0" * 64 + "'}}"


def everywhere(values: str) -> str:
    """The same values for the gateway and for every stage."""
    return f"{{gateway: {{{values}}}, defaults: {{{values}}}}}"


def main(values: str, process: str) -> dict[str, Any]:
    container: dict[str, Any] = pod(values, process)["containers"][0]
    return container


ADDED: dict[str, tuple[str, Any]] = {
    "schedulerName: kueue": ("schedulerName", "kueue"),
    "dnsPolicy: Default": ("dnsPolicy", "Default"),
    "dnsConfig: {options: [{name: ndots, value: '1'}]}": ("dnsConfig", {"options": [{"name": "ndots", "value": "1"}]}),
    "hostAliases: [{ip: 10.0.0.1, hostnames: [s3]}]": ("hostAliases", [{"ip": "10.0.0.1", "hostnames": ["s3"]}]),
    "podSpec: {shareProcessNamespace: true}": ("shareProcessNamespace", True),
    "podSpec: {terminationGracePeriodSeconds: 900}": ("terminationGracePeriodSeconds", 900),
    "podSpec: {resourceClaims: [{name: gpu, resourceClaimName: g}]}": (
        "resourceClaims",
        [{"name": "gpu", "resourceClaimName": "g"}],
    ),
}


@pytest.mark.parametrize("values", ADDED)
@pytest.mark.parametrize("process", PROCESSES)
def test_a_pod_takes_what_is_added(process: str, values: str) -> None:
    field, expected = ADDED[values]
    assert pod(everywhere(values), process)[field] == expected


@pytest.mark.parametrize("process", PROCESSES)
def test_a_process_takes_variables_volumes_and_containers(process: str) -> None:
    values = everywhere(
        """
        extraEnv: [{name: HTTPS_PROXY, value: 'http://proxy:3128'}, {name: HOME, value: /home}],
        envFrom: [{secretRef: {name: s}}],
        extraVolumes: [{name: ca, secret: {secretName: ca}}, {name: tmp, emptyDir: {medium: Memory}}],
        extraVolumeMounts: [{name: ca, mountPath: /etc/ssl/private-ca}],
        extraContainers: [{name: vault, image: 'vault:1'}],
        extraInitContainers: [{name: first, image: 'first:1'}]
        """
    )
    spec = pod(values, process)
    container, beside = spec["containers"]
    assert environment(container)["HTTPS_PROXY"] == "http://proxy:3128"
    assert [one["value"] for one in container["env"] if one["name"] == "HOME"] == ["/home"]
    assert container["envFrom"] == [{"secretRef": {"name": "s"}}]
    assert {"name": "ca", "mountPath": "/etc/ssl/private-ca"} in container["volumeMounts"]
    assert [v for v in spec["volumes"] if v["name"] == "tmp"] == [{"name": "tmp", "emptyDir": {"medium": "Memory"}}]
    assert beside["name"] == "vault"
    assert spec["initContainers"][0]["name"] == "first"
    for document in deployments(values).values():
        kubernetes_validate.validate(document, "1.37", strict=True)


def test_a_model_is_fetched_behind_a_proxy_with_a_private_authority() -> None:
    added = "extraEnv: [{name: HTTPS_PROXY, value: p}], extraVolumeMounts: [{name: ca, mountPath: /ca}]"
    spec = pod(f"stages: {{decoder: {{{FETCHED}, {added}}}}}", "decoder")
    (fetching,) = spec["initContainers"]
    assert environment(fetching)["HTTPS_PROXY"] == "p"
    assert {"name": "ca", "mountPath": "/ca"} in fetching["volumeMounts"]


@pytest.mark.parametrize("process", PROCESSES)
def test_a_null_removes_what_a_cluster_assigns_itself(process: str) -> None:
    """OpenShift gives each namespace users of its own."""
    values = everywhere(
        """
        podSecurityContext: {runAsUser: null, runAsGroup: null, fsGroup: null},
        securityContext: {runAsUser: null, runAsGroup: null, appArmorProfile: {type: RuntimeDefault}}
        """
    )
    spec = pod(values, process)
    assert set(spec["securityContext"]) == {"runAsNonRoot", "fsGroupChangePolicy", "seccompProfile"}
    context = spec["containers"][0]["securityContext"]
    assert "runAsUser" not in context
    assert context["appArmorProfile"] == {"type": "RuntimeDefault"}
    assert context["readOnlyRootFilesystem"] is True


@pytest.mark.parametrize("process", PROCESSES)
def test_probes_and_lifecycle_merge_with_those_of_the_chart(process: str) -> None:
    values = everywhere("livenessProbe: {failureThreshold: 30}, lifecycle: {postStart: {sleep: {seconds: 1}}}")
    container = main(values, process)
    assert container["livenessProbe"]["failureThreshold"] == 30
    assert container["livenessProbe"]["grpc"]
    assert container["lifecycle"]["preStop"]["sleep"]["seconds"] == 10
    assert container["lifecycle"]["postStart"] == {"sleep": {"seconds": 1}}


def test_a_stage_drops_a_limit_that_the_defaults_set() -> None:
    limits = main("stages: {decoder: {resources: {limits: {cpu: null}}}}", "decoder")["resources"]["limits"]
    assert limits == {"memory": "4Gi"}
    assert main("", "decoder")["resources"]["limits"]["cpu"] == "4"


@pytest.mark.parametrize("amount", ["1e9", "8Gi", "1Pi", "2000M", "0.5Gi"])
def test_quantities_are_those_of_kubernetes(amount: str) -> None:
    values = f"stages: {{decoder: {{resources: {{requests: {{memory: 1k}}, limits: {{memory: '{amount}'}}}}}}}}"
    assert main(values, "decoder")["resources"]["limits"]["memory"] == amount


def test_labels_and_annotations_of_the_operator_are_on_every_object() -> None:
    values = """
        commonLabels: {team: pictures}
        commonAnnotations: {example.com/owner: ada}
        gateway: {ingress: {enabled: true, host: a.example}, podLabels: {own: label}}
        monitoring: {podMonitor: {enabled: true}, alerts: {enabled: true}, dashboards: {enabled: true}}
        priorityClass: {create: true}
    """
    for document in render.manifests(values):
        assert document["metadata"]["labels"]["team"] == "pictures", document["kind"]
        assert document["metadata"]["annotations"]["example.com/owner"] == "ada", document["kind"]
    template = deployments(values)["hart-gateway"]["spec"]["template"]["metadata"]["labels"]
    assert template["team"] == "pictures"
    assert template["own"] == "label"


@pytest.mark.parametrize(
    ("values", "name"), [("fullnameOverride: art", "art-gateway"), ("nameOverride: pics", "hart-pics-gateway")]
)
def test_names_follow_an_override(values: str, name: str) -> None:
    documents = render.manifests(values)
    assert name in render.of_kind(documents, "Deployment")
    where = environment(render.of_kind(documents, "Deployment")[name]["spec"]["template"]["spec"]["containers"][0])
    assert where["HART_DECODER"] == f"kubernetes://pictures/{name.removesuffix('gateway')}decoder:grpc"


def test_more_objects_are_templates_too() -> None:
    values = """
        extraObjects:
          - {apiVersion: v1, kind: ConfigMap, metadata: {name: one}, data: {release: "{{ .Release.Name }}"}}
          - |
            apiVersion: v1
            kind: ConfigMap
            metadata: {name: "{{ .Release.Name }}-two"}
    """
    found = render.of_kind(render.manifests(values), "ConfigMap")
    assert found["one"]["data"] == {"release": "hart"}
    assert "hart-two" in found


def test_a_service_takes_a_load_balancers_class_and_spec() -> None:
    service = "type: LoadBalancer, loadBalancerClass: nlb, nodePort: 30051, loadBalancerSourceRanges: [10.0.0.0/8]"
    values = f"gateway: {{service: {{{service}, spec: {{externalTrafficPolicy: Local}}}}}}"
    spec = render.of_kind(render.manifests(values), "Service")["hart-gateway"]["spec"]
    assert spec["loadBalancerClass"] == "nlb"
    assert spec["externalTrafficPolicy"] == "Local"
    assert spec["ports"][0]["nodePort"] == 30051
    assert spec["loadBalancerSourceRanges"] == ["10.0.0.0/8"]


def test_an_account_that_exists_is_used() -> None:
    values = "{gateway: {serviceAccount: {create: false, name: mine}}, stageServiceAccount: {create: false}}"
    documents = render.manifests(values)
    assert not render.of_kind(documents, "ServiceAccount")
    assert pod(values, "gateway")["serviceAccountName"] == "mine"
    assert {pod(values, stage)["serviceAccountName"] for stage in STAGES} == {"default"}
    (binding,) = render.of_kind(documents, "RoleBinding").values()
    assert binding["subjects"][0]["name"] == "mine"


def test_a_collectors_key_comes_from_a_secret() -> None:
    values = "telemetry: {otlpEndpoint: 'https://otlp.example:4317', otlpHeaders: {secret: saas}}"
    for process in PROCESSES:
        found = {one["name"]: one for one in main(values, process)["env"]}
        reference = {"secretKeyRef": {"name": "saas", "key": "headers"}}
        assert found["OTEL_EXPORTER_OTLP_HEADERS"]["valueFrom"] == reference


def test_network_ports_are_the_clusters_own() -> None:
    values = """
        networkPolicy:
          dnsPorts: [5353]
          dnsTo: []
          apiServerPorts: [16443]
          extraEgress: [{to: [{ipBlock: {cidr: 169.254.170.23/32}}], ports: [{port: 80}]}]
          extraIngress: [{from: [{podSelector: {}}]}]
    """
    found = render.of_kind(render.manifests(values), "NetworkPolicy")
    for process in PROCESSES:
        spec = found[named(process)]["spec"]
        ports = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
        assert {5353, 80} <= ports
        assert 53 not in ports
        assert (16443 in ports) == (process == "gateway")
        assert {"from": [{"podSelector": {}}]} in spec["ingress"]


@pytest.mark.parametrize(
    ("name", "annotation"),
    [
        ("nginx-public", ("nginx.ingress.kubernetes.io/proxy-ssl-verify", "on")),
        ("haproxy", ("haproxy-ingress.github.io/backend-protocol", "grpcs")),
        ("alb", ("alb.ingress.kubernetes.io/backend-protocol-version", "GRPC")),
    ],
)
def test_an_ingress_speaks_grpc_in_the_words_of_its_class(name: str, annotation: tuple[str, str]) -> None:
    values = f"gateway: {{ingress: {{enabled: true, host: a.example, className: {name}}}}}"
    (ingress,) = render.of_kind(render.manifests(values), "Ingress").values()
    key, value = annotation
    assert ingress["metadata"]["annotations"][key] == value


def test_an_ingress_of_another_class_has_no_annotation_of_nginx() -> None:
    values = "gateway: {ingress: {enabled: true, host: a.example, className: traefik}}"
    (ingress,) = render.of_kind(render.manifests(values), "Ingress").values()
    assert not ingress["metadata"].get("annotations")


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (
            "{tls: {clientCertificates: true}, gateway: {ingress: {enabled: true, host: a.b}}}",
            "gateway.ingress is enabled",
        ),
        (
            "{tls: {clientCertificates: true}, gateway: {route: {enabled: true, parents: [{name: p}]}}}",
            "gateway.route is",
        ),
        ("stages: {decoder: {gpu: {count: 2}}}", "stages.decoder.gpu.count 2: a stage has one device"),
        ("defaults: {podSpec: {containers: []}}", "podSpec.containers would replace the process"),
        ("commonLabels: {app.kubernetes.io/name: other}", "app.kubernetes.io/name is the chart's own"),
        ("telemetry: {otlpHeaders: {secret: s}}", "telemetry.otlpEndpoint is empty"),
        ("gateway: {extraEnvs: []}", "'extraEnvs' not allowed"),
        ("defaults: {podSecuritycontext: {}}", "'podSecuritycontext' not allowed"),
        ("networkPolicy: {dnsPort: 53}", "'dnsPort' not allowed"),
        ("gateway: {extraEnv: [{value: v}]}", "/gateway/extraEnv/0"),
    ],
)
def test_what_cannot_work_is_refused(values: str, complaint: str) -> None:
    with pytest.raises(render.Refused, match=complaint):
        render.text(values)
