"""common.version: the version, and files that cannot import it but must agree."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from common.version import VERSION
from model.version import versions

ROOT = Path(__file__).resolve().parents[2]


def test_client_has_the_same_version() -> None:
    assert tomllib.loads((ROOT / "client/pyproject.toml").read_text())["project"]["version"] == VERSION


def test_chart_has_the_same_version() -> None:
    chart = yaml.safe_load((ROOT / "k8s/chart/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)


def test_container_images_have_the_same_version() -> None:
    assert re.findall(r"^ARG VERSION=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE) == [VERSION]


@pytest.mark.parametrize("file", ["Dockerfile", "docs/operations.md"])
def test_documentation_names_container_images_of_this_version(file: str) -> None:
    tags = re.findall(r"\bhart-[\w$-]+:(\d+\.\d+\.\d+)", (ROOT / file).read_text())
    assert tags
    assert set(tags) == {VERSION}


def test_recipe_versions_include_it() -> None:
    assert versions()["hart"] == VERSION
