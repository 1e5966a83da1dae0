"""Writes the Grafana dashboards of k8s/dashboards: their panels, metrics and descriptions. Knows no service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k8s.build_usage import USAGE
from k8s.grafana import (
    AT,
    LOKI,
    TEMPO,
    Panel,
    chosen_label,
    chosen_release,
    chosen_source,
    dashboard,
    mean,
    quantile,
    rate,
)

FOLDER = Path(__file__).resolve().parent / "chart/files/dashboards"
OBJECTIVE = ((10.0, "red"),)
"""Seconds: the objective of the latency alerts."""
LOAD = ((0.8, "orange"), (1.0, "red"))
"""The autoscalers' target, and the load above which requests wait."""
OVERVIEW = [
    Panel(
        "Gateway calls",
        "reqps",
        {"{{code}}": rate("hart_requests_total", ',stage="gateway"', "code")},
        "Finished calls at the gateway, by status. INVALID_ARGUMENT and CANCELLED are caused by callers.",
    ),
    Panel(
        "Call duration",
        "s",
        {
            f"p{int(q * 100)}": quantile(q, "hart_request_duration_seconds", ',stage="gateway"')
            for q in (0.5, 0.9, 0.99)
        },
        "At the gateway, from the first byte to the last, failed calls included. Objective: 99% with OK within 10 s.",
        limits=OBJECTIVE,
    ),
    Panel(
        "Load by stage",
        "percentunit",
        {"{{stage}}": f"avg by (stage) (hart_load{AT}}})"},
        "Queued plus running cost over capacity, mean of replicas. Autoscalers keep it at 0.8; above 1 requests wait.",
        limits=LOAD,
    ),
    Panel(
        "Ready replicas",
        "short",
        {
            "{{stage}}": f'max by (stage) (hart_replicas{AT},state="ready"}})',
            "{{stage}}: min": f"max by (stage) (hart_replicas_min{AT}}})",
        },
        "As the gateways see them. At 0 every request ends with UNAVAILABLE. Min 0: the stage may scale to zero.",
    ),
    Panel(
        "Queue fill level",
        "percentunit",
        {"{{stage}}": f"max by (stage) (hart_queue_depth{AT}}} / hart_queue_limit{AT}}})"},
        "Of the fullest replica. At 1 it refuses requests.",
        limits=((0.9, "red"),),
    ),
    Panel(
        "Refused requests",
        "reqps",
        {"{{stage}} {{reason}}": rate("hart_shed_total", by="stage, reason")},
        "By reason: a full queue, a deadline that cannot be met. A dropped preview does not affect its image.",
    ),
    Panel(
        "Safety verdicts",
        "reqps",
        {"{{verdict}} {{policy}}": rate("hart_safety_verdicts_total", by="verdict, policy")},
        "Checked prompts. Unsafe ones are refused or replaced, by the setting HART_UNSAFE_ACTION.",
    ),
    Panel(
        "Retries by stage",
        "reqps",
        {"{{stage}}": rate("hart_retries_total")},
        "Attempts on another replica after UNAVAILABLE. A steady rate means that a replica fails repeatedly.",
    ),
    Panel(
        "Cancelled by callers",
        "reqps",
        {"{{stage}}": rate("hart_cancelled_total")},
        "Work that ended because its caller cancelled. A rise often means that answers are too slow.",
    ),
]
ONE = ',stage="$stage"'
STAGE = [
    Panel(
        "Calls",
        "reqps",
        {"{{code}}": rate("hart_requests_total", ONE, "code")},
        "Finished calls, by status. INTERNAL is a fault of the stage: its log has the error.",
    ),
    Panel(
        "Queue time",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_queue_duration_seconds", ONE) for q in (0.5, 0.99)},
        "From arrival until the device thread takes a request. More replicas shorten it.",
    ),
    Panel(
        "Compute time",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_compute_duration_seconds", ONE) for q in (0.5, 0.99)},
        "Of a batch on the device. It grows with the batch, and on a slow or shared device.",
    ),
    Panel(
        "Load by replica",
        "percentunit",
        {"{{instance}}": f"hart_load{AT}{ONE}}}"},
        "Queued plus running cost over capacity. One far above the others is slow, or gets calls past the gateway.",
        limits=LOAD,
    ),
    Panel(
        "Queue by replica",
        "short",
        {"{{instance}}": f"hart_queue_depth{AT}{ONE}}}", "limit {{instance}}": f"hart_queue_limit{AT}{ONE}}}"},
        "Waiting requests and their limit. At the limit a replica refuses requests.",
    ),
    Panel(
        "In flight by replica",
        "short",
        {"{{instance}}": f"hart_inflight{AT}{ONE}}}"},
        "Calls in progress, waiting ones included. A draining pod goes to 0 before it exits.",
    ),
    Panel(
        "Batch size",
        "short",
        {"mean": mean("hart_batch_size", ONE), "p99": quantile(0.99, "hart_batch_size", ONE)},
        "Requests per batch. Near 1 under load: HART_BATCH_WAIT_TIMEOUT_SECONDS is too short.",
    ),
    Panel(
        "Duration by scale",
        "s",
        {"scale {{scale}}": mean("hart_scale_duration_seconds", ONE, "scale")},
        "Of the generator: the last scales take most of an image's time.",
    ),
    Panel(
        "Device memory",
        "bytes",
        {"{{kind}} {{instance}}": f"hart_device_memory_bytes{AT}{ONE}}}"},
        "Used (as the device reports it), allocated (by the process) and total; for the generator also its KV cache.",
    ),
    Panel(
        "Refused",
        "reqps",
        {"{{reason}}": rate("hart_shed_total", ONE, "reason")},
        "Requests that the stage refused, by reason.",
    ),
    Panel(
        "Cache hits",
        "reqps",
        {"hits": rate("hart_cache_hits_total", ONE)},
        "Of the text encoder: prompts that it had encoded before.",
    ),
    Panel(
        "Bytes between gateway and stage",
        "Bps",
        {"to {{to}}": rate("hart_transfer_bytes_sum", ',to="$stage"', "to")},
        "Sent to this stage and received from it, sum of all gateways.",
    ),
]
REQUEST = [
    Panel(
        "Trace",
        "short",
        {"": "${trace}"},
        "The gateway, a client span per stage with queue, batch and compute; in the generator one child per scale.",
        kind="traces",
        source=TEMPO,
    ),
    Panel(
        "Log lines",
        "short",
        {"": '{namespace="$namespace"} | json | trace_id=`${trace}`'},
        "Of all five processes; the audit line has caller, code and seconds, never the prompt.",
        kind="logs",
        options={"showTime": True, "wrapLogMessage": True, "sortOrder": "Ascending"},
        source=LOKI,
    ),
    Panel(
        "Time of an average image by stage",
        "s",
        {
            "{{stage}} queue": mean("hart_queue_duration_seconds"),
            "{{stage}} compute": mean("hart_compute_duration_seconds"),
        },
        "For comparison with this request; stages are stacked.",
        stacked=True,
    ),
    Panel(
        "Time of an average image by scale",
        "s",
        {"scale {{scale}}": mean("hart_scale_duration_seconds", by="scale")},
        "For comparison with the trace's scales; scales are stacked.",
        stacked=True,
    ),
    Panel(
        "Bytes per call by stage",
        "bytes",
        {"to {{to}}": mean("hart_transfer_bytes", by="to")},
        "Sent and received by an average call. The decoder's answers are the image files.",
    ),
    Panel(
        "Median call at the gateway",
        "s",
        {"p50": quantile(0.5, "hart_request_duration_seconds", ',stage="gateway"')},
        "For comparison with this request: half of all calls take no longer.",
        limits=OBJECTIVE,
    ),
]
DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "hart-overview": ("HART: overview", OVERVIEW),
    "hart-stage": ("HART: one stage", STAGE),
    "hart-request": ("HART: one request", REQUEST),
    "hart-usage": ("HART: use and cost", USAGE),
}


def variables(name: str) -> Iterator[dict[str, Any]]:
    """The variables that a reader selects at the top."""
    sources = ["prometheus", "tempo", "loki"] if name == "hart-request" else ["prometheus"]
    for kind in sources:
        yield chosen_source(kind)
    yield chosen_label("namespace", "label_values(hart_requests_total, namespace)")
    yield chosen_release('label_values(hart_requests_total{namespace="$namespace"}, release)')
    if name == "hart-stage":
        yield chosen_label("stage", 'label_values(hart_requests_total{namespace="$namespace"}, stage)')
    if name == "hart-usage":
        yield {"name": "gpu_hour", "label": "Price per GPU-hour", "type": "textbox", "query": "2.5"}
    if name == "hart-request":
        yield {"name": "trace", "label": "Trace id", "type": "textbox", "query": ""}


def text(name: str) -> str:
    """The file's content."""
    title, panels = DASHBOARDS[name]
    return json.dumps(dashboard(name, title, panels, variables(name)), indent=1) + "\n"


def main() -> int:
    """Write the files."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
