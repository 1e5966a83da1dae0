"""`make k8s-live`: the chart on a real Kubernetes API server, from install to uninstall, in a namespace of its own.

KUBECONFIG names a cluster, or KUBEBUILDER_ASSETS a folder with etcd and kube-apiserver, which are then started here.
Without both it prints NOT CHECKED. No pod has to run: the API server's admission, defaults and conflicts are what is
checked. The namespace enforces the Pod Security Standard "restricted"."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from k8s import apiserver, render
from k8s.tools import tool

NAMESPACE = f"hart-live-{os.getpid()}"
VALUES = Path(__file__).resolve().parent / "values/laptop.yaml"
RELEASE = "hart"
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:{RELEASE}-gateway"
MAY = {("list", "endpointslices"): True, ("watch", "endpointslices"): True, ("list", "secrets"): False}
"""What the gateway's account may do."""


class Failed(Exception):
    """A step failed; the message has what the program printed."""


class Cluster:
    """An API server, by its kubeconfig file."""

    def __init__(self, kubeconfig: str) -> None:
        self._kubeconfig = kubeconfig

    def run(self, program: str, *words: str | Path, stdin: str = "") -> str:
        """The output of helm or kubectl. Raises Failed."""
        environment = {**os.environ, "KUBECONFIG": self._kubeconfig}
        command = [str(tool(program)), *map(str, words)]
        done = subprocess.run(command, env=environment, input=stdin, capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{program} {' '.join(map(str, words))}: {done.stderr.strip()[-1500:]}")
        return done.stdout

    def kubectl(self, *words: str | Path, stdin: str = "") -> str:
        """The output of kubectl in the namespace."""
        return self.run("kubectl", "-n", NAMESPACE, *words, stdin=stdin)

    def helm(self, *words: str | Path) -> str:
        """The output of helm in the namespace."""
        return self.run("helm", "-n", NAMESPACE, *words)


def life(cluster: Cluster) -> Iterator[str]:
    """Install, upgrade, roll back, uninstall; a line per step. Raises Failed."""
    chart: tuple[str | Path, ...] = (RELEASE, render.CHART, "-f", VALUES)
    cluster.helm("install", *chart, "--dry-run=server")
    yield "dry run accepted by the server"
    cluster.helm("install", *chart)
    installed = _objects(cluster)
    yield f"installed {len(installed)} objects under the restricted Pod Security Standard"
    for (verb, resource), expected in MAY.items():
        said = _may(cluster, verb, resource)
        if said is not expected:
            raise Failed(f"the gateway's account may {'' if said else 'not '}{verb} {resource}")
    yield "the gateway's account may list and watch EndpointSlices, and no Secret"
    cluster.helm("upgrade", *chart, "--set", "defaults.replicas=2", "--set", "telemetry.logLevel=DEBUG")
    if cluster.kubectl("get", "deployment", f"{RELEASE}-decoder", "-o", "jsonpath={.spec.replicas}") != "2":
        raise Failed("an upgrade did not change the replicas")
    yield "upgraded"
    cluster.helm("rollback", RELEASE, "1")
    if cluster.kubectl("get", "deployment", f"{RELEASE}-decoder", "-o", "jsonpath={.spec.replicas}") != "1":
        raise Failed("a rollback did not change the replicas back")
    yield "rolled back"
    cluster.helm("uninstall", RELEASE)
    if left := _objects(cluster):
        raise Failed(f"uninstall left {', '.join(left)}")
    yield "uninstalled, nothing left"


def _may(cluster: Cluster, verb: str, resource: str) -> bool:
    group = ".discovery.k8s.io" if resource == "endpointslices" else ""
    try:
        return cluster.kubectl("auth", "can-i", verb, resource + group, "--as", ACCOUNT).strip() == "yes"
    except Failed:  # kubectl exits with 1 for "no"
        return False


def _objects(cluster: Cluster) -> list[str]:
    """The release's objects."""
    kinds = sorted({d["kind"].lower() for d in render.manifests("", VALUES)} - {"pod"})
    label = f"app.kubernetes.io/instance={RELEASE}"
    found = json.loads(cluster.kubectl("get", ",".join(kinds), "-l", label, "-o", "json"))["items"]
    return [f"{one['kind']}/{one['metadata']['name']}" for one in found]


@contextmanager
def namespace(cluster: Cluster) -> Iterator[None]:
    """A namespace that enforces the restricted Pod Security Standard."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    manifest = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": labels}}
    cluster.run("kubectl", "create", "-f", "-", stdin=json.dumps(manifest))
    try:
        yield
    finally:
        cluster.run("kubectl", "delete", "namespace", NAMESPACE, "--wait=false")


def main() -> int:
    """Check, or print why not; the exit code."""
    kubeconfig, assets = os.environ.get("KUBECONFIG", ""), os.environ.get("KUBEBUILDER_ASSETS", "")
    if not kubeconfig and not assets:
        print("NOT CHECKED: no API server here: set KUBECONFIG or KUBEBUILDER_ASSETS")
        return 0
    try:
        with tempfile.TemporaryDirectory() as folder:
            started = apiserver.running(Path(assets), Path(folder)) if not kubeconfig else apiserver.given(kubeconfig)
            with started as config:
                cluster = Cluster(config)
                with namespace(cluster):
                    for line in life(cluster):
                        print(line, flush=True)
    except (Failed, apiserver.NotStarted) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
