"""Writes the Grafana dashboards of k8s/dashboards: which panels, of which metrics, and what they tell. Knows nothing of
any service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from k8s.grafana import AT, LOKI, TEMPO, Panel, chosen_label, chosen_source, dashboard, mean, quantile, rate

FOLDER = Path(__file__).resolve().parent / "chart/files/dashboards"
OBJECTIVE = ((10.0, "red"),)
"""Seconds: what the latency alerts keep to."""
LOAD = ((0.8, "orange"), (1.0, "red"))
"""What stages are scaled by, and where callers begin to wait."""
OVERVIEW = [
    Panel(
        "Pictures' calls",
        "reqps",
        {"{{code}}": rate("hart_requests_total", ',stage="gateway"', "code")},
        "Calls that ended at the gateway, by status. INVALID_ARGUMENT and CANCELLED are the callers' doing.",
    ),
    Panel(
        "Time of a call",
        "s",
        {
            f"p{int(q * 100)}": quantile(q, "hart_request_duration_seconds", ',stage="gateway"')
            for q in (0.5, 0.9, 0.99)
        },
        "At the gateway, from the first byte to the last. The objective: 99% within 10 s.",
        limits=OBJECTIVE,
    ),
    Panel(
        "Load by stage",
        "percentunit",
        {"{{stage}}": f"avg by (stage) (hart_load{AT}}})"},
        "Queued plus running cost over capacity, per replica: stages are scaled by it (to 0.8). Over 1 callers wait.",
        limits=LOAD,
    ),
    Panel(
        "Ready replicas",
        "short",
        {
            "{{stage}}": f'max by (stage) (hart_replicas{AT},state="ready"}})',
            "{{stage}}: least": f"max by (stage) (hart_replicas_min{AT}}})",
        },
        "As the gateways see them. At 0 every request ends with UNAVAILABLE. Where the least is 0 the stage may rest.",
    ),
    Panel(
        "Queues, filled",
        "percentunit",
        {"{{stage}}": f"max by (stage) (hart_queue_depth{AT}}} / hart_queue_limit{AT}}})"},
        "Of the fullest replica. At 1 it refuses.",
        limits=((0.9, "red"),),
    ),
    Panel(
        "Refused",
        "reqps",
        {"{{stage}} {{reason}}": rate("hart_shed_total", by="stage, reason")},
        "To protect the rest: a full queue, a deadline that cannot be held. A dropped preview costs no picture.",
    ),
    Panel(
        "Verdicts",
        "reqps",
        {"{{verdict}} {{policy}}": rate("hart_safety_verdicts_total", by="verdict, policy")},
        "Prompts judged. Unsafe ones are refused or replaced, as set.",
    ),
    Panel(
        "Retries by stage asked",
        "reqps",
        {"{{stage}}": rate("hart_retries_total")},
        "Attempts on another replica after one failed with UNAVAILABLE. A steady rate: a replica that comes and goes.",
    ),
    Panel(
        "Cancelled by callers",
        "reqps",
        {"{{stage}}": rate("hart_cancelled_total")},
        "Work that was ended because its caller had gone. A rise often means that answers come too late.",
    ),
]
ONE = ',stage="$stage"'
STAGE = [
    Panel(
        "Calls",
        "reqps",
        {"{{code}}": rate("hart_requests_total", ONE, "code")},
        "Calls that ended, by status. INTERNAL is a fault of the stage's own: its log has the error.",
    ),
    Panel(
        "Waiting",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_queue_duration_seconds", ONE) for q in (0.5, 0.99)},
        "In the queue, before the engine takes a request. More replicas shorten it.",
    ),
    Panel(
        "Computing",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_compute_duration_seconds", ONE) for q in (0.5, 0.99)},
        "Of a batch on the engine. It grows with batches, and with a slow or shared device.",
    ),
    Panel(
        "Load by replica",
        "percentunit",
        {"{{instance}}": f"hart_load{AT}{ONE}}}"},
        "Queued plus running cost over capacity. One far above its neighbours is slow, or is called past the gateway.",
        limits=LOAD,
    ),
    Panel(
        "Queue by replica",
        "short",
        {"{{instance}}": f"hart_queue_depth{AT}{ONE}}}", "bound {{instance}}": f"hart_queue_limit{AT}{ONE}}}"},
        "Requests that wait, and how many may. At its bound a replica refuses.",
    ),
    Panel(
        "In flight by replica",
        "short",
        {"{{instance}}": f"hart_inflight{AT}{ONE}}}"},
        "Calls being served, waiting ones included. A pod that leaves goes to 0 before it ends.",
    ),
    Panel(
        "Batch",
        "short",
        {"mean": mean("hart_batch_size", ONE), "p99": quantile(0.99, "hart_batch_size", ONE)},
        "Requests that ran together. Near 1 under load: the patience for others to join is too short.",
    ),
    Panel(
        "Seconds by scale",
        "s",
        {"scale {{scale}}": mean("hart_scale_duration_seconds", ONE, "scale")},
        "Of the generator: the last scales take most of a picture's time.",
    ),
    Panel(
        "Memory of the device",
        "bytes",
        {"{{kind}} {{instance}}": f"hart_device_memory_bytes{AT}{ONE}}}"},
        "Used and total, of the generator also what its slots take. On a CPU: of the process and the container.",
    ),
    Panel(
        "Refused",
        "reqps",
        {"{{reason}}": rate("hart_shed_total", ONE, "reason")},
        "To protect the rest, by reason.",
    ),
    Panel(
        "From the cache",
        "reqps",
        {"hits": rate("hart_cache_hits_total", ONE)},
        "Of the text encoder: prompts that it had read before.",
    ),
    Panel(
        "Bytes from the gateway",
        "Bps",
        {"to {{to}}": rate("hart_transfer_bytes_sum", ',to="$stage"', "to")},
        "Sent to this stage and received from it, all gateways together.",
    ),
]
REQUEST = [
    Panel(
        "The trace",
        "short",
        {"": "${trace}"},
        "Gateway, a client span per stage, in it queue, batch and compute, in the generator one child per scale.",
        kind="traces",
        source=TEMPO,
    ),
    Panel(
        "Its log lines",
        "short",
        {"": '{namespace="$namespace"} | json | trace_id=`${trace}`'},
        "All five processes; the audit line has caller, code and seconds, never the prompt.",
        kind="logs",
        options={"showTime": True, "wrapLogMessage": True, "sortOrder": "Ascending"},
        source=LOKI,
    ),
    Panel(
        "Where an average picture's time goes",
        "s",
        {
            "{{stage}} waits": mean("hart_queue_duration_seconds"),
            "{{stage}} computes": mean("hart_compute_duration_seconds"),
        },
        "To compare the one request with: stages one upon another.",
        stacked=True,
    ),
    Panel(
        "Scales of an average picture",
        "s",
        {"scale {{scale}}": mean("hart_scale_duration_seconds", by="scale")},
        "To compare the trace's scales with, one upon another.",
        stacked=True,
    ),
    Panel(
        "Bytes to a stage, a call",
        "bytes",
        {"to {{to}}": mean("hart_transfer_bytes", by="to")},
        "Sent and received by an average call. The decoder's answers are the picture files.",
    ),
    Panel(
        "A call at the gateway",
        "s",
        {"p50": quantile(0.5, "hart_request_duration_seconds", ',stage="gateway"')},
        "To compare the one request with: half of all calls take no longer.",
        limits=OBJECTIVE,
    ),
]
DASHBOARDS: dict[str, tuple[str, list[Panel]]] = {
    "hart-overview": ("HART: overview", OVERVIEW),
    "hart-stage": ("HART: one stage", STAGE),
    "hart-request": ("HART: one request's life", REQUEST),
}


def variables(name: str) -> Iterator[dict[str, Any]]:
    """What a reader chooses at the top."""
    sources = ["prometheus", "tempo", "loki"] if name == "hart-request" else ["prometheus"]
    for kind in sources:
        yield chosen_source(kind)
    yield chosen_label("namespace", "label_values(hart_requests_total, namespace)")
    if name == "hart-stage":
        yield chosen_label("stage", 'label_values(hart_requests_total{namespace="$namespace"}, stage)')
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
