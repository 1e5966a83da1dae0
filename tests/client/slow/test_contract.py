"""protos/: the wire contract against its committed baseline: additions pass, breaking changes do not."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUF = Path(sys.executable).with_name("buf")


def compare(protos: Path) -> subprocess.CompletedProcess[str]:
    """Run buf's breaking-change check."""
    return subprocess.run(
        [BUF, "breaking", protos, "--against", ROOT / "protos/baseline.binpb"], capture_output=True, text=True
    )


@pytest.fixture
def protos(tmp_path: Path) -> Path:
    """A copy of the contract."""
    return Path(shutil.copytree(ROOT / "protos", tmp_path / "protos"))


def test_contract_matches_the_baseline_and_the_lint_rules() -> None:
    found = compare(ROOT / "protos")
    assert found.returncode == 0, found.stdout
    assert subprocess.run([BUF, "lint", ROOT / "protos"]).returncode == 0


def test_new_field_is_no_breaking_change(protos: Path) -> None:
    file = protos / "hart/v1/images.proto"
    file.write_text(file.read_text().replace("message StatusRequest {}", "message StatusRequest { bool all = 1; }"))
    assert compare(protos).returncode == 0


@pytest.mark.parametrize(
    ("pattern", "replacement"),
    [
        (r"string prompt = 2;", "string prompt = 20;"),
        (r"string prompt = 2;", "bytes prompt = 2;"),
        (r"string prompt = 2;", "string text = 2;"),
        (r"optional bool more_smooth = 6;", ""),
        (r"rpc Status\(", "rpc State("),
        (r"WARNING_CODE_PROMPT_REPLACED = 3", "NOTICE_CODE_PROMPT_SWAPPED = 3"),
    ],
)
def test_breaking_change_of_a_published_field_is_refused(protos: Path, pattern: str, replacement: str) -> None:
    file = protos / "hart/v1/images.proto"
    text, count = re.subn(pattern, replacement, file.read_text(), count=1)
    assert count == 1
    file.write_text(text)
    assert compare(protos).returncode != 0
