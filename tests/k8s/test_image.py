"""Dockerfile, k8s.image: what it copies from the checkout, and what the chart expects of it."""

import ast
import json
import subprocess
from fnmatch import fnmatch
from pathlib import Path

import pytest

from k8s import image, render
from k8s.build_schema import PROCESSES
from k8s.tools import ToolMissing

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["packages-gateway", "packages-stage-cpu", "packages-stage-gpu"]
STAGES = [*PACKAGES, "stubs", "image-gateway", "image-stage"]


def tracked() -> list[str]:
    return subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.parametrize("stage", STAGES)
def test_copied_paths_are_tracked_and_in_the_build_context(stage: str) -> None:
    files = tracked()
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = image.copied(stage)
    assert sources
    for source in sources:
        if source == "checkpoints" and not list((ROOT / "checkpoints").glob("*")):
            pytest.skip("no checkpoint is bundled")
        assert any(path == source or path.startswith(source + "/") for path in files), source
        assert any(fnmatch(source, word) or source.startswith(word + "/") for word in allowed), source


@pytest.mark.parametrize("stage", ["image-gateway", "image-stage"])
def test_packages_imported_by_copied_packages_are_copied(stage: str) -> None:
    rooms = {path.split("/")[0] for path in tracked() if path.endswith(".py")} - {"client"}
    copied = {source.split("/")[0] for source in image.copied(stage)} - {"client"}
    imported: set[str] = set()
    for path in (path for path in tracked() if path.endswith(".py") and path.split("/")[0] in copied):
        for node in ast.walk(ast.parse((ROOT / path).read_text())):
            if isinstance(node, ast.Import):
                imported |= {name.name.split(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").split(".")[0])
    assert imported & rooms <= copied


def test_gateway_container_image_has_no_package_with_torch() -> None:
    assert {source.split("/")[0] for source in image.copied("image-gateway")} == {
        "client",
        "common",
        "runtime",
        "gateway",
    }
    (command,) = image.commands("packages-gateway")
    assert command.endswith("--require-hashes -r deploy/images/gateway.txt")


@pytest.mark.parametrize("process", PROCESSES)
def test_container_image_runs_its_process_on_the_charts_ports(process: str) -> None:
    steps = dict(image.steps("image-gateway" if process == "gateway" else "image-stage"))
    module = "gateway" if process == "gateway" else f"services.{process}"
    try:
        deployment = render.of_kind(render.manifests(), "Deployment")["hart-" + process.replace("_", "-")]
    except ToolMissing as error:
        pytest.skip(str(error))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert [*json.loads(steps["ENTRYPOINT"]), *container.get("args", [])] == ["python", "-m", module]
    assert {str(port["containerPort"]) for port in container["ports"]} <= set(steps["EXPOSE"].split())
    assert steps["USER"].split(":")[0] == str(container["securityContext"]["runAsUser"])
