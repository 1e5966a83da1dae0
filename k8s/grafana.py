"""A Grafana dashboard from short descriptions of its panels. Knows Grafana's layout and query languages, no metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
TEMPO = {"type": "tempo", "uid": "${tempo}"}
LOKI = {"type": "loki", "uid": "${loki}"}
WIDTH, HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns."""
LEGEND = {
    "legend": {"displayMode": "table", "placement": "bottom", "showLegend": True, "calcs": ["mean", "max"]},
    "tooltip": {"mode": "multi", "sort": "desc"},
}
AT = '{namespace="$namespace",release=~"$release"'
"""The beginning of a selector, for the selected namespace and release."""
ROLLOUT = "count by (stage, digest) (hart_model_info%s}) unless count by (stage, digest) (hart_model_info%s} offset 1m)"
"""Digests of models that appeared within the last minute."""


@dataclass(frozen=True)
class Panel:
    """A graph of one or more queries."""

    title: str
    unit: str
    queries: Mapping[str, str]
    """Legend to query."""
    meaning: str
    """Its description: what it shows and how to interpret it."""
    kind: str = "timeseries"
    options: Mapping[str, Any] = field(default_factory=dict)
    source: Mapping[str, str] = field(default_factory=lambda: PROMETHEUS)
    limits: tuple[tuple[float, str], ...] = ()
    """Threshold lines: value and colour."""
    stacked: bool = False

    def at(self, number: int) -> dict[str, Any]:
        """Grafana's JSON of the panel at this position."""
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
            "fieldConfig": {"defaults": self._field(), "overrides": []},
            "options": dict(self.options) or LEGEND,
            "targets": targets,
        }

    def _field(self) -> dict[str, Any]:
        custom: dict[str, Any] = {"thresholdsStyle": {"mode": "line" if self.limits else "off"}, "fillOpacity": 10}
        if self.stacked:
            custom |= {"stacking": {"mode": "normal", "group": "A"}, "fillOpacity": 40}
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        steps += [{"color": colour, "value": value} for value, colour in self.limits]
        return {
            "unit": self.unit,
            "min": 0,
            "custom": custom,
            "thresholds": {"mode": "absolute", "steps": steps},
        }


def quantile(share: float, metric: str, more: str = "", by: str = "stage") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket{AT}{more}}}[$__rate_interval])))"


def rate(metric: str, more: str = "", by: str = "stage") -> str:
    """The per-second rate of a counter."""
    return f"sum by ({by}) (rate({metric}{AT}{more}}}[$__rate_interval]))"


def mean(metric: str, more: str = "", by: str = "stage") -> str:
    """The mean of a histogram."""
    return f"{rate(metric + '_sum', more, by)} / {rate(metric + '_count', more, by)}"


def chosen_source(kind: str) -> dict[str, Any]:
    """A data source that a reader selects at the top."""
    return {"name": kind, "label": kind.capitalize(), "type": "datasource", "query": kind}


def chosen_label(name: str, query: str) -> dict[str, Any]:
    """A label value that a reader selects at the top, from those that a query finds."""
    request = {"query": query, "refId": name}
    return {"name": name, "type": "query", "datasource": PROMETHEUS, "query": request, "refresh": 2, "sort": 1}


def chosen_release(query: str) -> dict[str, Any]:
    """A release that a reader selects at the top, or all of them, also series without a release."""
    return {**chosen_label("release", query), "includeAll": True, "allValue": ".*", "current": {"value": "$__all"}}


def rollouts() -> dict[str, Any]:
    """Marks on every graph where a stage began to serve another model."""
    marks = {"name": "Rollouts", "enable": True, "iconColor": "blue", "datasource": PROMETHEUS, "step": "60s"}
    return {**marks, "expr": ROLLOUT % (AT, AT), "titleFormat": "{{stage}}", "textFormat": "model {{digest}}"}


def dashboard(name: str, title: str, panels: Sequence[Panel], variables: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """The JSON that Grafana imports; `variables`: the selections at the top."""
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
        "templating": {"list": list(variables)},
        "annotations": {"list": [rollouts()]},
        "links": links,
        "panels": [panel.at(number) for number, panel in enumerate(panels)],
    }
