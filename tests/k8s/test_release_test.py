"""`helm test` draws an image through the gateway as its callers do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import kubernetes_validate
import pytest

from k8s import render
from k8s.tools import ToolMissing, tool
from tests.gateway.support import RunningGateway, running_gateway
from tests.k8s.chart import policies

SCRIPT = render.CHART / "files/test_release.py"


async def run(running: RunningGateway, **environment: str) -> subprocess.CompletedProcess[str]:
    """The script against a real gateway, in a process of its own."""
    where = {"ENDPOINT": f"127.0.0.1:{running.app.port}", "TLS_FOLDER": "", "KEYS_FILE": "", "TOKENS": ""}
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SCRIPT), env={**os.environ, **where, **environment}, stdout=-1, stderr=-1
    )
    out, error = await process.communicate()
    return subprocess.CompletedProcess([], process.returncode or 0, out.decode(), error.decode())


async def test_it_draws_an_image() -> None:
    async with running_gateway() as running:
        done = await run(running)
    assert done.returncode == 0, done.stderr
    assert "drew 64x64 pixels" in done.stdout


async def test_it_takes_the_first_key_of_the_secret(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("me=secret\nother=key\n")
    async with running_gateway(api_keys="me=secret") as running:
        assert (await run(running, KEYS_FILE=str(keys))).returncode == 0
        refused = await run(running)
    assert refused.returncode == 1
    assert "UNAUTHENTICATED" in refused.stderr


async def test_where_only_tokens_are_accepted_an_answer_is_enough() -> None:
    async with running_gateway(api_keys="me=secret") as running:
        assert (await run(running, TOKENS="1")).returncode == 0


async def test_it_fails_where_a_stage_is_missing() -> None:
    async with running_gateway() as running:
        await running.end(running.stage("decoder"))
        done = await run(running)
    assert done.returncode == 1
    assert "decoder" in done.stderr


@pytest.mark.parametrize("values", ["", "tls: {mode: none}", "gateway: {auth: {apiKeys: {secret: keys}}}"])
def test_its_pod_is_restricted_and_may_reach_the_gateway(values: str) -> None:
    try:
        tool("helm")
    except ToolMissing as error:
        pytest.skip(str(error))
    documents = render.manifests(values or "networkPolicy: {callersFrom: [{podSelector: {}}]}")
    (pod,) = render.of_kind(documents, "Pod").values()
    kubernetes_validate.validate(pod, "1.37", strict=True)
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
    assert pod["spec"]["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    if not values:
        labels = pod["metadata"]["labels"].items()
        peers = [p for rule in policies(documents)["gateway"]["ingress"] for p in rule.get("from", [])]
        chosen = [p["podSelector"].get("matchLabels", {}) for p in peers if "podSelector" in p]
        assert any(one and one.items() <= labels for one in chosen)
