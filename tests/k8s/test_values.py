"""k8s/chart: values become settings of the processes or are refused with their path, rendered by the real helm."""

import json
from pathlib import Path
from typing import Any

import pytest

from k8s import build_schema, render
from tests.k8s.chart import EXAMPLES, PROCESSES, environment, pod

FOREIGN_VARIABLES = {
    "HOME", "HF_HUB_OFFLINE", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR", "CUDA_CACHE_PATH",
    "POD_NAME", "POD_UID", "POD_NAMESPACE", "NODE_NAME", "OTEL_RESOURCE_ATTRIBUTES",
}  # fmt: skip


def test_schema_is_up_to_date_with_the_settings() -> None:
    schema = json.loads(build_schema.SCHEMA.read_text())["$defs"]
    assert {k: v for k, v in schema.items() if k.endswith("Settings")} == build_schema.definitions(), "make k8s-files"


def test_settings_decided_by_the_chart_exist() -> None:
    fields = {field for kind in PROCESSES.values() for field in kind.model_fields}
    assert fields >= build_schema.DECIDED


def test_every_schema_object_restricts_its_properties() -> None:
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
def test_every_environment_variable_is_a_setting(
    process: str, example: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment(pod("", process, example)["containers"][0])
    settings = {k: v for k, v in variables.items() if k.startswith("HART_")}
    assert set(variables) - set(settings) <= FOREIGN_VARIABLES
    known = {"HART_" + field.upper() for field in PROCESSES[process].model_fields}
    assert set(settings) <= known
    keys = tmp_path / "keys"
    keys.write_text("me=secret\n")
    for name, value in settings.items():
        monkeypatch.setenv(name, str(keys) if name == "HART_API_KEYS_FILE" else value)
    loaded = PROCESSES[process].load()
    assert loaded.unknown() == {}
    assert loaded.drain_seconds > 300


def test_setting_is_passed_with_its_value() -> None:
    settings = "{kv_cache_bytes: 8589934592, max_starvation_seconds: 0.25, max_queued_requests: 7}"
    values = f"stages: {{ar_generator: {{settings: {settings}}}}}"
    variables = environment(pod(values, "ar_generator")["containers"][0])
    assert variables["HART_KV_CACHE_BYTES"] == "8589934592"
    assert variables["HART_MAX_STARVATION_SECONDS"] == "0.25"
    assert variables["HART_MAX_QUEUED_REQUESTS"] == "7"


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
def test_misspelt_value_is_refused_by_name(values: str, name: str) -> None:
    with pytest.raises(render.Refused, match=f"'{name}' not allowed"):
        render.text(values)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ("stages: {decoder: {settings: {max_queued_requests: 0}}}", "/stages/decoder/settings/max_queued_requests"),
        ("stages: {decoder: {settings: {dtype: float8}}}", "/stages/decoder/settings/dtype"),
        ("tls: {mode: off}", "/tls/mode"),
        ("tls: {mode: secrets}", "/tls/secrets"),
        ("stages: {decoder: {model: {source: claim}}}", "stages.decoder.model.claim.name"),
        ("stages: {decoder: {model: {source: s3, s3: {bucket: b}}}}", "stages.decoder.model.files is empty"),
        ("stages: {decoder: {autoscaling: {kind: keda, minReplicas: 0}}}", "trigger gateway"),
        ("stages: {decoder: {autoscaling: {kind: hpa, minReplicas: 5}}}", "minReplicas 5 is over maxReplicas 4"),
        ("maxDeadlineSeconds: 30", "maxDeadlineSeconds 30"),
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
        ("tls: {mode: none, clientCertificates: true}", "plaintext has no certificates"),
        ("telemetry: {otlpMetrics: true}", "telemetry.otlpEndpoint is empty"),
        ("priorityClass: {create: true, name: system-hart}", "system-hart: names that begin with system-"),
        ("defaults: {model: {claim: {name: c}}}", "no stage's model.source is claim"),
        ("stages: {decoder: {autoscaling: {kind: hpa, targetLoad: 0.0004}}}", "/stages/decoder/autoscaling/targetLoad"),
    ],
)
def test_invalid_values_are_refused_with_their_path(values: str, complaint: str) -> None:
    with pytest.raises(render.Refused, match=complaint.replace(".", r"\.")):
        render.text(values)
