"""How long scales and pictures take, from what was measured lately. Knows scales and seconds alone."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.work.estimator import Estimator

MEMORY_SECONDS = 600.0


class ScaleTimeEstimator(Estimator):
    """An estimator whose unit of cost is a picture, fed scale by scale.

    `throughput` comes from whole pictures, each with its share of the batches that it ran in (`observe`); `fastest` and
    `typical` add up what the scales of a single picture take, since it cannot have two of them at the same time.
    """

    def __init__(self, scales: int) -> None:
        super().__init__()
        self._scales = [Estimator(memory=MEMORY_SECONDS) for _ in range(scales)]

    def observe_warm_up(self, measured: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Note what each scale took: (pictures, seconds), one picture alone first."""
        for scale, found in enumerate(measured):
            for pictures, seconds in found:
                self.observe_scale(scale, pictures, seconds)
        self.observe(1.0, sum(found[0][1] for found in measured))

    def observe_scale(self, scale: int, pictures: int, seconds: float) -> None:
        """Note that `pictures` in one batch took `seconds` for this scale."""
        self._scales[scale].observe(pictures, seconds)

    def remaining(self, scale: int = 0) -> float:
        """The least time that a picture can be expected to take from this scale on; 0 where nothing is known."""
        return sum(one.fastest(1.0) for one in self._scales[scale:])

    def fastest(self, cost: float) -> float:
        """Of a whole picture: pictures at the same time make none of them faster."""
        return self.remaining()

    def typical(self, cost: float) -> float:
        """Of a whole picture alone."""
        return sum(self.by_scale())

    def by_scale(self) -> list[float]:
        """Mean seconds of each scale of one picture alone, as far as it is known."""
        return [one.typical(1.0) for one in self._scales]

    def tables(self) -> list[dict[int, float]]:
        """Per scale, mean seconds of a batch by its size, for the sizes measured lately."""
        return [one.table() for one in self._scales]
