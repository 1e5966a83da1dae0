"""exiftool, which anybody can install, finds the mark and the recipe."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from common.image_formats import FORMATS, ImageFormat
from model.image_file import encode

EXIFTOOL = shutil.which("exiftool") or ""


@pytest.mark.skipif(not EXIFTOOL, reason="exiftool is not installed (Debian: libimage-exiftool-perl)")
@pytest.mark.parametrize("format", FORMATS.values(), ids=lambda format: format.name)
def test_exiftool_reads_the_mark(format: ImageFormat, tmp_path: Path) -> None:
    path = tmp_path / f"image{format.suffix}"
    path.write_bytes(encode(np.zeros((16, 16, 3), np.uint8), format.name, recipe='{"seed": 7}'))
    done = subprocess.run(
        [EXIFTOOL, "-json", "-n", "-XMP-iptcExt:DigitalSourceType", "-warning", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    (found,) = json.loads(done.stdout)
    assert found["DigitalSourceType"] == "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    assert found.get("Warning") is None
