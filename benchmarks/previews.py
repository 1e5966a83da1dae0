"""What previews add to the time of an image: by turns in one run without, with every second scale and with every scale.

    python -m benchmarks.previews [--images 20] [--threads 1]

Runs the local cluster. Prints medians with the min beside them, their ratios, and the previews that arrived by scale.
Exit code 1 if an image with previews takes more than 1.15 times as long, or if with previews of every scale most images
lack the first one or one of a middle scale.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections import Counter
from dataclasses import dataclass, field

import hart

from benchmarks.harness.cli import run_command
from benchmarks.harness.local_cluster import FAILURES, local_cluster
from training.core.options import count

MAX_RATIO = 1.15
PROMPT = "a red heart"


@dataclass
class Drawn:
    """The images of one kind."""

    preview_every: int
    seconds: list[float] = field(default_factory=list)
    previews: Counter[int] = field(default_factory=Counter)
    """Previews that arrived, by scale."""
    useful: int = 0
    """Images with a preview of the first scale and of one in the middle."""

    def draw(self, client: hart.Client, seed: int) -> None:
        """Draw one image and measure the time until it arrives."""
        begun, shown, scales = time.perf_counter(), set(), 0
        for event in client.stream(PROMPT, seed=seed, preview_every=self.preview_every):
            if isinstance(event, hart.Image):
                self.seconds.append(time.perf_counter() - begun)
            elif isinstance(event, hart.Progress):
                scales = event.scales
                if event.preview is not None:
                    shown.add(event.scale)
        self.previews.update(shown)
        self.useful += 0 in shown and bool(shown & set(range(1, scales - 1)))


def measure(endpoint: str, images: int) -> list[Drawn]:
    """Draw images of each kind by turns."""
    kinds = [Drawn(every) for every in (0, 1, 2)]
    with hart.Client(endpoint) as client:
        for every in (0, 1):
            Drawn(every).draw(client, 0)
        for seed in range(images):
            for kind in kinds:
                kind.draw(client, seed)
    return kinds


def judged(kinds: list[Drawn]) -> bool:
    """Print the figures. Returns whether they are as they should be."""
    without = statistics.median(kinds[0].seconds)
    good = kinds[1].useful * 2 > len(kinds[1].seconds)
    for kind in kinds:
        median = statistics.median(kind.seconds)
        name = f"a preview every {kind.preview_every}" if kind.preview_every else "no previews"
        arrived = ", ".join(f"{number} of scale {scale}" for scale, number in sorted(kind.previews.items()))
        print(
            f"{name}: median {median * 1e3:.0f} ms, min {min(kind.seconds) * 1e3:.0f}, ratio {median / without:.2f}"
            f"{'; previews: ' + arrived if arrived else ''}"
        )
        good &= median <= MAX_RATIO * without
    print(f"first and a middle preview of every scale: {kinds[1].useful} of {len(kinds[1].seconds)} images")
    return good


def main() -> int:
    """Run the command. Returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.previews", description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=count, default=20, help="images of each kind (default: %(default)s)")
    parser.add_argument("--threads", type=count, default=1, help="torch threads of a stage (default: %(default)s)")
    chosen = parser.parse_args()
    with local_cluster(torch_threads=str(chosen.threads)) as endpoint:
        return int(not judged(measure(endpoint, chosen.images)))


if __name__ == "__main__":
    sys.exit(run_command(main, *FAILURES))
