"""The project's vocabulary: the field's terms stay, the names they replaced do not come back."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HISTORY = {"CHANGELOG.md", "docs/log.md", "tests/docs/test_words.py"}
CLASSES = """
Wish Slab Door LatentGate Catalog Descriptions Timesheet Repeats OipCaller Crowd EngineThread KeepErrors RecordAll
Dialer CallerLeft FileMaker Easel Pace Telling Suspects
"""
NAMES = """
wish_of let_end turned_away untold advance_on attend_kept attend_last notices NoticeCode
NOTICE_CODE_PROMPT_UNFAMILIAR NOTICE_CODE_PROMPT_TRUNCATED NOTICE_CODE_PROMPT_REPLACED
HART_MAX_LATENTS HART_ANSWER_BYTES HART_REPEAT_SECONDS HART_REPEAT_BYTES HART_RESTING_STAGES HART_MARGIN_SECONDS
HART_PATIENCE_SECONDS HART_MAX_WAIT_SECONDS HART_BATCH_TOKENS HART_SLOT_MEMORY_BYTES HART_QUEUE_LIMIT HART_MAX_REQUESTS
HART_FILE_THREADS HART_DESCRIBE_SECONDS HART_SCALER_ACTIVE_SECONDS
hart_request_seconds hart_queue_seconds hart_compute_seconds hart_scale_seconds hart_replicas_least
no_room files_full max_latents repeat_seconds repeat_bytes resting_stages patience_seconds slot_memory_bytes
file_threads
"""
PRIVATE = "hear hears told whoever nobody"
MAX_PRIVATE_LINES = 20


def lines(*patterns: str) -> Iterator[tuple[str, int, str]]:
    """(file, line number, line) of the tracked text files that match."""
    listed = subprocess.run(["git", "ls-files", "-z", *patterns], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        if name in HISTORY:
            continue
        try:
            text = (ROOT / name).read_text("utf-8")
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue
        yield from ((name, number, line) for number, line in enumerate(text.splitlines(), 1))


def found(words: str, *patterns: str) -> list[str]:
    """Lines with one of the words, each as file:line: text."""
    word = re.compile(r"\b(?:" + "|".join(map(re.escape, words.split())) + r")\b")
    return [f"{name}:{number}: {line.strip()[:100]}" for name, number, line in lines(*patterns) if word.search(line)]


@pytest.fixture(scope="module", autouse=True)
def checkout() -> None:
    """Needs the list of tracked files."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")


def test_replaced_class_names_do_not_come_back() -> None:
    assert found(CLASSES, "*.py", "*.proto") == []


def test_replaced_names_do_not_come_back() -> None:
    assert (
        found(NAMES, "*.py", "*.proto", "*.md", "*.yaml", "*.json", "*.tpl", "*.toml", "Makefile", "Dockerfile") == []
    )


def test_code_neither_hears_nor_tells() -> None:
    assert len(found(PRIVATE, "*.py", "*.proto")) <= MAX_PRIVATE_LINES


def test_the_finder_sees_whole_words_alone() -> None:
    assert found("GenerationPipeline", "gateway/*.py")
    assert found("GenerationPipelin", "gateway/*.py") == []
