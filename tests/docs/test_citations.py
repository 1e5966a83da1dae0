"""docs/spec.md and all texts: every cited section, document and file exists."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.citations import SPECIFICATION, Citation, citations, documents, headings, uncited

ROOT = Path(__file__).resolve().parents[2]
SUFFIXES = {".py", ".md", ".proto", ".toml", ".yaml", ".tpl", ".cu", ".txt", ""}
LISTED = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
FILES = [name for name in LISTED if name and Path(name).suffix in SUFFIXES and not name.startswith("tests/docs/")]
TEXTS = {name: (ROOT / name).read_text(errors="replace") for name in FILES if (ROOT / name).is_file()}
SPEC = (ROOT / SPECIFICATION).read_text()
OWN = {SPECIFICATION, "LICENSE"}
"""These cite their own sections by number only."""


def test_specification_has_sections_one_to_nine() -> None:
    assert headings(SPEC) == list(range(1, 10))


def test_every_cited_section_exists() -> None:
    cited = {(name, one) for name, text in TEXTS.items() if name not in OWN for one in citations(text)}
    assert len(cited) > 15, "the search finds them"
    unknown = {(name, one.source) for name, one in cited} - {(name, SPECIFICATION) for name in TEXTS}
    assert unknown == set()
    assert not [(name, one) for name, one in cited if not set(one.sections) <= set(headings(SPEC))]


def test_every_mention_of_a_section_names_its_document() -> None:
    assert not [name for name, text in TEXTS.items() if name not in OWN and uncited(text)]


def test_specification_cites_existing_sections_of_its_own() -> None:
    cited = {
        int(number) for number in re.findall(r"\(section (\d+)\)|of section (\d+)", SPEC) for number in number if number
    }
    assert cited
    assert cited <= set(headings(SPEC))


def test_every_named_document_exists() -> None:
    named = {(name, path) for name, text in TEXTS.items() for path in documents(text)}
    assert len(named) > 20, "the search finds them"
    assert not [(name, path) for name, path in named if not (ROOT / path).is_file()]


def test_files_named_in_the_specification_exist() -> None:
    ours = [path for part in re.findall(r"Here:(.*?)\*\n", SPEC, re.DOTALL) for path in re.findall(r"`([^`]+)`", part)]
    assert len(ours) > 15
    assert not [path for path in ours if not (ROOT / path).exists()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(docs/spec.md, section 8)", [Citation("docs/spec.md", (8,))]),
        ("docs/spec.md, sections 2 to 4).", [Citation("docs/spec.md", (2, 3, 4))]),
        ("(docs/spec.md, sections 3 and 9)", [Citation("docs/spec.md", (3, 9))]),
        ("# (docs/spec.md, section\n    # 12)", [Citation("docs/spec.md", (12,))]),
        ("(spec, section 7)", [Citation("spec", (7,))]),
        ("no citation", []),
    ],
)
def test_citations_are_found(text: str, expected: list[Citation]) -> None:
    assert citations(text) == expected
    assert uncited(text) == 0


def test_dangling_citations_are_found() -> None:
    assert uncited("never a shared generator (section 8)") == 1
    assert documents("see docs/nowhere.md, `spec/hart.md` and ../../docs/log.md.") == [
        "docs/nowhere.md",
        "spec/hart.md",
        "docs/log.md",
    ]
