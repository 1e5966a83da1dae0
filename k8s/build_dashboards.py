"""Writes the Grafana dashboards of k8s/dashboards from short descriptions of their panels. Knows the metrics' names and
Grafana's layout, nothing of any service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent / "chart/files/dashboards"
PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
WIDTH, HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns."""
AT = '{namespace="$namespace"'


@dataclass(frozen=True)
class Panel:
    """A graph of one or more queries."""

    title: str
    unit: str
    queries: Mapping[str, str]
    """Legend to query."""
    meaning: str = ""
    kind: str = "timeseries"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=lambda: PROMETHEUS)

    def at(self, number: int) -> dict[str, Any]:
        """As Grafana has it, in the given place."""
        place = {"x": number % 3 * WIDTH, "y": number // 3 * HEIGHT, "w": WIDTH, "h": HEIGHT}
        targets = [
            {"refId": chr(ord("A") + n), "datasource": self.source, "legendFormat": legend}
            | ({"expr": query} if self.source is not TEMPO else {"query": query, "queryType": "traceql"})
            for n, (legend, query) in enumerate(self.queries.items())
        ]
        return {
            "id": number + 1,
            "type": self.kind,
            "title": self.title,
            "description": self.meaning,
            "datasource": self.source,
            "gridPos": place,
            "fieldConfig": {"defaults": {"unit": self.unit, "min": 0}, "overrides": []},
            "options": dict(self.options),
            "targets": targets,
        }


TEMPO = {"type": "tempo", "uid": "${tempo}"}
LOKI = {"type": "loki", "uid": "${loki}"}


def quantile(share: float, metric: str, more: str = "", by: str = "stage") -> str:
    """Of a histogram."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{AT}{more}}}[$__rate_interval])))"


def rate(metric: str, more: str = "", by: str = "stage") -> str:
    """Of a counter, a second."""
    return f"sum by ({by}) (rate({metric}{AT}{more}}}[$__rate_interval]))"


def mean(metric: str, more: str = "", by: str = "stage") -> str:
    """Of a histogram."""
    return f"{rate(metric + '_sum', more, by)} / {rate(metric + '_count', more, by)}"


OVERVIEW = [
    Panel("Pictures' calls", "reqps", {"{{code}}": rate("hart_requests_total", ',stage="gateway"', "code")}),
    Panel(
        "Time of a call",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_request_seconds", ',stage="gateway"') for q in (0.5, 0.9, 0.99)},
        "At the gateway, from the first byte to the last. The objective: 99% within 10 s.",
    ),
    Panel(
        "Load by stage",
        "percentunit",
        {"{{stage}}": f"avg by (stage) (hart_load{AT}}})"},
        "Queued plus running cost over capacity, per replica: what stages are scaled by (target 0.8).",
    ),
    Panel("Ready replicas", "short", {"{{stage}}": f'max by (stage) (hart_replicas{AT},state="ready"}})'}),
    Panel(
        "Queues, filled",
        "percentunit",
        {"{{stage}}": f"max by (stage) (hart_queue_depth{AT}}} / hart_queue_limit{AT}}})"},
        "Of the fullest replica. At 1 it refuses.",
    ),
    Panel("Refused", "reqps", {"{{stage}} {{reason}}": rate("hart_shed_total", by="stage, reason")}),
    Panel("Verdicts", "reqps", {"{{verdict}} {{policy}}": rate("hart_safety_verdicts_total", by="verdict, policy")}),
    Panel("Retries by stage asked", "reqps", {"{{stage}}": rate("hart_retries_total")}),
    Panel("Cancelled by callers", "reqps", {"{{stage}}": rate("hart_cancelled_total")}),
]
ONE = ',stage="$stage"'
STAGE = [
    Panel("Calls", "reqps", {"{{code}}": rate("hart_requests_total", ONE, "code")}),
    Panel(
        "Waiting",
        "s",
        {f"p{int(q * 100)}": quantile(q, "hart_queue_seconds", ONE) for q in (0.5, 0.99)},
        "In the queue, before the engine takes a request.",
    ),
    Panel("Computing", "s", {f"p{int(q * 100)}": quantile(q, "hart_compute_seconds", ONE) for q in (0.5, 0.99)}),
    Panel("Load by replica", "percentunit", {"{{instance}}": f"hart_load{AT}{ONE}}}"}),
    Panel(
        "Queue by replica",
        "short",
        {"{{instance}}": f"hart_queue_depth{AT}{ONE}}}", "bound {{instance}}": f"hart_queue_limit{AT}{ONE}}}"},
    ),
    Panel("In flight by replica", "short", {"{{instance}}": f"hart_inflight{AT}{ONE}}}"}),
    Panel("Batch", "short", {"mean": mean("hart_batch_size", ONE), "p99": quantile(0.99, "hart_batch_size", ONE)}),
    Panel(
        "Seconds by scale",
        "s",
        {"scale {{scale}}": mean("hart_scale_seconds", ONE, "scale")},
        "Of the generator: the last scales take most of a picture's time.",
    ),
    Panel(
        "Memory of the device",
        "bytes",
        {"{{kind}} {{instance}}": f"hart_device_memory_bytes{AT}{ONE}}}"},
    ),
    Panel("Refused", "reqps", {"{{reason}}": rate("hart_shed_total", ONE, "reason")}),
    Panel("From the cache", "reqps", {"hits": rate("hart_cache_hits_total", ONE)}),
    Panel(
        "Bytes from the gateway",
        "Bps",
        {"to {{to}}": rate("hart_transfer_bytes_sum", ',to="$stage"', "to")},
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
            "{{stage}} waits": mean("hart_queue_seconds"),
            "{{stage}} computes": mean("hart_compute_seconds"),
        },
        "To compare the one request with: stages one upon another.",
    ),
    Panel("Scales of an average picture", "s", {"scale {{scale}}": mean("hart_scale_seconds", by="scale")}),
    Panel("Bytes to a stage, a call", "bytes", {"to {{to}}": mean("hart_transfer_bytes", by="to")}),
    Panel("A call at the gateway", "s", {"p50": quantile(0.5, "hart_request_seconds", ',stage="gateway"')}),
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
        yield {"name": kind, "label": kind.capitalize(), "type": "datasource", "query": kind}
    yield _label("namespace", "label_values(hart_requests_total, namespace)")
    if name == "hart-stage":
        yield _label("stage", 'label_values(hart_requests_total{namespace="$namespace"}, stage)')
    if name == "hart-request":
        yield {"name": "trace", "label": "Trace id", "type": "textbox", "query": ""}


def _label(name: str, query: str) -> dict[str, Any]:
    asked = {"query": query, "refId": name}
    return {"name": name, "type": "query", "datasource": PROMETHEUS, "query": asked, "refresh": 2, "sort": 1}


def dashboard(name: str) -> dict[str, Any]:
    """One dashboard as Grafana imports it."""
    title, panels = DASHBOARDS[name]
    links = [{"title": "HART", "type": "dashboards", "tags": ["hart"], "keepTime": True, "includeVars": True}]
    return {
        "uid": name,
        "title": title,
        "tags": ["hart"],
        "schemaVersion": 39,
        "editable": True,
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": list(variables(name))},
        "links": links,
        "panels": [panel.at(number) for number, panel in enumerate(panels)],
    }


def text(name: str) -> str:
    """The file's content."""
    return json.dumps(dashboard(name), indent=1) + "\n"


def main() -> int:
    """Write the files."""
    for name in DASHBOARDS:
        (FOLDER / f"{name}.json").write_text(text(name))
    return 0


if __name__ == "__main__":
    sys.exit(main())
