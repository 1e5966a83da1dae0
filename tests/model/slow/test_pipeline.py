"""model.pipeline, model.__main__: the local pipeline and its command, with a tiny checkpoint."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from tests.recipes import read_recipe

ROOT = Path(__file__).resolve().parents[3]


def command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "model", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_command_writes_an_image(tiny: Path, tmp_path: Path) -> None:
    done = command(
        "a red heart", "--checkpoint", str(tiny), "--seed", "7", "--no-more-smooth", "-o", "heart.jpg", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "heart.jpg") as image:
        assert (image.format, image.size) == ("JPEG", (8, 8))
    recipe = read_recipe((tmp_path / "heart.jpg").read_bytes())
    assert recipe is not None
    assert (recipe.seed, recipe.more_smooth) == (7, False)
    assert "not trained on" not in done.stderr


def test_command_names_words_out_of_vocabulary(tiny: Path, tmp_path: Path) -> None:
    done = command("a red zebra", "--checkpoint", str(tiny), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "the model was not trained on: zebra" in done.stderr.splitlines()
