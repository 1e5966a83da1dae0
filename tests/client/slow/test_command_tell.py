"""hart.cli.inspect, hart.cli.trace, hart.cli.bench: output and refusals."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.client.command import COMMAND
from tests.client.conftest import Gateway


def test_trace_draws_every_call_of_a_json_result(hart: Any) -> None:
    Path("a.json").write_text(hart("generate", "x", "--json").stdout)
    outcome = hart("trace", "a.json")
    assert outcome.exit_code == 0, outcome.output
    rows = {line.split()[0]: line for line in outcome.stdout.splitlines() if line.strip()}
    assert "wall 100.0 ms" in outcome.stdout
    for stage in ("safety", "text_encoder", "ar_generator", "decoder"):
        assert "█" in rows[stage]
    assert rows["ar_generator"].index("░") < rows["ar_generator"].index("█")
    assert rows["ar_generator"].rindex("█") <= rows["decoder"].index("█")
    piped = subprocess.run(
        [*COMMAND, "trace", "-"], input=Path("a.json").read_text(), capture_output=True, text=True, check=True
    )
    assert "decoder" in piped.stdout


def test_bench_keeps_its_rate_while_responses_are_pending(hart: Any, gateway: Gateway) -> None:
    gateway.before = lambda _: time.sleep(0.02)
    outcome = hart("bench", "--rate", 40, "--seconds", 0.5, "--arrivals", "uniform")
    assert outcome.exit_code == 0, outcome.output
    found = json.loads(outcome.stdout)
    assert found["sent"] == found["answered"] == found["images"] == 20
    ranks = [found["latency_seconds"][name] for name in ("min", "p50", "p90", "p95", "p99", "max")]
    assert ranks == sorted(ranks)
    assert {request.prompt for request in gateway.requests} == {"a red heart", "a green apple"}
    assert len({request.seed for request in gateway.requests}) == 20

    gateway.hang = True
    outcome = hart("bench", "--rate", 40, "--seconds", 0.5, "--timeout", 0.3, "--arrivals", "uniform")
    found = json.loads(outcome.stdout)
    assert found["errors"] == {"DEADLINE_EXCEEDED": 20}
    assert outcome.exit_code == 1, "no request succeeded"
    assert found["latency_seconds"] is None
