"""protos/: the wire contract against its committed baseline: additions pass, breaking changes do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUF = Path(sys.executable).with_name("buf")


def compare(protos: Path) -> subprocess.CompletedProcess[str]:
    """Run buf's breaking-change check."""
    return subprocess.run(
        [BUF, "breaking", protos, "--against", ROOT / "protos/baseline.binpb"], capture_output=True, text=True
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract."""
    return Path(shutil.copytree(ROOT / "protos", tmp_path / "protos"))


def test_contract_matches_the_baseline_and_the_lint_rules() -> None:
    found = compare(ROOT / "protos")
    assert found.returncode == 0, found.stdout
    assert subprocess.run([BUF, "lint", ROOT / "protos"]).returncode == 0


def test_new_field_is_no_breaking_change(protos: Path) -> None:
    file = protos / "hart/v1/images.proto"
    file.write_text(file.read_text().replace("message StatusRequest {}", "message StatusRequest { bool all = 1; }"))
    assert compare(protos).returncode == 0


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"string prompt = 2;", "string prompt = 20;"),
        (r"string prompt = 2;", "bytes prompt = 2;"),
        (r"string prompt = 2;", "string text = 2;"),
        (r"optional bool more_smooth = 6;", ""),
        (r"rpc Status\(", "rpc State("),
        (r"WARNING_CODE_PROMPT_REPLACED = 3", "NOTICE_CODE_PROMPT_SWAPPED = 3"),
    ],
)
def test_breaking_change_of_a_published_field_is_refused(protos: Path, pattern: str, replacement: str) -> None:
    file = protos / "hart/v1/images.proto"
    text, count = re.subn(pattern, replacement, file.read_text(), count=1)
    assert count == 1
    file.write_text(text)
    assert compare(protos).returncode != 0


def test_published_enums_start_unspecified_and_services_are_listed() -> None:
    from hart.v1 import (
        ar_generator_pb2,
        decoder_pb2,
        images_pb2,
        safety_pb2,
        stage_pb2,
        tensor_pb2,
        text_encoder_pb2,
    )

    files = [ar_generator_pb2, decoder_pb2, images_pb2, safety_pb2, stage_pb2, tensor_pb2, text_encoder_pb2]
    for file in files:
        for enum in file.DESCRIPTOR.enum_types_by_name.values():
            assert enum.values_by_number[0].name.endswith("_UNSPECIFIED")
    services = {name for file in files for name in file.DESCRIPTOR.services_by_name}
    assert services == {"Images", "Stage", "Safety", "TextEncoder", "ArGenerator", "Decoder"}


def test_keda_scaler_contract_has_the_published_field_numbers() -> None:
    from gateway.keda import externalscaler_pb2

    file = externalscaler_pb2.DESCRIPTOR
    assert file.package == "externalscaler"
    service = file.services_by_name["ExternalScaler"]
    assert [method.name for method in service.methods] == ["IsActive", "StreamIsActive", "GetMetricSpec", "GetMetrics"]
    assert service.methods_by_name["StreamIsActive"].server_streaming
    numbers = {
        name: {field.name: field.number for field in message.fields}
        for name, message in file.message_types_by_name.items()
    }
    assert numbers["ScaledObjectRef"] == {"name": 1, "namespace": 2, "scalerMetadata": 3}
    assert numbers["MetricSpec"] == {"metricName": 1, "targetSize": 2, "targetSizeFloat": 3}
    assert numbers["MetricValue"] == {"metricName": 1, "metricValue": 2, "metricValueFloat": 3}
