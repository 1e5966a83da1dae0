"""python -m deploy.checkpoint check: sizes and settings of a whole folder, every problem of a faulty one."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from deploy.checkpoint.__main__ import main
from deploy.checkpoint.inspection import inspect
from deploy.checkpoint.report import lines


@pytest.fixture
def folder(tiny_checkpoint: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(tiny_checkpoint, tmp_path / "tiny"))


def test_a_whole_folder_is_reported_with_memory_and_settings(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["checkpoint", "check", str(folder), "--dtype", "float32"])
    assert main() == 0
    report = capsys.readouterr().out
    found = inspect(folder, "float32")
    assert f"HART_CHECKPOINT={folder} HART_DTYPE=float32 HART_KV_CACHE_BYTES={8 * found.slot_bytes} make up" in report
    assert found.checkpoint is not None
    assert found.digest == found.checkpoint.digest
    assert all(part.weights >= 4 * part.parameters > 0 for part in found.parts)
    assert all(part.size == sum(p.stat().st_size for p in part.folder.iterdir()) for part in found.parts)


def test_half_precision_takes_half_of_the_text_encoder_s_memory(folder: Path) -> None:
    full, half = (
        {part.stage: part.weights for part in inspect(folder, dtype).parts} for dtype in ("float32", "bfloat16")
    )
    assert half["text_encoder"] < 0.6 * full["text_encoder"]


def test_problems_of_all_parts_are_reported_at_once(folder: Path) -> None:
    config = folder / "llm" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "depth": 3}))
    (folder / "safety" / "config.json").unlink()
    (folder / "tokenizer" / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\n")
    (folder / "generation.json").write_text("[]")
    found = inspect(folder, "bfloat16")
    report = "\n".join(lines(found))
    assert "config.json is missing" in report
    assert "run git lfs pull" in report
    assert "generation.json: expected an object" in report
    assert "cannot be served" in report
    assert "safety/ holds: a ShieldGemma" in report
    assert "make up" not in report
    assert len(found.all_problems()) == report.count("problem: ")


def test_a_warning_of_the_loader_is_a_note(folder: Path) -> None:
    (folder / "text_encoder" / "system_prompt.txt").unlink()
    assert any(
        "no system_prompt.txt" in line for line in lines(inspect(folder, "bfloat16")) if line.startswith("note:")
    )


def test_a_folder_that_is_no_checkpoint_gets_the_layout(tmp_path: Path) -> None:
    report = list(lines(inspect(tmp_path, "bfloat16")))
    assert any("not a checkpoint" in line for line in report)
    assert any(line.lstrip().startswith("llm/") for line in report)
