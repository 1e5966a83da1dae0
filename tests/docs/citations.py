"""Finds citations in a text: of sections of the specification and of files of this repository."""

import re
from dataclasses import dataclass

SPECIFICATION = "docs/spec.md"
_BREAK = r"[\s#/*\"]+"  # a line may break here, also within a comment
_SECTIONS = re.compile(
    rf"(?P<source>\S+),{_BREAK}sections?{_BREAK}(?P<first>\d+)"
    rf"(?:(?P<join>{_BREAK}(?:to|and){_BREAK}|,{_BREAK})(?P<last>\d+))?"
)
_MENTION = re.compile(rf"\bsections?{_BREAK}\d", re.IGNORECASE)
_HEADING = re.compile(r"^## (\d+)\. ", re.MULTILINE)
_DOCUMENT = re.compile(r"(?<![\w./-])(?:\.\./)*((?:docs|spec|design)/[\w./-]+\.md)\b")


@dataclass(frozen=True)
class Citation:
    """One citation of sections."""

    source: str
    """As written: "docs/spec.md"."""
    sections: tuple[int, ...]


def headings(text: str) -> list[int]:
    """The numbers of a document's sections."""
    return [int(number) for number in _HEADING.findall(text)]


def citations(text: str) -> list[Citation]:
    """Citations of numbered sections."""
    found = []
    for match in _SECTIONS.finditer(text):
        first, last = int(match["first"]), int(match["last"] or match["first"])
        span = range(first, last + 1) if match["join"] and match["join"].strip(' \n#/*"') == "to" else (first, last)
        found.append(Citation(match["source"].lstrip("(`[\"'"), tuple(dict.fromkeys(span))))
    return found


def uncited(text: str) -> int:
    """Mentions of a numbered section that name no document."""
    return len(_MENTION.findall(text)) - len(citations(text))


def documents(text: str) -> list[str]:
    """Paths of documents that a text names."""
    return _DOCUMENT.findall(text)
