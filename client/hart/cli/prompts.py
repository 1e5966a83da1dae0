"""A file of prompts, one a line. Knows no request."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from hart.cli.connection import UsageError

_LINE = re.compile(rb"\r\n|\n|\r")
_MARK = b"\xef\xbb\xbf"


def read(file: Path) -> list[str]:
    """Trimmed, empty lines left out; `-` is standard input. Raises UsageError naming the line that is not UTF-8."""
    data = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    lines = [_text(file, number, line) for number, line in enumerate(_LINE.split(data.removeprefix(_MARK)), 1)]
    prompts = [line for line in lines if line]
    if not prompts:
        raise UsageError(f"--file {file}: holds no prompt")
    return prompts


def _text(file: Path, number: int, line: bytes) -> str:
    try:
        return line.decode("utf-8").strip().strip("\ufeff\u200b\u2060").strip()
    except UnicodeDecodeError as error:
        raise UsageError(f"--file {file}: line {number} is not UTF-8: {error.reason}") from None
