"""common: imports only the standard library and runs without any installed package."""

import ast
import sys
from pathlib import Path

import pytest

import common

FOLDER = Path(common.__file__).parent
MODULES = sorted(FOLDER.rglob("*.py"))


def roots(source: str) -> set[str]:
    """The top-level packages that a module imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative"
            found.add((node.module or "").partition(".")[0])
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_imports_only_the_standard_library(path: Path) -> None:
    assert roots(path.read_text()) <= {"common", *sys.stdlib_module_names}


def test_import_search_finds_other_packages() -> None:
    assert roots("import numpy as np\nfrom hart.v1 import images_pb2\nimport json") == {"numpy", "hart", "json"}
