"""The HTTP API of a cluster on one machine (cluster.plan)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.plan import Plan, PlanError
from common.stages import HTTP_PORT_OFFSET


def test_the_gateway_alone_serves_http_3000_above_its_own_port(tmp_path: Path) -> None:
    plan = Plan.from_environment(1234, tmp_path, environment={})
    served = [process for process in plan.processes if "HART_HTTP_PORT" in process.settings]
    assert [process.name for process in served] == ["gateway"]
    assert served[0].settings["HART_HTTP_PORT"] == str(1234 + HTTP_PORT_OFFSET) == str(served[0].http_port)
    assert plan.http_url == "http://127.0.0.1:4234"


def test_a_port_of_the_environment_wins_and_tls_is_seen_in_the_url(tmp_path: Path) -> None:
    environment = {"HART_HTTP_PORT": "8000", "HART_TLS_CERT": "cert.pem"}
    assert Plan.from_environment(None, tmp_path, environment=environment).http_url == "https://127.0.0.1:8000"


@pytest.mark.parametrize("value", ["", "0", "x", "65536"])
def test_an_http_port_that_is_none_is_refused_by_name(value: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"HART_HTTP_PORT={value}"):
        Plan.from_environment(None, tmp_path, environment={"HART_HTTP_PORT": value})
