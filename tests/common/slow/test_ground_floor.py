"""common: imports only the standard library and runs without any installed package."""

import subprocess
import sys
from pathlib import Path

import common

FOLDER = Path(common.__file__).parent
MODULES = sorted(FOLDER.rglob("*.py"))


def test_every_module_imports_without_installed_packages() -> None:
    names = [f"common.{path.stem}" for path in MODULES if path.stem != "__init__"]
    code = f"import sys; sys.path.insert(0, {str(FOLDER.parent)!r}); import {', '.join(names)}"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
