"""common.stages: the table of stages and ports, and code that cannot import it but must agree."""

from pathlib import Path

from hart.channel import DEFAULT_ENDPOINT
from hart.v1 import ar_generator_pb2, decoder_pb2, images_pb2, safety_pb2, text_encoder_pb2

from common.stages import (
    GATEWAY_PORT,
    GATEWAY_SERVICE,
    HEALTH_PORT_OFFSET,
    HTTP_PORT_OFFSET,
    METRICS_PORT_OFFSET,
    SCALER_PORT_OFFSET,
    STAGES,
)
from model.checkpoint import Checkpoint
from runtime.settings import ProcessSettings

ROOT = Path(__file__).resolve().parents[2]
PORTS = {"gateway": GATEWAY_PORT} | {name: stage.port for name, stage in STAGES.items()}


def test_services_equal_those_of_the_protos() -> None:
    modules = {
        "safety": safety_pb2,
        "text_encoder": text_encoder_pb2,
        "ar_generator": ar_generator_pb2,
        "decoder": decoder_pb2,
    }
    assert list(STAGES) == list(modules), "in the order of a request's path"
    for name, stage in STAGES.items():
        assert [service.full_name for service in modules[name].DESCRIPTOR.services_by_name.values()] == [stage.service]
    assert [service.full_name for service in images_pb2.DESCRIPTOR.services_by_name.values()] == [GATEWAY_SERVICE]


def test_each_stage_has_a_package_and_a_checkpoint_part(tiny_checkpoint: Path) -> None:
    checkpoint = Checkpoint.open(tiny_checkpoint)
    for name, stage in STAGES.items():
        assert (ROOT / "services" / name / "__main__.py").is_file()
        assert getattr(checkpoint, stage.part).is_dir()


def test_ports_of_all_processes_are_distinct() -> None:
    every = [port + more for port in PORTS.values() for more in (0, METRICS_PORT_OFFSET, HEALTH_PORT_OFFSET)]
    assert len(set(every)) == len(every) == 15


def exposed(image: str) -> set[int]:
    """The ports that the Dockerfile exposes for a container image."""
    stage = (ROOT / "Dockerfile").read_text().partition(f" AS image-{image}\n")[2].partition("\nFROM ")[0]
    (line,) = [line for line in stage.splitlines() if line.startswith("EXPOSE ")]
    return set(map(int, line.split()[1:]))


def test_dockerfile_exposes_the_ports() -> None:
    beside = (0, METRICS_PORT_OFFSET, HEALTH_PORT_OFFSET)
    assert exposed("gateway") == {GATEWAY_PORT + offset for offset in (*beside, HTTP_PORT_OFFSET, SCALER_PORT_OFFSET)}
    assert exposed("stage") == {stage.port + offset for stage in STAGES.values() for offset in beside}


def test_chart_has_the_same_services_and_ports() -> None:
    names = (ROOT / "k8s/chart/templates/_names.tpl").read_text()
    for name, stage in STAGES.items():
        assert f"{name}: {{service: {stage.service}, port: {stage.port}}}" in names
    assert f'"service" "{GATEWAY_SERVICE}" "port" {GATEWAY_PORT}' in names
    scaler = (ROOT / "k8s/chart/templates/_autoscaler.tpl").read_text()
    assert f'"hart.scalerPort" -}}}}\n{GATEWAY_PORT + SCALER_PORT_OFFSET}\n' in scaler


def test_client_defaults_to_the_gateway_port() -> None:
    assert f"127.0.0.1:{GATEWAY_PORT}" == DEFAULT_ENDPOINT  # the client's wheel is self-contained


def test_settings_help_states_the_port_offsets() -> None:
    text = ProcessSettings.help_text()
    assert f"`port` + {METRICS_PORT_OFFSET}" in text
    assert f"`port` + {HEALTH_PORT_OFFSET}" in text
