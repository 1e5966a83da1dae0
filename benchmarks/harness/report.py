"""Figures of a benchmark that may be cut off: each is written as soon as it is measured, and a failure is one too."""

import gc
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

NO_DEVICE, DEVICE_LOST = 2, 3
"""Exit codes."""


class Report:
    """Figures by name, written to a file at each change."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.figures: dict[str, Any] = json.loads(path.read_text()) if path and path.exists() else {}

    def __contains__(self, name: str) -> bool:
        return name in self.figures

    def put(self, name: str, value: object) -> None:
        """Keeps a figure, prints it, and writes the file."""
        self.figures[name] = value
        print(name, json.dumps(value), file=sys.stderr, flush=True)
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.write_text(json.dumps(self.figures, indent=1) + "\n")


@contextmanager
def recorded(report: Report, name: str) -> Iterator[None]:
    """Records an error as the figure `name`; one that costs the device ends the process, to be started again."""
    try:
        yield
    except Exception as error:
        report.put(name, f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:500])
        accelerator = getattr(torch, "AcceleratorError", ())
        if isinstance(error, accelerator) and not isinstance(error, torch.OutOfMemoryError):
            raise SystemExit(DEVICE_LOST) from error
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
