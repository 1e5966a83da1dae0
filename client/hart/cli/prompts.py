"""Reads a file of prompts, one per line."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hart.cli.connection import UsageError

_LINE = re.compile(rb"\r\n|\n|\r")
_MARK = b"\xef\xbb\xbf"


def read(file: Path) -> list[str]:
    """The trimmed prompts without empty lines; `-` is standard input.

    Raises UsageError if there is no prompt, or that names a line which is not UTF-8.
    """
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    lines = [_text(file, number, line) for number, line in enumerate(_LINE.split(data.removeprefix(_MARK)), 1)]
    prompts = [line for line in lines if line]
    if not prompts:
        raise UsageError(f"--file {file}: no prompts")
    return prompts


def _text(file: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").strip().strip("\ufeff\u200b\u2060").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"--file {file}: line {number} is not UTF-8: {error.reason}") from None
