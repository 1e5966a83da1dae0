"""`make k8s-check`: checks of the chart, the rules and the container images that need no Kubernetes cluster.

Prints a line per check; exit code 1 if one fails. tests/k8s check the chart's content."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate

from k8s import foreign, proof, render
from k8s.tools import tool

VERSIONS = ("1.31", "1.34", "1.35", "1.36", "1.37")
"""Of Kubernetes: from the oldest that the chart supports to the newest."""
ROOT = Path(__file__).resolve().parent.parent
FROM_ZERO = "{defaults: {autoscaling: {kind: keda, trigger: gateway, minReplicas: 0}}}"
RULES = sorted((ROOT / "k8s/alerts").glob("*.yaml"))
RULE_TESTS = sorted((ROOT / "tests/k8s").glob("*_test.yaml"))


class Failed(Exception):
    """A check failed; the message says how."""


def lint() -> str:
    """helm lint --strict, with the default values and with each example."""
    for example in [None, *render.EXAMPLES]:
        chosen: list[str | Path] = ["-f", example] if example else []
        render.helm("lint", "--strict", render.CHART, *chosen)
    return f"default values and {len(render.EXAMPLES)} examples"


def schemas() -> str:
    """Every manifest of every example against the schemas of several Kubernetes versions."""
    counted: Counter[str] = Counter()
    for version in VERSIONS:
        for example in render.EXAMPLES:
            for document in render.manifests("", example, version=f"{version}.0"):
                if render.group_kind(document) in render.FOREIGN:  # see foreign_kinds
                    continue
                name = f"{example.name}, {document['kind']} {document['metadata']['name']}, Kubernetes {version}"
                try:
                    kubernetes_validate.validate(document, version, strict=True)
                except kubernetes_validate.ValidationError as error:
                    raise Failed(f"{name}: {error.message}") from error
                counted["valid"] += 1
    return f"{counted['valid']} manifests for {', '.join(VERSIONS)}"


def foreign_kinds() -> str:
    """Every manifest of a kind of KEDA, Gateway API, cert-manager or the Prometheus operator against its own schema."""
    chosen = {example.name: render.manifests("", example) for example in render.EXAMPLES}
    chosen["from zero"] = render.manifests(FROM_ZERO)
    found = {
        f"{name}, {document['kind']} {document['metadata']['name']}": document
        for name, documents in chosen.items()
        for document in documents
        if render.group_kind(document) in render.FOREIGN
    }
    kinds = Counter(document["kind"] for document in found.values())
    if missing := {kind.partition("/")[2] for kind in render.FOREIGN} - set(kinds):
        raise Failed(f"no example has a {', '.join(sorted(missing))}")
    try:
        foreign.validate(found)
    except foreign.Invalid as error:
        raise Failed(str(error)) from error
    except foreign.Unchecked as error:
        return f"NOT CHECKED: {error}"
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def kubectl() -> str:
    """The real kubectl parses every manifest, locally, without a cluster."""
    total = 0
    for example in render.EXAMPLES:
        expected = len(render.manifests("", example))
        words = [str(tool("kubectl")), "label", "--local", "-f", "-", "read=yes", "-o", "name"]
        done = subprocess.run(words, input=render.text("", example), capture_output=True, text=True)
        found = len(done.stdout.split())
        if done.returncode or found != expected:
            raise Failed(f"{example.name}: kubectl reads {found} of {expected}: {done.stderr.strip()[-500:]}")
        total += found
    return f"{total} manifests"


def misspelt() -> str:
    """helm refuses values that do not exist, by name."""
    wrong = {
        "stages: {decoder: {replcas: 2}}": "replcas",
        "stages: {decoders: {replicas: 2}}": "decoders",
        "stages: {ar_generator: {settings: {max_queued_request: 2}}}": "max_queued_request",
        "gateway: {ingres: {enabled: true}}": "ingres",
        "telemetry: {otlpendpoint: 'http://a:1'}": "otlpendpoint",
    }
    for values, name in wrong.items():
        try:
            render.text(values)
        except render.Refused as refusal:
            if f"'{name}' not allowed" not in str(refusal):
                raise Failed(f"{values}: refused without the name {name}: {refusal}") from refusal
        else:
            raise Failed(f"{values}: accepted")
    return ", ".join(wrong.values())


def policies() -> str:
    """checkov over every example; exceptions are annotated in the chart, with the reason."""
    passed = 0
    skipped: set[str] = set()
    with tempfile.TemporaryDirectory() as folder:
        for example in render.EXAMPLES:
            (Path(folder) / example.name).write_text(render.text("", example))
        words = [str(tool("checkov")), "-d", folder, "--framework", "kubernetes", "--skip-download"]
        done = subprocess.run([*words, "-o", "json", "--compact"], capture_output=True, text=True)
    try:
        report = json.loads(done.stdout)
    except ValueError as error:
        raise Failed(f"checkov: {done.stderr.strip()[-500:] or done.stdout[-500:]}") from error
    results = report["results"]
    failed = sorted({f"{c['check_id']} {c['check_name']}: {c['resource']}" for c in results["failed_checks"]})
    if failed:
        raise Failed("\n    ".join([f"{len(failed)} findings:", *failed]))
    passed = report["summary"]["passed"]
    skipped = {c["check_id"] for c in results["skipped_checks"]}
    if passed < 100:
        raise Failed(f"checkov ran only {passed} checks")
    return f"{passed} passed, 0 failed; excepted in the chart: {', '.join(sorted(skipped))}"


def dockerfile() -> str:
    """hadolint, no finding."""
    done = subprocess.run([str(tool("hadolint")), ROOT / "Dockerfile"], capture_output=True, text=True)
    if done.returncode:
        raise Failed(done.stdout.strip())
    return "no finding"


def engine() -> str:
    """docker buildx and docker compose read the bake file and the compose files, where they are installed."""
    said = []
    compose = ["-f", "deploy/compose/compose.yaml"]
    for name, words in {
        "bake": ["buildx", "bake", "--print"],
        "compose": ["compose", *compose, "config", "--quiet"],
        "compose with a GPU": ["compose", *compose, "-f", "deploy/compose/gpu.yaml", "config", "--quiet"],
    }.items():
        if not _has(words[0]):
            said.append(f"{name} NOT CHECKED: docker {words[0]} is not installed here")
            continue
        done = subprocess.run([str(shutil.which("docker")), *words], cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"docker {' '.join(words)}: {done.stderr.strip()[-1000:]}")
        said.append(f"{name} read")
    return "; ".join(said)


def _has(plugin: str) -> bool:
    docker = shutil.which("docker")
    return bool(docker) and subprocess.run([str(docker), plugin, "version"], capture_output=True).returncode == 0


def rules() -> str:
    """promtool: the alert rules parse, and fire exactly when expected."""
    for words in (["check", "rules", *RULES], ["test", "rules", *RULE_TESTS]):
        done = subprocess.run([str(tool("promtool")), *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise Failed((done.stdout + done.stderr).strip())
    return "parsed, and tested"


CHECKS: dict[str, Callable[[], str]] = {
    "helm lint": lint,
    "schemas": schemas,
    "foreign kinds": foreign_kinds,
    "kubectl": kubectl,
    "misspelt values": misspelt,
    "checkov": policies,
    "hadolint": dockerfile,
    "bake and compose": engine,
    "promtool": rules,
    "gateway image": proof.gateway,
    "stage image, cpu": proof.stages,
    "stage image, gpu": proof.gpu,
}


def main() -> int:
    """Run the checks that the command line names, or all; return the exit code."""
    wrong = 0
    parser = argparse.ArgumentParser(
        prog="python -m k8s.check", description="Check the chart, the rules and the container images."
    )
    parser.add_argument(
        "checks", nargs="*", metavar="CHECK", help=f"one of {', '.join(map(repr, CHECKS))}; all if none"
    )
    chosen = parser.parse_args().checks
    if unknown := [name for name in chosen if name not in CHECKS]:
        parser.error(f"{unknown[0]!r}: expected {', '.join(map(repr, CHECKS))}")
    for name, check in CHECKS.items():
        if chosen and name not in chosen:
            continue
        try:
            print(f"{name}: {check()}", flush=True)
        except Exception as error:
            wrong += 1
            print(f"{name}: FAILED: {error}", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
