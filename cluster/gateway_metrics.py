"""The stages that a plan's gateway reports as ready in its metrics."""

from __future__ import annotations

import http.client

from cluster.plan import Plan
from common.stages import METRICS_PORT_OFFSET


def gateway_metrics(plan: Plan, stage: str) -> bool | None:
    """Whether the gateway counts a ready replica of the stage; None where it reports nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", plan.port + METRICS_PORT_OFFSET, timeout=5)
    try:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode("utf-8", "replace").splitlines()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    counted = f'hart_replicas{{stage="{stage}",state="ready"}} '
    return next((float(line.removeprefix(counted)) > 0 for line in lines if line.startswith(counted)), None)
