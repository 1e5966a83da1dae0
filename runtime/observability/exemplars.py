"""The scrape's metrics with exemplars: OpenTelemetry's exporter for Prometheus drops them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
from prometheus_client import CollectorRegistry
from prometheus_client.core import Exemplar, Metric
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector

Labels = frozenset[tuple[str, str]]
Found = Mapping[Labels, list[tuple[float, Exemplar]]]


class ExemplarReader(PrometheusMetricReader):
    """Exports the meters' values to `registry`, histograms with the exemplars of their buckets."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._exemplars: Found = {}
        inner = CollectorRegistry()
        # The reader's defaults would add otel_scope_* labels to every series and a target_info series.
        super().__init__(disable_target_info=True, scope_info_enabled=False, registry=inner)
        registry.register(_WithExemplars(inner, lambda: self._exemplars))

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> None:
        points = [
            (metric.name, point)
            for resource in metrics_data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
            if isinstance(point, HistogramDataPoint) and point.exemplars
        ]
        self._exemplars = {_key(name, point.attributes or {}): _exemplars(point) for name, point in points}
        super()._receive_metrics(metrics_data, timeout_millis, **kwargs)


def _key(name: str, labels: Mapping[str, Any]) -> Labels:
    """A series: its metric and its labels, empty ones left out."""
    words = {key.replace(".", "_"): str(value) for key, value in labels.items() if value != ""}
    return frozenset({**words, "__name__": name.replace(".", "_")}.items())


def _exemplars(point: HistogramDataPoint) -> list[tuple[float, Exemplar]]:
    return [
        (one.value, Exemplar({"trace_id": f"{one.trace_id:032x}", "span_id": f"{one.span_id:016x}"}, one.value, at))
        for one in point.exemplars
        if one.trace_id and one.span_id
        for at in (one.time_unix_nano / 1e9,)
    ]


class _WithExemplars(Collector):
    def __init__(self, inner: CollectorRegistry, found: Any) -> None:
        self._inner = inner
        self._found = found

    def describe(self) -> Iterable[Metric]:
        """Nothing: names are known at the first scrape."""
        return []

    def collect(self) -> Iterable[Metric]:
        """The families, each bucket with the exemplar that fell into it."""
        for family in list(self._inner.collect()):
            if isinstance(family, HistogramMetricFamily):
                self._attach(family, self._found())
            yield family

    @staticmethod
    def _attach(family: HistogramMetricFamily, found: Found) -> None:
        floors: dict[Labels, float] = {}
        for number, sample in enumerate(family.samples):
            if not sample.name.endswith("_bucket"):
                continue
            labels = {key: value for key, value in sample.labels.items() if key != "le"}
            key, ceiling = _series(family.name, labels, found), float(sample.labels["le"])
            floor = floors.get(key, float("-inf"))
            floors[key] = ceiling
            inside = [exemplar for value, exemplar in found.get(key, ()) if floor < value <= ceiling]
            if inside:
                family.samples[number] = sample._replace(exemplar=inside[-1])


def _series(name: str, labels: Mapping[str, str], found: Found) -> Labels:
    """The key of an exported series. The exporter may have added a unit to its name."""
    key = _key(name, labels)
    if key in found:
        return key
    shorter = _key(name.rpartition("_")[0], labels)
    return shorter if shorter in found else key
