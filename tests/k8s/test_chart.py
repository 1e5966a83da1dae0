"""The chart's manifests, rendered by the real helm: each law of theirs."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from k8s import build_schema, render
from k8s.tools import Unavailable, tool
from runtime.discovery.sources import source

try:
    tool("helm")
except Unavailable as error:
    pytest.skip(str(error), allow_module_level=True)

PROCESSES = build_schema.PROCESSES
STAGES = [name for name in PROCESSES if name != "gateway"]
EXAMPLES = [pytest.param(path, id=path.stem) for path in render.EXAMPLES]
FOREIGN_VARIABLES = {
    "HOME", "HF_HUB_OFFLINE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH",
}  # fmt: skip


def named(process: str) -> str:
    """A process's name in Kubernetes."""
    return "hart-" + process.replace("_", "-")


def deployments(values: str = "", *files: Path) -> dict[str, Any]:
    return render.of_kind(render.manifests(values, *files), "Deployment")


def pod(values: str, process: str, *files: Path) -> dict[str, Any]:
    return deployments(values, *files)[named(process)]["spec"]["template"]["spec"]


def environment(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_every_manifest_of_every_example_is_valid(example: Path, version: str) -> None:
    found = [d for d in render.manifests("", example) if render.group_kind(d) not in render.FOREIGN]
    assert len(found) > 20
    for document in found:
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_holds_the_settings_of_today() -> None:
    schema = json.loads(build_schema.SCHEMA.read_text())["$defs"]
    assert {k: v for k, v in schema.items() if k.endswith("Settings")} == build_schema.definitions(), "make k8s-files"


def test_what_the_chart_decides_are_settings_that_exist() -> None:
    fields = {field for kind in PROCESSES.values() for field in kind.model_fields}
    assert fields >= build_schema.DECIDED


def test_every_object_of_the_schema_says_what_it_may_hold() -> None:
    def loose(node: Any, path: str) -> list[str]:
        if isinstance(node, list):
            return [hit for number, item in enumerate(node) for hit in loose(item, f"{path}/{number}")]
        if not isinstance(node, dict):
            return []
        here = (
            [path]
            if "properties" in node and node.get("type") == "object" and "additionalProperties" not in node
            else []
        )
        return here + [hit for key, value in node.items() for hit in loose(value, f"{path}/{key}")]

    assert loose(json.loads(build_schema.SCHEMA.read_text()), "") == []


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("process", PROCESSES)
def test_every_variable_of_a_process_is_one_of_its_settings(
    process: str, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = environment(pod("", process, example)["containers"][0])
    settings = {k: v for k, v in said.items() if k.startswith("HART_")}
    assert set(said) - set(settings) <= FOREIGN_VARIABLES
    known = {"HART_" + field.upper() for field in PROCESSES[process].model_fields}
    assert set(settings) <= known
    keys = tmp_path / "keys"
    keys.write_text("me=secret\n")
    for name, value in settings.items():
        monkeypatch.setenv(name, str(keys) if name == "HART_API_KEYS_FILE" else value)
    loaded = PROCESSES[process].load()
    assert loaded.unknown() == {}
    assert loaded.drain_seconds > 300


def test_a_setting_reaches_its_process_with_its_value() -> None:
    values = (
        "stages: {ar_generator: {settings: {slot_memory_bytes: 8589934592, patience_seconds: 0.25, queue_limit: 7}}}"
    )
    said = environment(pod(values, "ar_generator")["containers"][0])
    assert said["HART_SLOT_MEMORY_BYTES"] == "8589934592"
    assert said["HART_PATIENCE_SECONDS"] == "0.25"
    assert said["HART_QUEUE_LIMIT"] == "7"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ("stages: {decoder: {replcas: 2}}", "replcas"),
        ("stages: {decoders: {}}", "decoders"),
        ("stages: {decoder: {settings: {slots: 2}}}", "slots"),
        ("defaults: {settings: {unsafe_action: refuse}}", "unsafe_action"),
        ("gateway: {settings: {port: 1}}", "port"),
        ("gateway: {autoscaling: {minimum: 1}}", "minimum"),
        ("tls: {certmanager: {}}", "certmanager"),
        ("stages: {decoder: {tolerations: [{keys: a}]}}", "keys"),
    ],
)
def test_a_misspelt_value_is_refused_by_its_name(values: str, name: str) -> None:
    with pytest.raises(render.Refused, match=f"'{name}' not allowed"):
        render.text(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("stages: {decoder: {settings: {queue_limit: 0}}}", "/stages/decoder/settings/queue_limit"),
        ("stages: {decoder: {settings: {dtype: float8}}}", "/stages/decoder/settings/dtype"),
        ("tls: {mode: off}", "/tls/mode"),
        ("tls: {mode: secrets}", "/tls/secrets"),
        ("stages: {decoder: {model: {source: claim}}}", "stages.decoder.model.claim.name"),
        ("stages: {decoder: {model: {source: s3, s3: {bucket: b}}}}", "stages.decoder.model.files is empty"),
        ("stages: {decoder: {autoscaling: {kind: keda, minReplicas: 0}}}", "trigger gateway"),
        ("stages: {decoder: {autoscaling: {kind: keda, trigger: gateway, minReplicas: 0}}}", "gateway.replicas 1"),
        ("stages: {decoder: {autoscaling: {kind: hpa, minReplicas: 5}}}", "minReplicas 5 is over maxReplicas 4"),
        ("longestDeadlineSeconds: 30", "longestDeadlineSeconds 30"),
        ("gateway: {autoscaling: {enabled: true, minReplicas: 9}}", "gateway.autoscaling: minReplicas 9 is over"),
        ("gateway: {auth: {jwt: {jwksUrl: 'https://issuer/keys'}}}", "gateway.auth.jwt.issuer is empty"),
        ("gateway: {route: {enabled: true}}", "gateway.route.parents is empty"),
        ("stages: {decoder: {autoscaling: {kind: hpa, trigger: gateway}}}", "kind hpa and trigger gateway"),
        ("stages: {decoder: {autoscaling: {kind: hpa, query: up}}}", 'query "up" is for kind keda'),
        (
            "stages: {decoder: {model: {claim: {name: c}}}}",
            "decoder.model.claim is given, and stages.decoder.model.source is bundled",
        ),
        (
            "stages: {decoder: {model: {folder: f}}}",
            "decoder.model.folder is given, and stages.decoder.model.source is bundled",
        ),
        ("stages: {decoder: {model: {source: huggingFace}}}", "huggingFace.repository"),
        ("stages: {decoder: {model: {source: s3}}}", "s3.bucket"),
        (
            "stages: {safety: {endpoints: ['oip://triton:99999/safety']}}",
            "oip://triton:99999/safety has no port from 1 to 65535",
        ),
        (
            "stages: {safety: {endpoints: ['triton:8001'], replicas: 2}}",
            "stages.safety.replicas is given, and stages.safety.endpoints say",
        ),
        ("stages: {decoder: {rollout: {maxSurge: 0, maxUnavailable: 0}}}", "both 0: no pod could ever change"),
        (
            "gateway: {resources: {requests: {memory: 3Gi}, limits: {memory: 2000Mi}}}",
            "requests.memory 3Gi is over limits.memory 2000Mi",
        ),
        ("gateway: {podLabels: {app.kubernetes.io/name: other}}", "app.kubernetes.io/name is the chart's own"),
        ("gateway: {auth: {jwt: {audience: me}}}", 'audience "me" is given without jwksUrl'),
        ("tls: {secrets: {gateway: s}}", 'tls.secrets.gateway "s" is given, and tls.mode is certManager'),
        ("tls: {mode: none, certManager: {issuer: {name: ca}}}", "tls.mode is none"),
        ("tls: {mode: none, clientCertificates: true}", "in plaintext nobody shows a certificate"),
        ("telemetry: {otlpMetrics: true}", "telemetry.otlpEndpoint is empty"),
        ("priorityClass: {create: true, name: system-hart}", "system-hart: names that begin with system-"),
        ("defaults: {model: {claim: {name: c}}}", "no stage's model.source is claim"),
    ],
)
def test_values_that_cannot_be_are_refused_with_the_place(values: str, complaint: str) -> None:
    with pytest.raises(render.Refused, match=complaint.replace(".", r"\.")):
        render.text(values)


@pytest.mark.parametrize("process", PROCESSES)
@pytest.mark.parametrize("example", EXAMPLES)
def test_no_container_can_do_more_than_its_work(process: str, example: Path) -> None:
    spec = pod("", process, example)
    assert spec["securityContext"]["runAsNonRoot"] is True
    for container in spec["containers"] + spec.get("initContainers", []):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["resources"]["limits"]["memory"]


def test_only_the_gateway_speaks_with_the_kubernetes_api() -> None:
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
def test_the_kubelet_asks_for_health_in_plaintext(process: str, mode: str) -> None:
    container = pod(f"tls: {{mode: {mode}}}", process)["containers"][0]
    said = environment(container)
    port = int(said["HART_PORT"] if mode == "none" else said["HART_HEALTH_PORT"])
    service = {"gateway": "Images", "text_encoder": "TextEncoder", "ar_generator": "ArGenerator"}.get(
        process, process.title()
    )
    assert container["readinessProbe"]["grpc"] == {"port": port, "service": f"hart.v1.{service}"}
    assert container["startupProbe"]["grpc"] == {"port": port, "service": f"hart.v1.{service}"}
    assert container["livenessProbe"]["grpc"] == {"port": port}
    assert ("HART_ALLOW_PLAINTEXT" in said) == (mode == "none")


@pytest.mark.parametrize("longest", [20, 300, 900])
def test_the_grace_is_longer_than_the_longest_deadline(longest: int) -> None:
    values = f"{{longestDeadlineSeconds: {longest}, gateway: {{settings: {{default_deadline_seconds: 10}}}}}}"
    for process in PROCESSES:
        spec = pod(values, process)
        container = spec["containers"][0]
        said = environment(container)
        pause = container["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert float(said["HART_DRAIN_SECONDS"]) > longest
        assert float(said["HART_CONNECTION_AGE_GRACE_SECONDS"]) > longest
        assert spec["terminationGracePeriodSeconds"] > pause + float(said["HART_DRAIN_SECONDS"])
    assert environment(pod(values, "gateway")["containers"][0])["HART_MAX_DEADLINE_SECONDS"] == str(longest)


@pytest.mark.parametrize("discovery", ["kubernetes", "dns"])
def test_the_gateway_is_told_where_the_stages_services_are(discovery: str) -> None:
    documents = render.manifests(f"gateway: {{discovery: {discovery}}}")
    services = render.of_kind(documents, "Service")
    said = environment(pod(f"gateway: {{discovery: {discovery}}}", "gateway")["containers"][0])
    for stage in STAGES:
        service = services[named(stage)]
        assert service["spec"]["clusterIP"] == "None"
        where = said["HART_" + stage.upper()]
        source(where)
        host, _, port = where.rpartition("/")[2].rpartition(":")
        assert host.partition(".")[0] == named(stage)
        assert port in (str(service["spec"]["ports"][0]["port"]), service["spec"]["ports"][0]["name"])
        assert where.startswith(f"{discovery}://")
        assert render.NAMESPACE in where


def test_a_stage_elsewhere_is_not_deployed_and_is_called_there() -> None:
    values = "stages: {decoder: {endpoints: ['oip://triton.models:8001/decoder']}}"
    documents = render.manifests(values)
    assert not [d for d in documents if d["metadata"]["name"] == "hart-decoder"]
    assert environment(pod(values, "gateway")["containers"][0])["HART_DECODER"] == "oip://triton.models:8001/decoder"
    ports = [p["port"] for rule in policies(documents)["gateway"]["egress"] for p in rule["ports"]]
    assert 8001 in ports


def policies(documents: Iterable[Any]) -> dict[str, Any]:
    found = render.of_kind(documents, "NetworkPolicy").values()
    return {p["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"]: p["spec"] for p in found}


def arrows(rule: dict[str, Any], direction: str) -> set[tuple[str, Any]]:
    """Whom a rule lets in or out, and on which ports."""
    peers = rule.get(direction) or [{}]
    names = set()
    for peer in peers:
        pods = peer.get("podSelector", {}).get("matchLabels", {})
        spaces = peer.get("namespaceSelector", {}).get("matchLabels", {})
        names.add(pods.get("app.kubernetes.io/component") or spaces.get("kubernetes.io/metadata.name") or "anywhere")
    return {(name, port["port"]) for name in names for port in rule["ports"]}


def test_the_network_lets_through_exactly_the_arrows_that_exist() -> None:
    found = policies(render.manifests("", *[p for p in render.EXAMPLES if p.stem == "production"]))
    both = {
        name: (
            set().union(*(arrows(r, "from") for r in spec["ingress"])),
            set().union(*(arrows(r, "to") for r in spec["egress"])),
        )
        for name, spec in found.items()
    }
    outside = {("kube-system", 53), ("observability", 4317)}
    stage_in = {("gateway", "grpc"), ("monitoring", "metrics")}
    assert both == {
        "gateway": (
            {("gateways", "grpc"), ("monitoring", "metrics")},
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


def test_a_gpu_asks_for_the_device_and_the_images_variant() -> None:
    values = "stages: {decoder: {gpu: {count: 1, resource: nvidia.com/mig-1g.10gb}}}"
    container = pod(values, "decoder")["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/mig-1g.10gb"] == 1
    assert environment(container)["HART_DEVICE"] == "cuda"
    assert container["image"] == "hart-decoder:0.1.0-gpu"
    assert pod(values, "safety")["containers"][0]["image"] == "hart-safety:0.1.0-cpu"
    assert pod(values, "gateway")["containers"][0]["image"] == "hart-gateway:0.1.0"


def test_a_stages_own_word_wins_over_the_default_even_when_it_is_nothing() -> None:
    values = """
defaults: {gpu: {count: 2}, replicas: 3, settings: {queue_limit: 5}}
stages: {safety: {gpu: {count: 0}, replicas: 0, topologySpread: [], settings: {max_wait_seconds: 0}}}"""
    safety = deployments(values)["hart-safety"]["spec"]
    spec = safety["template"]["spec"]
    assert safety["replicas"] == 0
    assert "topologySpreadConstraints" not in spec
    assert "HART_DEVICE" not in environment(spec["containers"][0])
    assert environment(spec["containers"][0])["HART_QUEUE_LIMIT"] == "5"
    assert environment(spec["containers"][0])["HART_MAX_WAIT_SECONDS"] == "0"
    assert deployments(values)["hart-decoder"]["spec"]["replicas"] == 3


def test_keda_asks_for_hart_load_and_owns_the_replicas() -> None:
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


def test_from_zero_keda_asks_the_gateways_scaler_by_what_it_understands() -> None:
    values = "{gateway: {replicas: 1}, defaults: {autoscaling: {kind: keda, trigger: gateway, minReplicas: 0}}}"
    documents = render.manifests(values)
    (trigger,) = render.of_kind(documents, "ScaledObject")["hart-decoder"]["spec"]["triggers"]
    assert trigger["type"] == "external-push"
    assert trigger["metadata"]["stage"] == "decoder"
    assert float(trigger["metadata"]["targetLoad"]) == 0.8
    assert trigger["metadata"]["enableTLS"] == "true"
    host, port = trigger["metadata"]["scalerAddress"].split(":")
    certificate = render.of_kind(documents, "Certificate")["hart-gateway"]["spec"]
    assert host in certificate["dnsNames"]
    assert int(port) == render.of_kind(documents, "Service")["hart-gateway"]["spec"]["ports"][0]["port"]
    trusted = render.of_kind(documents, "TriggerAuthentication")[trigger["authenticationRef"]["name"]]["spec"]
    assert trusted["secretTargetRef"] == [{"parameter": "caCert", "name": certificate["secretName"], "key": "ca.crt"}]


def test_a_plain_hpa_asks_for_the_same_load() -> None:
    hpa = render.of_kind(render.manifests("defaults: {autoscaling: {kind: hpa}}"), "HorizontalPodAutoscaler")
    (metric,) = hpa["hart-ar-generator"]["spec"]["metrics"]
    assert metric["pods"]["metric"]["name"] == "hart_load"
    assert metric["pods"]["target"] == {"type": "AverageValue", "averageValue": "800m"}


def test_between_processes_tls_is_mutual() -> None:
    documents = render.manifests()
    certificates = render.of_kind(documents, "Certificate")
    for process in PROCESSES:
        spec = pod("", process)
        said = environment(spec["containers"][0])
        (volume,) = [v for v in spec["volumes"] if v["name"] == "tls"]
        assert volume["secret"]["secretName"] == certificates[named(process)]["spec"]["secretName"]
        assert said["HART_TLS_CERT"].endswith("/tls.crt")
        if process == "gateway":
            assert said["HART_STAGE_TLS_CA"].endswith("/ca.crt")
            assert "HART_TLS_CA" not in said  # callers need no certificate unless clientCertificates says so
        else:
            assert said["HART_TLS_CA"].endswith("/ca.crt")
            assert "server auth" in certificates[named(process)]["spec"]["usages"]
    assert "client auth" in certificates["hart-gateway"]["spec"]["usages"]
    asked = pod("tls: {mode: none, clientCertificates: true}", "gateway")["containers"][0]
    assert environment(asked)["HART_TLS_CA"].endswith("/ca.crt")


def test_given_secrets_are_mounted_in_place_of_certificates() -> None:
    values = "tls: {mode: secrets, secrets: {gateway: front, stages: inner}}"
    assert not render.of_kind(render.manifests(values), "Certificate")
    for process in PROCESSES:
        (volume,) = [v for v in pod(values, process)["volumes"] if v["name"] == "tls"]
        assert volume["secret"]["secretName"] == ("front" if process == "gateway" else "inner")


def test_everything_belongs_to_its_release_alone() -> None:
    for document in yaml.safe_load_all(render.helm("template", "other", render.CHART, "--namespace", "a")):
        if document:
            assert document["metadata"]["name"].startswith(("other-hart", "a-other-hart")), document["kind"]
            assert document["metadata"].get("namespace", "a") == "a"


@pytest.mark.parametrize("process", PROCESSES)
def test_a_budget_and_a_priority_keep_every_process_running(process: str) -> None:
    documents = render.manifests()
    budget = render.of_kind(documents, "PodDisruptionBudget")[named(process)]["spec"]
    deployment = deployments()[named(process)]["spec"]
    assert budget["selector"] == deployment["selector"]
    (priority,) = render.of_kind(documents, "PriorityClass")
    assert deployment["template"]["spec"]["priorityClassName"] == priority
    assert deployment["template"]["spec"]["topologySpreadConstraints"]


def test_callers_come_in_by_ingress_or_route() -> None:
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
    said = render.helm("install", "hart", render.CHART, "--dry-run=client", "-n", "pictures", "-f", "-", stdin=values)
    return said.partition("NOTES:")[2]


def test_the_notes_say_how_to_call_what_was_installed_and_what_cannot_work() -> None:
    plain = notes("tls: {mode: none}")
    assert "hart generate" in plain
    assert "--tls-ca" not in plain
    assert "plaintext" in plain
    secured = notes("gateway: {auth: {apiKeys: {secret: keys}}}")
    assert "get secret hart-gateway-tls" in secured
    assert "--tls-ca ca.crt --api-key KEY" in secured
    assert "stages.decoder.replicas is 0" in notes("stages: {decoder: {replicas: 0}}")


def test_a_forwarded_port_shows_a_certificate_of_its_name() -> None:
    certificates = render.of_kind(render.manifests(), "Certificate")
    assert "localhost" in certificates["hart-gateway"]["spec"]["dnsNames"]
    assert "localhost" not in certificates["hart-decoder"]["spec"]["dnsNames"]


def test_a_registrys_trailing_slash_does_no_harm() -> None:
    deployment = render.of_kind(render.manifests("image: {registry: 'ghcr.io/example/'}"), "Deployment")["hart-gateway"]
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == "ghcr.io/example/hart-gateway:0.1.0"
