"""The kinds of metric that a process has. It defines no metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from opentelemetry.metrics import CallbackOptions, Meter, Observation


class Counter:
    """A monotonic sum, exported as `NAME_total`. Start a series with `add(0)`: Prometheus sees no increase in the first
    value of a series."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str, labels: dict[str, str]) -> None:
        self._counter = meter.create_counter(name, unit=unit, description=description)
        self._labels = labels

    def add(self, amount: float = 1, **labels: str) -> None:
        """Add to the series of these labels."""
        self._counter.add(amount, {**self._labels, **labels})


class Gauge:
    """A value that increases and decreases in steps (`add`)."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str, labels: dict[str, str]) -> None:
        self._counter = meter.create_up_down_counter(name, unit=unit, description=description)
        self._labels = labels

    def add(self, amount: float, **labels: str) -> None:
        """Add `amount` (may be negative) to the series of these labels."""
        self._counter.add(amount, {**self._labels, **labels})


class ObservedGauge:
    """A value that is read from a callback at each export."""

    def __init__(self, meter: Meter, name: str, unit: str, description: str, labels: dict[str, str]) -> None:
        self._labels = labels
        self._sources: dict[tuple[tuple[str, str], ...], Callable[[], float]] = {}
        meter.create_observable_gauge(name, callbacks=[self._read], unit=unit, description=description)

    def observe(self, source: Callable[[], float], **labels: str) -> None:
        """Read this series from `source`, which replaces an earlier one. It must be cheap and thread-safe."""
        self._sources[tuple(sorted({**self._labels, **labels}.items()))] = source

    def _read(self, _: CallbackOptions) -> Iterable[Observation]:
        return [Observation(source(), dict(labels)) for labels, source in self._sources.items()]


class Histogram:
    """A distribution, exported as `NAME_bucket`, `NAME_sum`, `NAME_count`."""

    def __init__(
        self, meter: Meter, name: str, unit: str, description: str, labels: dict[str, str], bounds: Iterable[float]
    ) -> None:
        self._histogram = meter.create_histogram(
            name, unit=unit, description=description, explicit_bucket_boundaries_advisory=list(bounds)
        )
        self._labels = labels

    def record(self, value: float, **labels: str) -> None:
        """Add one value to the series of these labels."""
        self._histogram.record(value, {**self._labels, **labels})


class ObservedInfo:
    """Facts as labels of a series with the value 1, read at each export."""

    def __init__(self, meter: Meter, name: str, description: str, labels: dict[str, str]) -> None:
        self._labels = labels
        self._sources: dict[str, Callable[[], Mapping[str, str]]] = {}
        meter.create_observable_gauge(name, callbacks=[self._read], description=description)

    def observe(self, key: str, source: Callable[[], Mapping[str, str]]) -> None:
        """Read a series' labels from `source`, which replaces an earlier one of this key. No labels: no series."""
        self._sources[key] = source

    def _read(self, _: CallbackOptions) -> Iterable[Observation]:
        found = [source() for source in self._sources.values()]
        return [Observation(1, {**self._labels, **labels}) for labels in found if labels]
