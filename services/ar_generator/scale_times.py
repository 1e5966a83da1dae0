"""Estimates the duration of scales and of whole images from recent measurements."""

from __future__ import annotations

from collections.abc import Sequence

from runtime.work.estimator import Estimator

MEMORY_SECONDS = 600.0


class ScaleTimeEstimator(Estimator):
    """An estimator whose unit of cost is one image.

    `throughput` is measured on whole images, each with its share of its batches (`observe`). `fastest` and `typical`
    are sums over the scales of one image, because an image's scales run one after another.
    """

    def __init__(self, scales: int) -> None:
        super().__init__()
        self._scales = [Estimator(memory=MEMORY_SECONDS) for _ in range(scales)]

    def observe_warm_up(self, measured: Sequence[Sequence[tuple[int, float]]]) -> None:
        """Record the warm-up: (images, seconds) pairs per scale, first of one image alone."""
        for scale, found in enumerate(measured):
            for images, seconds in found:
                self.observe_scale(scale, images, seconds)
        self.observe(1.0, sum(found[0][1] for found in measured))

    def observe_scale(self, scale: int, images: int, seconds: float) -> None:
        """Record that a batch of `images` took `seconds` at this scale."""
        self._scales[scale].observe(images, seconds)

    def remaining(self, scale: int = 0) -> float:
        """A lower bound of the seconds that an image takes from this scale on; 0 without measurements."""
        return sum(one.fastest(1.0) for one in self._scales[scale:])

    def fastest(self, cost: float) -> float:
        """A lower bound of the seconds of a whole image, for any cost: batching makes no image faster."""
        return self.remaining()

    def typical(self, cost: float) -> float:
        """Mean seconds of a whole image alone, for any cost."""
        return sum(self.by_scale())

    def by_scale(self) -> list[float]:
        """Mean seconds of each scale of one image alone; 0 without measurements."""
        return [one.typical(1.0) for one in self._scales]

    def tables(self) -> list[dict[int, float]]:
        """Per scale, mean seconds of a batch by its size."""
        return [one.table() for one in self._scales]
