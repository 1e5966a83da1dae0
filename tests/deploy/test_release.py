"""deploy.release: one version everywhere, and release notes from the changelog."""

import shutil
from pathlib import Path

import pytest

from common.version import VERSION
from deploy.release import ROOT, STATED, ReleaseError, notes, require_one_version, set_version, stated


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that state the version, apart from the repository."""
    for name in STATED:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def test_every_file_states_the_same_version() -> None:
    require_one_version()
    assert set(stated()) == set(STATED)


@pytest.mark.parametrize("name", STATED)
def test_a_file_with_another_version_is_named(checkout: Path, name: str) -> None:
    path = checkout / name
    path.write_text(path.read_text().replace(VERSION, "9.9.9"))
    with pytest.raises(ReleaseError, match=rf"expected version {VERSION}: {name}: .*9\.9\.9"):
        require_one_version(checkout)


def test_set_writes_the_version_into_every_file(checkout: Path) -> None:
    set_version("1.20.3", checkout)
    assert stated(checkout) == {name: {"1.20.3"} for name in STATED}
    require_one_version(checkout, "1.20.3")


@pytest.mark.parametrize("version", ["", "1", "1.2", "v1.2.3", "1.2.3-rc1", "1.2.x"])
def test_a_version_of_another_form_is_refused(checkout: Path, version: str) -> None:
    with pytest.raises(ReleaseError, match=r"expected MAJOR\.MINOR\.PATCH"):
        set_version(version, checkout)
    require_one_version(checkout)


def test_the_notes_are_the_section_of_the_version() -> None:
    changelog = "# Changelog\n\n## 0.2.0 - 2027-01-01\n### Added\n- two\n\n## 0.1.0 - 2026-11-27\n- one\n"
    assert notes(changelog, "0.2.0") == "### Added\n- two\n"
    assert notes(changelog, "0.1.0") == "- one\n"


@pytest.mark.parametrize("changelog", ["## Unreleased\n- new\n", "## 0.1.0\n\n## 0.0.9\n- old\n", "## 0.1.01\n- x\n"])
def test_a_version_without_notes_is_refused(changelog: str) -> None:
    with pytest.raises(ReleaseError, match=r"no section `## 0\.1\.0`"):
        notes(changelog, "0.1.0")
