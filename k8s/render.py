"""The chart's manifests for given values, rendered by the real helm. Knows no expected content."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from k8s.tools import tool

HERE = Path(__file__).resolve().parent
CHART = HERE / "chart"
EXAMPLES = sorted((HERE / "values").glob("*.yaml"))
NAMESPACE = "pictures"
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
FOREIGN = frozenset(
    [
        "keda.sh/ScaledObject",
        "keda.sh/TriggerAuthentication",
        "monitoring.coreos.com/PodMonitor",
        "monitoring.coreos.com/PrometheusRule",
        "cert-manager.io/Certificate",
        "cert-manager.io/Issuer",
        "gateway.networking.k8s.io/GRPCRoute",
        "gateway.networking.k8s.io/BackendTLSPolicy",
    ]
)
"""Kinds of KEDA, the Prometheus operator, cert-manager and the Gateway API: not in Kubernetes' own schemas."""
Manifest = Mapping[str, Any]


class Refused(Exception):
    """helm refused; its message."""


def helm(*words: str | Path, stdin: str = "") -> str:
    """The output of helm. Raises Refused with its error."""
    done = subprocess.run([str(tool("helm")), *map(str, words)], capture_output=True, text=True, input=stdin)
    if done.returncode:
        raise Refused(done.stderr.strip())
    return done.stdout


@lru_cache(maxsize=64)
def text(values: str = "", *files: Path, version: str = "") -> str:
    """All manifests as YAML; `values` (YAML) take precedence over the files. `version`: of Kubernetes."""
    chosen = [word for file in files for word in ("-f", str(file))]
    words: list[str | Path] = ["template", "hart", CHART, "--namespace", NAMESPACE, *chosen, "-f", "-"]
    return helm(*words, *(["--kube-version", version] if version else []), stdin=values)


@lru_cache(maxsize=64)
def manifests(values: str = "", *files: Path, version: str = "") -> tuple[Manifest, ...]:
    """All manifests, parsed."""
    documents = yaml.load_all(text(values, *files, version=version), Loader=LOADER)
    return tuple(document for document in documents if document)


def of_kind(documents: Iterable[Manifest], kind: str) -> dict[str, Any]:
    """The manifests of a kind, by name."""
    return {d["metadata"]["name"]: d for d in documents if d["kind"] == kind}


def group_kind(document: Manifest) -> str:
    """ "keda.sh/ScaledObject": API group and kind."""
    return f"{document['apiVersion'].rpartition('/')[0]}/{document['kind']}"
