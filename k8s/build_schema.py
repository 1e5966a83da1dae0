"""Writes the processes' own settings into k8s/chart/values.schema.json, from their config classes. Knows which of them
the chart sets itself; knows no setting's meaning."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from common.stages import STAGES
from gateway.config import GatewaySettings
from runtime.settings import ProcessSettings, Settings, StageSettings
from services.ar_generator.config import ArGeneratorSettings
from services.decoder.config import DecoderSettings
from services.safety.config import SafetySettings
from services.text_encoder.config import TextEncoderSettings

SCHEMA = Path(__file__).parent / "chart" / "values.schema.json"
PROCESSES: dict[str, type[ProcessSettings]] = {
    "gateway": GatewaySettings,
    "safety": SafetySettings,
    "text_encoder": TextEncoderSettings,
    "ar_generator": ArGeneratorSettings,
    "decoder": DecoderSettings,
}
DECIDED = frozenset(
    [
        "host",
        "port",
        "metrics_host",
        "metrics_port",
        "health_port",
        "http_port",
        "scaler_port",
        "scaler_peers",
        "tls_cert",
        "tls_key",
        "tls_ca",
        "stage_tls_cert",
        "stage_tls_key",
        "stage_tls_ca",
        "allow_plaintext",
        "log_level",
        "record_prompts",
        "otlp_endpoint",
        "otlp_metrics",
        "otlp_logs",
        "trace_ratio",
        "drain_seconds",
        "connection_age_grace_seconds",
        "max_deadline_seconds",
        "checkpoint",
        "device",
        "api_keys",
        "api_keys_file",
        "jwt_jwks_url",
        "jwt_issuer",
        "jwt_audience",
        "jwt_scope",
        "scale_to_zero_stages",
    ]
) | set(STAGES)
"""Settings that the chart derives from its other values."""


def settings_schema(kind: type[Settings]) -> dict[str, Any]:
    """The schema of a process's `settings`: type, bounds and description of each field."""
    fields = kind.model_json_schema()["properties"]
    chosen = {name: _plain(field) for name, field in fields.items() if name not in DECIDED}
    return {"type": "object", "additionalProperties": False, "properties": chosen}


def _plain(field: dict[str, Any]) -> dict[str, Any]:
    field = {key: value for key, value in field.items() if key != "title"}
    if "description" in field:
        field["description"] = " ".join(field["description"].split())
    return field


def definitions() -> dict[str, Any]:
    """A schema for each process, and one for the settings that all stages share."""
    found = {_camel(name) + "Settings": settings_schema(kind) for name, kind in PROCESSES.items()}
    return {**found, "stageSettings": settings_schema(StageSettings)}


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.capitalize() for word in rest)


def main() -> int:
    """Update the file."""
    schema = json.loads(SCHEMA.read_text())
    schema["$defs"] = {k: v for k, v in schema["$defs"].items() if not k.endswith("Settings")} | definitions()
    SCHEMA.write_text(json.dumps(schema, indent=2, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
