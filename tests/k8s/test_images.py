"""The files that build and run container images outside of Kubernetes: bake, compose, locks of packages."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from common.stages import STAGES
from common.version import VERSION
from deploy.images import lock
from k8s import image
from k8s.build_schema import PROCESSES

ROOT = Path(__file__).resolve().parents[2]
LOCKS = sorted(lock.FOLDER.glob("*.txt"))
PIN = re.compile(r"^([A-Za-z0-9_.-]+)==(\S+)")


def plain(name: str) -> str:
    return re.sub("[-_.]+", "-", name.lower())


def pins(path: Path) -> dict[str, str]:
    found = (PIN.match(entry) for entry in lock.entries(path.read_text()))
    return {plain(one[1]): one[2] for one in found if one}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_every_package_of_an_image_has_a_version_and_hashes(path: Path) -> None:
    entries = lock.entries(path.read_text())
    assert len(entries) >= 5
    for entry in entries:
        assert PIN.match(entry), entry.splitlines()[0]
        assert len(re.findall(r"--hash=sha256:[0-9a-f]{64}", entry)) >= 1, entry.splitlines()[0]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_images_install_the_versions_of_the_tests(path: Path) -> None:
    tested = pins(ROOT / "constraints.txt")
    installed = pins(path)
    assert {name: version for name, version in installed.items() if tested.get(name, version) != version} == {}
    if path.stem != "stubs":
        assert {"grpcio", "protobuf", "pydantic-settings", "opentelemetry-sdk"} <= set(installed)


def test_arm64_and_amd64_find_a_file_of_each_compiled_package() -> None:
    """One hash of a pure package is enough; a compiled one has a file for each processor."""
    for path in LOCKS:
        for entry in lock.entries(path.read_text()):
            if entry.startswith(("grpcio==", "pydantic-core==", "torch==", "onnx==", "onnxruntime==")):
                assert entry.count("--hash") >= 4, entry.splitlines()[0]


def test_the_cpu_variant_leaves_out_torch_and_cuda_and_adds_onnx_runtime() -> None:
    gpu, cpu = pins(lock.FOLDER / "stage-gpu.txt"), pins(lock.FOLDER / "stage-cpu.txt")
    assert "torch" in gpu
    left = set(gpu) - set(cpu)
    assert all(name == "torch" or name.startswith(("nvidia-", "cuda-", "triton")) for name in left)
    assert set(cpu) - set(gpu) == {"onnx", "onnxruntime", "flatbuffers"}, "make image-locks"
    text = (lock.FOLDER / "stage-cpu.txt").read_text()
    assert text == lock.without_cuda(text)


def test_every_image_installs_by_hash() -> None:
    for stage in ("stubs", "packages-gateway", "packages-stage-cpu", "packages-stage-gpu"):
        *others, last = image.commands(stage)[0 if stage == "stubs" else -1].split(" && ")
        assert "--require-hashes -r deploy/images/" in last
        assert all(other.split()[-1] == "torch" for other in others)


def baked() -> dict[str, dict[str, Any]]:
    """The targets of docker-bake.hcl, by name."""
    hcl2 = pytest.importorskip("hcl2")
    with (ROOT / "docker-bake.hcl").open() as file:
        found = unquoted(hcl2.load(file))
    targets = {name: body for one in found["target"] for name, body in one.items()}
    targets["variables"] = {name: body["default"] for one in found["variable"] for name, body in one.items()}
    targets["groups"] = {name: body["targets"] for one in found["group"] for name, body in one.items()}
    return targets


def unquoted(value: Any) -> Any:
    if isinstance(value, dict):
        return {unquoted(key): unquoted(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [unquoted(inner) for inner in value]
    return value.strip('"') if isinstance(value, str) else value


def test_the_bake_file_builds_what_the_chart_asks_for() -> None:
    targets = baked()
    stages = set(re.findall(r" AS (\S+)", image.DOCKERFILE.read_text()))
    assert targets["groups"]["default"] == ["gateway", "stage-cpu", "stage-gpu"]
    for name in targets["groups"]["default"]:
        target = targets[name]
        assert target["inherits"] == ["common"]
        assert target["target"] in stages
        (tag,) = target["tags"]
        assert tag == "${REGISTRY}hart-" + name.replace("stage-cpu", "stage:${VERSION}-cpu").replace(
            "stage-gpu", "stage:${VERSION}-gpu"
        ).replace("gateway", "gateway:${VERSION}")
    assert targets["variables"]["VERSION"] == VERSION


def test_the_bake_files_arguments_are_those_of_the_dockerfile() -> None:
    text = image.DOCKERFILE.read_text()
    declared = set(re.findall(r"^ARG (\w+)", text, re.MULTILINE)) | {"SOURCE_DATE_EPOCH"}  # BuildKit's own
    targets = baked()
    for name in ("common", "gateway", "stage-cpu", "stage-gpu"):
        assert {key for key in targets[name]["args"] if not key.startswith("__")} <= declared
    (python,) = set(re.findall(r"^ARG PYTHON=(\S+)", text, re.MULTILINE))
    assert targets["variables"]["PYTHON"] == python


def test_images_are_built_for_both_processors_with_sbom_and_provenance() -> None:
    targets = baked()
    assert targets["variables"]["PLATFORMS"] == "linux/amd64,linux/arm64"
    assert {word.partition(",")[0] for word in targets["common"]["attest"]} == {"type=sbom", "type=provenance"}


def composed(*names: str) -> dict[str, Any]:
    """The services, with the later file over the earlier one, as compose merges maps."""
    services: dict[str, Any] = {}
    for name in names:
        for service, body in yaml.safe_load((ROOT / "deploy/compose" / name).read_text())["services"].items():
            known = services.setdefault(service, {})
            environment = {**known.get("environment", {}), **body.get("environment", {})}
            known |= {**body, "environment": environment}
    return services


FILES = [("compose.yaml",), ("compose.yaml", "gpu.yaml")]


@pytest.mark.parametrize("files", FILES, ids=["cpu", "gpu"])
@pytest.mark.parametrize("process", PROCESSES)
def test_compose_runs_every_process_with_settings_that_exist(
    process: str, files: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = composed(*files)[process.replace("_", "-")]
    for name, value in service["environment"].items():
        monkeypatch.setenv(name, value)
    loaded = PROCESSES[process].load()
    assert loaded.unknown() == {}
    assert loaded.host == "0.0.0.0"
    if process != "gateway":
        assert service["command"] == [f"services.{process}"]
        assert loaded.port == STAGES[process].port
        assert service["image"].endswith("-gpu" if "gpu.yaml" in files else "-cpu")
        assert loaded.model_dump()["device"] == ("cuda" if "gpu.yaml" in files else "auto")


def test_composes_gateway_finds_its_stages() -> None:
    services = composed("compose.yaml")
    for stage, known in STAGES.items():
        assert services["gateway"]["environment"][f"HART_{stage.upper()}"] == f"{stage.replace('_', '-')}:{known.port}"
        check = services[stage.replace("_", "-")]["healthcheck"]["test"]
        assert check[1:] == ["python", "-m", "runtime.server.check", f"127.0.0.1:{known.port}", known.service]
        assert services["gateway"]["depends_on"][stage.replace("_", "-")] == {"condition": "service_healthy"}


def test_compose_restricts_its_containers_and_publishes_on_loopback() -> None:
    for name, service in composed("compose.yaml").items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["user"] == "10001:10001", name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        grace = int(service["stop_grace_period"].removesuffix("s"))
        assert grace > PROCESSES["gateway"].model_fields["drain_seconds"].default


def test_images_without_an_engine_say_so(tmp_path: Path) -> None:
    (tmp_path / "docker").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "docker").chmod(0o755)
    done = subprocess.run(
        ["make", "images"], cwd=ROOT, env={"PATH": f"{tmp_path}:/usr/bin:/bin"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "NOT BUILT: docker buildx is not installed here" in done.stderr
